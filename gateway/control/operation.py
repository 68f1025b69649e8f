"""One operation of the admin API as it is declared: from this it is routed, checked, run and documented."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from gateway.control.changes import Changes
from gateway.control.operator import Operator
from gateway.control.port import Desk
from gateway.core.errors import CallerError
from gateway.core.records import Change, Deed
from gateway.settings.schema import Settings
from gateway.settings.tables import Table

_WHOLE = re.compile(r"[0-9]{1,16}\Z")
MOST = 1000  # items of one page
PAGE = 100


@dataclass(slots=True)
class Ask:
    """A request that may be made: who, for what, with what."""

    desk: Desk
    operator: Operator
    path: Mapping[str, str]
    query: Mapping[str, str]
    values: Mapping[str, Any]  # the body's members; see control.body.read
    match: str = "*"  # if-match

    @property
    def settings(self) -> Settings:
        """The revision that serves."""
        return self.desk.settings

    @property
    def changes(self) -> Changes:
        """What this operator may change."""
        return Changes(self.operator, self.desk.settings)

    def whole(self, name: str, default: int, least: int, most: int) -> int:
        """A whole number of the query. Raises `CallerError`."""
        text = self.query.get(name, "")
        if not text:
            return default
        if not _WHOLE.match(text) or not least <= int(text) <= most:
            raise CallerError(f"{name} must be a whole number from {least} to {most}.", param=name)
        return int(text)


@dataclass(slots=True)
class Answer:
    """What comes back. `version` becomes the ETag; `made` is where something new is found.

    `change` is still to be written: the answer says how it will be then. `deed` has been done, and is still
    to be noted in the audit.
    """

    document: Any
    status: int = 200
    version: int | None = None
    change: Change | None = None
    made: str = ""
    tag: str = ""  # the ETag of what has no version
    deed: Deed | None = None
    lines: Any = None  # an iterator of bytes, in place of the document


def changed(change: Change, document: dict[str, Any], status: int = 200, made: str = "") -> Answer:
    """The answer to a change, which is still to be written."""
    version = (change.expect or 0) + 1
    return Answer({**document, "version": version}, status, version, change, made)


Handler = Callable[[Ask], Awaitable[Answer]]


@dataclass(frozen=True)
class Operation:
    """`query` maps each parameter to what it is; `example` is a body that works, `answer` one that comes."""

    method: str
    path: str
    permission: str
    summary: str
    run: Handler
    body: Table | None = None
    query: Mapping[str, str] = field(default_factory=dict)
    example: Mapping[str, Any] | None = None
    answer: str = "object"  # the schema of a good answer: its name in control.openapi
    status: int = 200
    matched: bool = False  # If-Match must be given
    keyed: bool = False  # Idempotency-Key may be given
    alone: bool = False  # one at a time; and once begun it is finished, whether the answer is awaited or not


def page(items: list[dict[str, Any]], ask: Ask, name: str = "id") -> dict[str, Any]:
    """A page of items sorted by `name`: those above the parameter `after`, at most `limit`."""
    most = ask.whole("limit", PAGE, 1, MOST)
    after = ask.query.get("after")  # absent is not "": that is a name too, the first of all
    found = (item for item in items if after is None or item[name] > after)
    rest = sorted(found, key=lambda item: str(item[name]))
    more = len(rest) > most
    return {"data": rest[:most], "next": rest[most - 1][name] if more else None}


PAGING = {
    "limit": f"items of a page, 1 to {MOST}; absent: {PAGE}",
    "after": "the `next` of the page before",
}
