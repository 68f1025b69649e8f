"""`when = { … }` of a policy: the attributes of a call, and what each may be compared with."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from zoneinfo import ZoneInfo

from gateway.core.limit import MICROS
from gateway.core.policy import Globs, Header, Hours, Levels, Networks, Range, When
from gateway.settings.faults import did_you_mean, quote
from gateway.settings.kinds import INVALID, Flag, Kind, Number, Reading, Text, Wrong, text_of
from gateway.settings.network import shortest
from gateway.settings.tables import Field, Many, Named, Table
from gateway.settings.tree import Node

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
# Headers that no credential stands in, and those of the caller's own make.
HEADERS = (
    "user-agent", "origin", "referer", "content-type", "accept-language", "openai-beta", "anthropic-beta",
    "anthropic-version",
)  # fmt: skip
_SECRET = re.compile(r"key|auth|token|secret|cookie|passw|credential|signature|session-id")
_SPAN = re.compile(r"([01][0-9]|2[0-3]):([0-5][0-9])-(?:([01][0-9]|2[0-4]):([0-5][0-9]))", re.ASCII)
_MOST = 1000  # patterns of one test
_DEEPEST = 8  # conditions inside conditions

_PATTERN = Text(pattern=r"!?[^!\s].*", meaning='a name or glob, "!" before it for all but that', most=256)


@dataclass
class Patterns(Kind):
    """One glob or several; "!" before one leaves out what it matches.

    `listed` is for attributes with any number of values: there, "!" alone could mean two things.
    """

    make: Callable[[tuple[str, ...], tuple[str, ...]], Any] = Globs
    each: Kind = field(default_factory=lambda: _PATTERN)
    listed: str = ""

    def read(self, node: Node, reading: Reading) -> Any:
        """See `Kind.read`."""
        values = Many(self.each, least=1, single=True, most=_MOST).read(node, reading)
        given = len(node.value) if isinstance(node.value, list) else 1
        if values is INVALID or len(values) != given:
            return INVALID
        of = tuple(value for value in values if not value.startswith("!"))
        but = tuple(value[1:] for value in values if value.startswith("!"))
        if self.listed and not of:
            told = f'a call may have several {self.listed}: write not = {{ {self.listed} = "{but[0]}" }} for '
            told += f'"none of them is that", or ["*", "!{but[0]}"] for "one of them is something else"'
            reading.fault(node, told)
            return INVALID
        return self.make(of, but)

    def schema(self) -> dict[str, Any]:
        """See `Kind.schema`."""
        return Many(self.each, least=1, single=True, most=_MOST).schema()


class _Network(Kind):
    """An address or a CIDR range, perhaps with "!" before it."""

    def parse(self, node: Node, reading: Reading) -> str:
        text = text_of(node, 'an address range such as "10.0.0.0/8"')
        mark = "!" if text.startswith("!") else ""
        try:
            return mark + shortest(text.removeprefix("!"))
        except ValueError:
            pass
        try:
            right = shortest(text.removeprefix("!"), strict=False)
        except ValueError:
            raise Wrong(f'{quote(text)} is not an address range such as "10.0.0.0/8"') from None
        raise Wrong(f"{quote(text)} has bits beyond its length; write {quote(mark + right)}")

    def schema(self) -> dict[str, Any]:
        return {"type": "string", "pattern": "^!?[0-9A-Fa-f:.]+(/[0-9]{1,3})?$"}


class _Days(Kind):
    """Days of the week: "mon", "mon-fri"; as a bit set."""

    def parse(self, node: Node, reading: Reading) -> tuple[int, ...]:
        text = text_of(node, 'days such as "mon-fri"')
        first, dash, last = text.lower().partition("-")
        for name in (first, last) if dash else (first,):
            if name not in DAYS:
                near = did_you_mean(name, DAYS)
                raise Wrong(f"{quote(text)} names no days{near}  (days: {' '.join(DAYS)}, or mon-fri)")
        begin, end = DAYS.index(first), DAYS.index(last or first)
        return tuple(day % 7 for day in range(begin, end + 1 if end >= begin else end + 8))

    def schema(self) -> dict[str, Any]:
        day = "|".join(DAYS)
        return {"type": "string", "pattern": f"^(?:{day})(?:-(?:{day}))?$"}


class _Span(Kind):
    """A span of a day, "08:00-18:00", in minutes; "24:00" is the end of the day."""

    def parse(self, node: Node, reading: Reading) -> tuple[int, int]:
        text = text_of(node, 'hours such as "08:00-18:00"')
        match = _SPAN.fullmatch(text)
        if match is None or (match[3] == "24" and match[4] != "00"):
            raise Wrong(f'{quote(text)} is not a span of hours such as "08:00-18:00"')
        hour, minute, until, past = (int(part) for part in match.groups())
        return hour * 60 + minute, until * 60 + past

    def schema(self) -> dict[str, Any]:
        return {"type": "string", "pattern": "^[0-2][0-9]:[0-5][0-9]-[0-2][0-9]:[0-5][0-9]$"}


class Zone(Kind):
    """A time zone of the IANA database."""

    def parse(self, node: Node, reading: Reading) -> str:
        name = text_of(node, 'a time zone such as "Europe/Berlin"')
        try:
            ZoneInfo(name)
        except Exception:  # not found, not a name, not a zone file: each has an exception of its own
            raise Wrong(f'no time zone {quote(name)} here; it is a name such as "Europe/Berlin"') from None
        return name

    def schema(self) -> dict[str, Any]:
        return {"type": "string", "minLength": 1}


def _hours(values: dict[str, Any], node: Node, reading: Reading) -> Any:
    if not node.value.keys() & {"days", "hours"}:
        reading.fault(node, 'says nothing: give days = ["mon-fri"], hours = "08:00-18:00", or both')
        return INVALID
    if node.value.keys() - values.keys():
        return INVALID
    days = sorted({day for days in values.get("days", ()) for day in days}) or range(7)
    return Hours(tuple(days), values.get("hours", ()), values.get("zone", "UTC"))


def _range(scale: int = 1) -> Callable[[dict[str, Any], Node, Reading], Any]:
    def finish(values: dict[str, Any], node: Node, reading: Reading) -> Any:
        if not node.value:
            reading.fault(node, "says nothing: give above, below or both")
        if not node.value or node.value.keys() - values.keys():
            return INVALID
        above, below = (
            None if name not in values else round(values[name] * scale) if scale > 1 else values[name]
            for name in ("above", "below")
        )
        if above is not None and below is not None and above >= below:
            reading.fault(node, "can never hold: above must be less than below")
            return INVALID
        return Range(above, below)

    return finish


class _Measure(Table):
    """A table that a number alone can't stand for."""

    def read(self, node: Node, reading: Reading) -> Any:
        if isinstance(node.value, (int, float)) and not isinstance(node.value, bool):
            told = f"must say which side: {{ above = {node.value} }} or {{ below = {node.value} }}"
            reading.fault(node, told)
            return INVALID
        return super().read(node, reading)


