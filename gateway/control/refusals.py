"""What the admin API refuses to people stands in the audit too, bounded: a flood is counted."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from gateway.control.port import Desk
from gateway.core.errors import LedgerError
from gateway.core.records import Actor, Deed

log = logging.getLogger("penstock.admin")

ACTION = "admin.refuse"
_MINUTE = 60.0  # seconds
_MOST = 20  # kinds in a minute; what is beyond is one more kind of each code
_NOBODY = Actor("call")

_Kind = tuple[Actor, str, str]


class Refusals:
    """The first of each kind is noted at once; how many more there were, when the minute is over.

    A kind is who, which code, and what was asked for. Nobody waits for it.
    """

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._more: dict[_Kind, int] = {}
        self._writing: set[asyncio.Task[None]] = set()

    def saw(self, actor: Actor, code: str, target: str) -> None:
        """Somebody was refused. `target` is a method and the template of a path: few different ones."""
        self._desk.metrics.count("admin_refusals", code)
        kind = actor, code, target
        if kind not in self._more and len(self._more) >= _MOST:
            kind = _NOBODY, code, "others"
        if kind in self._more:
            self._more[kind] += 1
            return
        if not self._more:
            asyncio.get_running_loop().call_later(_MINUTE, self.close)
        self._more[kind] = 0
        self._write([self._deed(kind, 1)])

    def close(self) -> None:
        """The minute is over."""
        more = [self._deed(kind, count) for kind, count in self._more.items() if count]
        self._more.clear()
        if more:
            self._write(more)

    def _deed(self, kind: _Kind, count: int) -> Deed:
        actor, code, target = kind
        detail = {"code": code, "count": count}
        return Deed(actor, ACTION, f"admin/{target}", revision=self._desk.settings.revision, detail=detail)

    def _write(self, deeds: Sequence[Deed]) -> None:
        task = asyncio.get_running_loop().create_task(self._note(deeds))
        self._writing.add(task)
        task.add_done_callback(self._writing.discard)

    async def _note(self, deeds: Sequence[Deed]) -> None:
        try:
            await self._desk.do(lambda books: books.note(deeds))
        except (LedgerError, RuntimeError) as error:  # or the appliance has just stopped
            log.error("refusals of the admin API can't be noted in the audit: %s", error)
