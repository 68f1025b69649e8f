"""What the supervisor keeps an eye on beside its work: listeners, stale secrets, key sets, keys that end."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterable
from typing import Any

from gateway import registry
from gateway.core.notice import Notice
from gateway.core.principal import KeyEntry
from gateway.link.protocol import Message
from gateway.settings.exec import Command
from gateway.settings.schema import Settings
from gateway.supervisor.expiry import Expiry
from gateway.supervisor.jwks import Jwks
from gateway.supervisor.listen import StartError
from gateway.supervisor.notices import Notices, kinds_of
from gateway.supervisor.report import Report
from gateway.supervisor.revisions import Revisions
from gateway.supervisor.workers import Workers

PAUSE = 1.0  # seconds between two looks
_KEYS = 60.0  # seconds between two looks at the keys


class Lookout:
    """One object between the appliance and all that tells or hears of notices."""

    def __init__(self, revisions: Revisions, report: Report, workers: Workers) -> None:
        self._revisions = revisions
        self._report = report
        self._notices = Notices(report.metrics.count)
        self.jwks = Jwks(workers.tell, self._unfetched, report.metrics.count)
        workers.introduce("jwks", self.jwks.message)
        self._expiry = Expiry(self._notices.happened)
        self._plugins: tuple[Any, ...] = ()
        self._fault = ""
        self._lagging = False
        self._keys_due = 0.0
        self._failing: dict[str, str] = {}

    def tell(self, notice: Notice) -> None:
        """Note it and pass it on. Never blocks, never raises."""
        self._notices.tell(notice)

    def open(self, settings: Settings) -> None:
        """Have the listeners of this revision. Raises `StartError` for one that can't be made."""
        try:
            self._adopt(settings)
        except registry.NotLoadable as error:
            raise StartError(f"plugins: {error}") from None

    def _adopt(self, settings: Settings) -> None:
        self._listen(settings)
        self.jwks.configure(settings.auth.jwt)

    def _listen(self, settings: Settings) -> None:
        if settings.plugins == self._plugins:
            return
        made = []
        for use, listener, options in registry.listeners(settings):
            try:
                made.append((use, listener, kinds_of(options)))
            except (TypeError, ValueError) as error:
                raise registry.NotLoadable(f"{use!r}: {error}") from None
        self._notices.listen(made)
        self._plugins = settings.plugins

    def _unfetched(self, url: str, why: str) -> None:
        self._notices.happened("jwks.failed", url, why=why)

    def received(self, number: int, message: Message) -> None:
        """A worker's report, or that it has met a token with an unknown key."""
        if message["t"] == "stat":
            self._report.metrics.stat(number, message)
        else:
            self.jwks.asked()

    def restarted(self, number: int) -> None:
        """A worker had died and another was started."""
        self._report.metrics.restarted()
        self._notices.happened("worker.restarted", f"worker {number}")

    def reloaded(self, fresh: Settings | None) -> Settings | None:
        """The configuration was read again. Gives the revision, unless its listeners can't be made."""
        try:
            if fresh is not None:
                self._adopt(fresh)
        except registry.NotLoadable as error:
            self._revisions.refuse(f"plugins: {error}")
            fresh = None
        fault = self._revisions.fault
        if fresh is not None:
            self._notices.happened("config.accepted", f"revision {fresh.revision}")
        elif fault and fault != self._fault:
            lines = fault.splitlines()
            serving = self._revisions.current.revision
            self._notices.happened("config.refused", f"revision {serving} goes on", faults=lines[:20])
        self._fault = fault
        return fresh

    def troubled(self, seconds: float) -> None:
        """The ledger could not be written for so long; 0.0: it can again."""
        self._report.troubled(seconds)
        if bool(seconds) != self._lagging:
            self._lagging = bool(seconds)
            self._notices.happened("ledger.lag" if seconds else "ledger.back", "ledger")

    def keys(self, entries: Iterable[KeyEntry]) -> None:
        """All keys, after a change."""
        self._expiry.know(entries)
        self._keys_due = 0.0

    async def look(self) -> None:
        """A chore."""
        now = time.monotonic()
        if now >= self._keys_due:
            self._keys_due = now + _KEYS
            self._expiry.look()
        if due := self._revisions.execs.due():
            await asyncio.to_thread(self._renew, due)
            self._tell_of_secrets()

    def _renew(self, due: list[Command]) -> None:
        """In a thread: commands take their time."""
        for command in due:
            if self._revisions.execs.renew(command, os.environ):
                self._report.metrics.count("secret_failures")

    def _tell_of_secrets(self) -> None:
        failing = self._revisions.execs.failing()
        for source, why in failing.items():
            if source not in self._failing:
                self._notices.happened("secret.failed", source, why=why)
        for source in self._failing.keys() - failing.keys():
            self._notices.happened("secret.back", source)
        self._failing = failing
        self._report.stale = tuple(failing)

    async def close(self) -> None:
        """What waits for listeners has two seconds."""
        await self.jwks.close()
        await self._notices.close()