def measure(name: str, most: float = 1e15, scale: int = 1) -> Table:
    """`{ above = …, below = … }`, both without the number itself."""
    number = Number(most=most)
    fields = {"above": Field(number, "more than this"), "below": Field(number, "less than this")}
    return _Measure(name, Range, fields, finish=_range(scale))


_LEVEL = Text(pattern="[a-z][a-z0-9_-]*", meaning="the name of a level in small letters", most=64)


class _Classification(Kind):
    """Levels by name, or those above or below one."""

    _table = Table(
        "classification",
        Levels,
        {"above": Field(_LEVEL, "higher than this level"), "below": Field(_LEVEL, "lower than it")},
    )

    def read(self, node: Node, reading: Reading) -> Any:
        if isinstance(node.value, dict):
            if not node.value:
                reading.fault(node, "says nothing: give above, below or both")
                return INVALID
            return self._table.read(node, reading)
        values = Many(_LEVEL, least=1, single=True, most=_MOST).read(node, reading)
        return INVALID if values is INVALID else Levels(values)

    def schema(self) -> dict[str, Any]:
        return {"anyOf": [_LEVEL.schema(), {"type": "array", "items": _LEVEL.schema()}, self._table.schema()]}


class _HeaderName(Kind):
    """A request header that a policy may look at."""

    def parse(self, node: Node, reading: Reading) -> str:
        name = text_of(node).lower()
        own = re.fullmatch(r"x-[a-z0-9-]{1,64}", name) and not _SECRET.search(name)
        if name not in HEADERS and not own:
            told = f"a policy does not look at the header {quote(name)}"
            raise Wrong(f"{told}  (it may at x-… without credentials, and at {', '.join(HEADERS)})")
        return name

    def schema(self) -> dict[str, Any]:
        return {"type": "string", "pattern": "^[A-Za-z0-9-]{1,66}$"}


