"""From one revision of the configuration to the next, and back where the next can't be served."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from gateway.settings.schema import Settings
from gateway.supervisor.revisions import Revisions
from gateway.supervisor.workers import Workers

if TYPE_CHECKING:  # at run time these are imported while the workers start
    from gateway.supervisor.admin import Admin
    from gateway.supervisor.audit import Keeper
    from gateway.supervisor.books import Books
    from gateway.supervisor.directory import Directory
    from gateway.supervisor.limits import Limits
    from gateway.supervisor.lookout import Lookout
    from gateway.supervisor.report import Report

log = logging.getLogger("penstock")

_REST = 0.05  # seconds in which a changed file has to stay as it is before it is read
_LOOKS = 10  # at most: files that somebody writes all the time are read all the same


class Turnover:
    """Reads changed files and hands what they say to everyone; one at a time."""

    def __init__(
        self,
        revisions: Revisions,
        workers: Workers,
        report: Report,
        lookout: Lookout,
        books: Books,
        limits: Limits,
        directory: Directory,
        keeper: Keeper,
    ) -> None:
        self._revisions = revisions
        self._workers = workers
        self._report = report
        self._lookout = lookout
        self._books = books
        self._limits = limits
        self._directory = directory
        self._keeper = keeper
        self.admin: Admin | None = None
        self._previous: Settings | None = None
        self._unfit = ""  # why the current revision can't be served
        self._withdrawn: set[str] = set()  # revisions that can't be served, still in the history
        self._hung_up = False
        self._lock = asyncio.Lock()

    def hang_up(self) -> None:
        """Read again at the next look, changed or not; log files may have been rotated away."""
        self._hung_up = True

    def unfit(self, revision: str, why: str) -> None:
        """A worker can't serve a revision: if it is the newest, the one before it comes back.

        It leaves the history in any case: nobody is to go back to it.
        """
        self._withdrawn.add(revision)
        if self._previous is not None and revision == self._revisions.current.revision:
            self._unfit = why

    async def poll(self) -> None:
        """Look whether there is something to read; to be called now and again."""
        async with self._lock:
            while self._withdrawn and self.admin is not None:
                await self.admin.desk.withdraw(self._withdrawn.pop())
            if self.admin is not None:
                await self.admin.desk.pay()
            if self._unfit:
                await self._fall_back()
            forced, self._hung_up = self._hung_up, False
            if forced:
                self._report.reopen()
                await self._read()
            elif self._revisions.changed():
                await self._written()
                await self._read()

    async def reload(self) -> None:
        """Read now."""
        self.hang_up()
        await self.poll()

    async def _written(self) -> None:
        """Wait until nobody writes: a file is emptied before it is filled, and an empty one has no fault."""
        for _ in range(_LOOKS):
            seen = self._revisions.stamp()
            await asyncio.sleep(_REST)
            if self._revisions.stamp() == seen:
                return

    async def _read(self) -> None:
        # In a thread: commands that give secrets take their time.
        settings = self._lookout.reloaded(await asyncio.to_thread(self._revisions.reload))
        if settings is not None:
            self._previous = self._revisions.current
            await self._adopt(settings)
            log.info("revision %s serves from now on", settings.revision)
        self._report.metrics.revision(self._revisions.current.revision, not self._revisions.fault)
        self._revisions.told = self._revisions.fault  # last: who waits for readiness looks there next
        await self._keeper.refused(self._revisions.current.revision, self._revisions.fault)

    async def _adopt(self, settings: Settings) -> None:
        """Hand a revision to everyone: limits first, so that they know what the workers will ask about."""
        before = self._revisions.current.revision
        self._report.observe(settings.observe)
        self._revisions.accept(settings)
        self._books.adopt(settings)
        self._keeper.keep = settings.state.keep.audit
        await self._limits.replace_rules(settings.limits)
        self._workers.adopt(settings)
        await self._directory.replace_settings(settings)
        await self._keeper.reloaded(before, settings.revision)
        if self.admin is not None:
            await self.admin.desk.keep()

    async def _fall_back(self) -> None:
        why, self._unfit = self._unfit, ""
        previous, self._previous = self._previous, None
        if previous is not None:
            self._lookout.open(previous)
            await self._adopt(previous)
            self._revisions.refuse(why)
            self._report.metrics.revision(previous.revision, False)
            self._revisions.told = self._revisions.fault
