"""Things operators want to hear of when they happen, and who is told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(slots=True, frozen=True)
class Notice:
    """Something that happened. `kind` is from a closed list, for example "limit.near" or "store.lost".

    `subject` says what it is about ("limit RULE|VALUE"), `detail` the figures; nothing secret stands in it.
    """

    kind: str
    subject: str
    detail: Mapping[str, Any]
    ts_ms: int


class Listener:
    """A plugin of the supervisor: `[[plugins]] use = "module:Class"` whose class derives from this one."""

    def __init__(self, options: Any) -> None:
        """Keep the options; no I/O here."""

    async def open(self) -> None:
        """Connect."""

    async def hear(self, notice: Notice) -> None:
        """Pass it on. It may fail: that is logged and counted, and nothing waits for it."""

    async def close(self) -> None:
        """Let go."""