class Nested(Kind):
    """A condition inside a condition."""

    def read(self, node: Node, reading: Reading) -> Any:
        if sum(part in ("any", "not") for part in node.path) > _DEEPEST:
            reading.fault(node, f"conditions are nested more than {_DEEPEST} deep")
            return INVALID
        return WHEN.read(node, reading)

    def schema(self) -> dict[str, Any]:
        return {"$ref": "#/properties/policies/items/properties/when"}


def _when(values: dict[str, Any], node: Node, reading: Reading) -> Any:
    if node.value.keys() - values.keys():
        return INVALID
    nested = len(node.path) and node.path[-1] != "when"
    if nested and not node.value:
        reading.fault(node, "is an empty condition, which always holds")
        return INVALID
    either, never = values.pop("any", ()), values.pop("not", ())
    headers = values.pop("header", {})
    tests = [(name, values[name]) for name in WHEN.fields if name in values]
    tests += [("header", Header(name.lower(), value)) for name, value in headers.items()]
    return When(tuple(tests), either, never)


_NAME = Patterns()

WHEN = Table(
    "when",
    When,
    {
        "tenant": Field(_NAME, "the caller's tenant"),
        "team": Field(_NAME, "the caller's team"),
        "user": Field(_NAME, "the caller's user"),
        "key": Field(_NAME, "the key's name or id"),
        "roles": Field(Patterns(listed="roles"), "a role of the caller"),
        "model": Field(_NAME, "the model as the caller names it"),
        "endpoint": Field(_NAME, '"chat/completions", "responses", "other" …, or a path without /v1/'),
        "backend": Field(_NAME, "a backend that may be asked"),
        "session": Field(_NAME, "x-penstock-session"),
        "tags": Field(Patterns(listed="tags"), "a tag of the key, its groups, or x-penstock-tags"),
        "tools": Field(Patterns(listed="tools"), "a tool that is offered to the model, by name"),
        "tool_choice": Field(
            Patterns(listed="tool_choice"), '"auto", "none", "required", or the tool that must be called'
        ),
        "client": Field(Patterns(Networks, _Network()), "the caller's address, as CIDR ranges"),
        "time": Field(
            Table(
                "time",
                Hours,
                {
                    "days": Field(Many(_Days(), least=1, single=True, most=14), '"mon-fri"; absent: all'),
                    "hours": Field(
                        Many(_Span(), least=1, single=True, most=48), '"08:00-18:00"; absent: all day'
                    ),
                    "zone": Field(Zone(), "a time zone of the IANA database; absent: UTC"),
                },
                finish=_hours,
            ),
            "when the call came",
        ),
        "cost": Field(measure("cost", 1e9, MICROS), "the most it is estimated to cost, in US dollars"),
        "tokens": Field(measure("tokens"), "the prompt's tokens, estimated"),
        "max_tokens": Field(measure("max_tokens"), "the longest answer the caller allows"),
        "temperature": Field(measure("temperature", 100), "as the caller states it"),
        "classification": Field(_Classification(), "how sensitive the call's data is"),
        "stream": Field(Flag(), "whether the answer is to be streamed"),
        "images": Field(Flag(), "whether the prompt holds images"),
        "header": Field(Named(_NAME, _HeaderName()), "request headers by name"),
        "any": Field(Many(Nested(), least=1, most=100), "one of these conditions holds as well"),
        "not": Field(Many(Nested(), least=1, single=True, most=100), "none of these conditions holds"),
    },
    finish=_when,
)
