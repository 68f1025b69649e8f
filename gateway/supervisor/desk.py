"""The running appliance as the admin API sees it (`control.port.Desk`)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeVar

from gateway.control import history
from gateway.control.changes import stale
from gateway.control.operator import Operator
from gateway.control.port import Applied, Wanted
from gateway.control.resources.config import written
from gateway.control.rewrite import Rewrite
from gateway.core.errors import LedgerError
from gateway.core.group import Tenant
from gateway.core.limit import Raise
from gateway.core.principal import KeyEntry
from gateway.core.records import Actor, Change, Entity, KeptRevision
from gateway.core.store import LedgerStore
from gateway.settings.schema import Settings
from gateway.supervisor.clerk import InThread
from gateway.supervisor.directory import Directory
from gateway.supervisor.limits import Limits
from gateway.supervisor.operators import Operators
from gateway.supervisor.report import Report, log
from gateway.supervisor.revisions import Revisions
from gateway.supervisor.workers import Workers

T = TypeVar("T")

_ADOPTED = 15.0  # seconds in which all workers are to serve a new configuration
_LOOK = 0.05
_OWED = 100  # revisions that wait for the ledger at most
_FILE = Actor("config", name="gateway.toml")


class AdminDesk:
    """One object between the admin app and the supervisor's parts. `reload` reads the configuration now."""

    def __init__(
        self,
        report: Report,
        revisions: Revisions,
        workers: Workers,
        limits: Limits,
        directory: Directory,
        books: LedgerStore,
        do: InThread,
        operators: Operators,
        reload: Callable[[], Awaitable[None]],
    ) -> None:
        self.metrics = report.metrics
        self.ready = report.ready
        self.status = report.status
        self.all_keys: Callable[[], list[KeyEntry]] = directory.keys
        self.tenants: Callable[[], list[Tenant]] = directory.tenants
        self.raises: Callable[[], list[Raise]] = directory.raises
        self._directory = directory
        self._revisions = revisions
        self._workers = workers
        self._limits = limits
        self._books = books
        self._do = do
        self._operators = operators
        self._reload = reload
        self._applying = asyncio.Lock()
        self._by: tuple[Actor, str] = (_FILE, "")  # who changes the configuration now, and why
        self._told = False
        self._owed: list[KeptRevision] = []  # to the history, in its order

    @property
    def settings(self) -> Settings:
        """The revision that serves."""
        return self._revisions.current

    def texts(self) -> Mapping[str, str]:
        """Its files as they were read."""
        return self._revisions.texts

    async def operator(self, credential: bytes, address: str) -> Operator | None:
        """Who presents this; None where it opens nothing here."""
        return await self._operators.find(credential, address)

    async def do(self, work: Callable[[LedgerStore], T]) -> T:
        """Run a piece of work on the ledger, in its thread. Raises `LedgerError`."""
        return await self._do(lambda: work(self._books))

    async def change(self, change: Change) -> Entity:
        """Write, and tell all workers, before this returns. Raises `Conflict`, `LedgerError`."""
        return await self._directory.change(change)

    async def found(self, kind: str, name: Callable[[], str]) -> Entity | None:
        """An entity that is not deleted; where there is none other replicas are asked, and `name` again."""
        for again in (False, True):
            if again:
                await self._directory.poll()
            wanted = name()
            entity = await self.do(lambda books: books.entity(kind, wanted))  # noqa: B023
            if entity is not None and not entity.deleted:
                return entity
        return None

    def standings(self, rule: str) -> Sequence[Mapping[str, Any]]:
        """How the buckets of a rule stand here."""
        return self._limits.standings(rule)

    # -- configuration

    async def keep(self) -> None:
        """Put the revision that serves into the history, unless it is its newest."""
        settings = self._revisions.current
        if not settings.path:
            return
        actor, note = self._by
        try:
            files = history.masked(self._revisions.texts, settings)
            kept = KeptRevision(
                settings.revision,
                int(time.time() * 1000),
                {"kind": actor.kind, "id": actor.id, "name": actor.name},
                files,
                note,
            )
        except OSError as error:
            log.error("revision %s can't be put into the history: %s", settings.revision, error)
            return
        self._owed = [*self._owed[-_OWED + 1 :], kept]
        await self.pay()

    async def pay(self) -> None:
        """Put into the history what it lacks because the ledger could not be written."""
        while self._owed:
            kept = self._owed[0]
            try:
                await self._do(lambda: self._books.keep_revision(kept))  # noqa: B023
            except LedgerError as error:
                if not self._told:
                    log.error("revision %s can't be put into the history yet: %s", kept.id, error)
                self._told = True
                return
            self._owed = [each for each in self._owed if each is not kept]
        self._told = False

    async def withdraw(self, revision: str) -> None:
        """Take out of the history what can't be served after all."""
        self._owed = [each for each in self._owed if each.id != revision]
        try:
            await self._do(lambda: self._books.withdraw_revision(revision))
        except (OSError, LedgerError) as error:
            log.error("revision %s can't be taken out of the history: %s", revision, error)

    async def apply(self, wanted: Wanted) -> Applied:
        """Write these files and serve them; where that can't be, they are as before.

        Raises `CallerError`, and `LedgerError` where nobody could learn afterwards who has changed what.
        """
        async with self._applying:
            await self._do(lambda: self._books.withdraw_revision(""))  # there is none: can it be written?
            if self._revisions.changed():  # somebody has just written it
                await self._reload()
            if wanted.expect and wanted.expect != self.settings.revision:
                raise stale()
            self._by = (wanted.actor, wanted.note)
            try:
                return await self._served(Rewrite(wanted.files, wanted.gone))
            finally:
                self._by = (_FILE, "")

    async def _served(self, fresh: Rewrite) -> Applied:
        serving = self.settings.revision
        await asyncio.to_thread(written, fresh.do)
        await self._reload()
        why = self._revisions.fault or await self._adopted(serving)
        if why:
            if self.settings.revision != serving:
                await self.withdraw(self.settings.revision)
            await asyncio.to_thread(written, fresh.undo)
            await self._reload()
            return Applied(self.settings.revision, why)
        return Applied(self.settings.revision, aside=tuple(fresh.aside))

    async def _adopted(self, serving: str) -> str:
        """Wait until all workers serve the revision; why they do not."""
        wanted = self.settings.revision
        end = time.monotonic() + _ADOPTED
        while wanted != serving and time.monotonic() < end:
            if self.settings.revision != wanted:  # the appliance fell back
                return self._revisions.fault or "no worker can serve it"
            running = list(self._workers.running.values())
            if failed := [process.failure for process in running if process.failure]:
                return f"no worker can serve it: {failed[0]}"
            if running and all(process.revision == wanted for process in running):
                break
            await asyncio.sleep(_LOOK)
        return ""
