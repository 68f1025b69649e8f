"""The authority over limits, between the workers' links and the ledger."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Protocol

from gateway.core.errors import LedgerError
from gateway.core.limit import LimitRule, Spent
from gateway.core.ports import Ledger
from gateway.link.protocol import Message
from gateway.stores.leases import Authority

log = logging.getLogger("penstock.limits")


class InThread(Protocol):
    """Runs blocking work where the ledger lives."""

    def __call__(self, work: Callable[[], list[Spent]], /) -> Awaitable[list[Spent]]: ...


class Limits:
    """Passes messages on, and tells the authority what the ledger knows. Nothing is decided before that."""

    def __init__(
        self,
        rules: Iterable[LimitRule],
        ledger: Ledger,
        in_thread: InThread,
        send: Callable[[int, Message], None],
    ) -> None:
        self._authority = Authority(rules)
        self._ledger = ledger
        self._in_thread = in_thread
        self._send = send
        self._early: list[tuple[int, Message]] | None = []

    def receive(self, worker: int, message: Message) -> None:
        """An ask, a report or a return of a worker."""
        if self._early is not None:
            self._early.append((worker, message))
        else:
            self._deliver(self._authority.receive(worker, message))

    def _deliver(self, messages: Iterable[tuple[int, dict[str, Any]]]) -> None:
        for worker, message in messages:
            self._send(worker, message)

    async def restore(self) -> None:
        """Fill the windows of rules that are new with what the ledger has; then answer who has asked."""
        for rule, since in self._authority.unloaded():
            self._authority.load(rule, await self._spent(rule, since))
        early, self._early = self._early, None
        for worker, message in early or ():
            self.receive(worker, message)

    async def tick(self) -> None:
        """To be called some times a second."""
        if self._authority.unloaded():
            await self.restore()
        self._deliver(self._authority.tick())

    async def replace_rules(self, rules: Iterable[LimitRule]) -> None:
        """Another revision; to be called before any worker hears of it."""
        self._deliver(self._authority.replace_rules(rules))
        try:
            await self.restore()
        except LedgerError as error:
            log.error("what counts for new limits can't be read yet: %s", error)

    def lost(self, worker: int) -> Callable[[], Awaitable[None]]:
        """A worker has died; what comes back is to be awaited once its journal has been booked."""
        orphans = self._authority.lost(worker)

        async def recount() -> None:
            for orphan in orphans:
                rows = await self._spent(orphan.rule, orphan.since_ms, orphan.value, orphan.worker)
                self._authority.recount(orphan, rows)

        return recount

    async def _spent(
        self, rule: LimitRule, since: int, value: str | None = None, worker: int | None = None
    ) -> list[Spent]:
        return await self._in_thread(lambda: list(self._ledger.spent(rule, since, value, worker)))
