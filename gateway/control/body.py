"""JSON bodies of the admin API: read by the same declarations as the file, all faults at once."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gateway.core.codec import JSONError, loads
from gateway.core.errors import CallerError
from gateway.core.moment import moment
from gateway.settings.callers import KEY, LABEL
from gateway.settings.faults import quote
from gateway.settings.kinds import INVALID, Kind, Number, Reading, Text, Wrong, named_type
from gateway.settings.quantities import Duration
from gateway.settings.tables import Field, Table
from gateway.settings.tenants import TENANTS
from gateway.settings.tree import Node, Source, grow

LARGEST = 1 << 20  # bytes of a body


class When(Kind):
    """An ISO 8601 date or date-time (UTC where it names no offset), as epoch seconds."""

    def parse(self, node: Node, reading: Reading) -> float:
        value = node.value
        if not isinstance(value, str):
            raise Wrong(f'must be a date-time such as "2027-01-01T00:00:00Z", not {named_type(value)}')
        try:
            return moment(value).timestamp()
        except ValueError:
            raise Wrong(f'{quote(value)} is not a date-time such as "2027-01-01T00:00:00Z"') from None

    def schema(self) -> dict[str, Any]:
        return {"type": "string", "format": "date-time"}


class Document(Kind):
    """A text of several lines."""

    def parse(self, node: Node, reading: Reading) -> str:
        if not isinstance(node.value, str):
            raise Wrong(f"must be the text of a TOML file, not {named_type(node.value)}")
        return node.value

    def schema(self) -> dict[str, Any]:
        return {"type": "string"}


_EXPIRES = {"expires": Field(When(), "from then on it is refused")}
_OF_KEYS = {
    name: KEY.fields[name]
    for name in ("tenant", "team", "user", "roles", "models", "endpoints", "tags", "networks")
} | _EXPIRES

NEW_KEY = Table("a key", dict, {"name": KEY.fields["name"], **_OF_KEYS})
CHANGED_KEY = Table("a key", dict, _OF_KEYS)
ROTATION = Table(
    "a rotation",
    dict,
    {"overlap": Field(Duration(least=0.0, most=90 * 86_400.0, example="24h"), "the old secret works for")},
)
_TENANT: Any = TENANTS.each
CHANGED_TENANT = Table("a tenant", dict, _TENANT.fields)
NEW_TENANT = Table(
    "a tenant", dict, {"name": Field(LABEL, "a name of its own", required=True), **_TENANT.fields}
)
NEW_RAISE = Table(
    "a raise",
    dict,
    {
        "by": Field(Number(least=0.000001, most=1e15), "so much more, in the rule's unit", required=True),
        "until": Field(When(), "from then on the limit is as before"),
        "for": Field(
            Duration(least=1.0, most=366 * 86_400.0, example="2h"), "in place of until: for so long"
        ),
        "value": Field(
            Text(meaning="a glob", most=256),
            "only buckets whose value matches; a key may be called by its name; absent: all",
        ),
        "reason": Field(Text(most=256), "why, for the audit"),
    },
)
TOML = Table(
    "a configuration",
    dict,
    {
        "toml": Field(Document(), "the whole file", required=True),
        "note": Field(Text(most=256), "why, for the history"),
    },
)
ROLLBACK = Table(
    "a rollback",
    dict,
    {
        "to": Field(Text(most=64), "a revision of the history; absent: the one before"),
        "note": Field(Text(most=256), "why, for the history"),
    },
)


def parse(data: bytes) -> dict[str, Any]:
    """The JSON object of a request. Raises `CallerError` (400)."""
    try:
        document = loads(data) if data.strip() else {}
        if document:
            json.loads(data, object_pairs_hook=_distinct)
    except JSONError as error:
        raise CallerError(f"The body is not valid JSON: {str(error)[:200]}") from None
    except RecursionError:
        raise _too_deep() from None
    if not isinstance(document, dict):
        raise CallerError("The body must be a JSON object.")
    return document


def _too_deep() -> CallerError:
    return CallerError("The body is nested too deep.")


def _distinct(pairs: list[tuple[str, Any]]) -> None:
    """Of a member that is there twice nobody can tell which one was meant."""
    seen: set[str] = set()
    for name, _ in pairs:
        if name in seen:
            raise CallerError(f"The body has the member {quote(name)} twice.", param=name[:64])
        seen.add(name)


def read(table: Table, document: Mapping[str, Any], at: tuple[str, ...] = ()) -> dict[str, Any]:
    """The members of a body, as the gateway uses them. Raises `CallerError` (400) with all faults.

    null takes a member back to its default: it is None in what is given.
    """
    given = {name: value for name, value in document.items() if value is not None}
    reading = Reading({}, resolve=False)
    try:
        node = grow(given, Source("body", Path(), in_file=False), at)
        values = table.read(node, reading)
    except RecursionError:
        raise _too_deep() from None
    gone = {name for name in document if document[name] is None}
    for name in gone - table.fields.keys():
        reading.fault(grow(None, node.source, (*at, name)), "unknown member", at_key=True)
    if reading.faults or values is INVALID:
        told = "; ".join(f"{fault.path or 'the body'}: {fault.message}" for fault in reading.faults[:20])
        raise CallerError(f"{told}.", code="caller_bad_request", param=reading.faults[0].path or None)
    return {**values, **dict.fromkeys(gone)}
