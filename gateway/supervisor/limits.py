"""The authority over limits, between the workers' links and the ledger."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from gateway.core.errors import LedgerError
from gateway.core.limit import LimitRule, Raise, Spent
from gateway.core.notice import Notice
from gateway.core.ports import Ledger
from gateway.core.sheet import Sheet
from gateway.link.protocol import Message
from gateway.observe.metrics import Metrics
from gateway.settings.schema import Settings
from gateway.stores.leases import Authority, SharedAuthority
from gateway.stores.leases.book import spent_units
from gateway.supervisor import late
from gateway.supervisor.counting import Record

if TYPE_CHECKING:  # at run time only where state is shared
    from gateway.supervisor.sharing import Sharing, Told

log = logging.getLogger("penstock.limits")


class InThread(Protocol):
    """Runs blocking work where the ledger lives."""

    def __call__(self, work: Callable[[], list[Spent]], /) -> Awaitable[list[Spent]]: ...


class Watch(Protocol):
    """Who hears of limits (`supervisor.watch`)."""

    def noticed(self, kind: str, rule: LimitRule, value: str, used: int, amount: int) -> None:
        """A limit is nearly used up, or refuses its first call."""

    def unchecked(self, rule: str, calls: int) -> None:
        """So many calls passed uncounted, as the store was lost."""


class Limits:
    """Passes messages on, and tells the authority what the ledger knows. Nothing is decided before that.

    With `sharing` the limits hold over all replicas, else over this machine.
    """

    def __init__(
        self,
        rules: Iterable[LimitRule],
        ledger: Ledger,
        in_thread: InThread,
        send: Callable[[int, Message], None],
        watch: Watch | None = None,
        sharing: Sharing | None = None,
    ) -> None:
        noticed = watch.noticed if watch else lambda *_: None
        self._authority = sharing.authority(rules, noticed) if sharing else Authority(rules, noticed=noticed)
        self._sharing = sharing
        self._ledger = ledger
        self._in_thread = in_thread
        self._send = send
        self._watch = watch
        self._early: list[tuple[int, Message]] | None = []
        self._started = False
        self.earlier: frozenset[int] = frozenset()

    def receive(self, worker: int, message: Message) -> None:
        """An ask, a report or a return of a worker."""
        if self._early is not None:
            self._early.append((worker, message))
        else:
            self._deliver(self._authority.receive(worker, message))

    def _deliver(self, messages: Iterable[tuple[int, dict[str, Any]]]) -> None:
        for worker, message in messages:
            self._send(worker, message)
        if self._sharing is not None:
            self._sharing.wake()

    async def restore(self) -> None:
        """Fill the windows of rules that are new with what the ledger has; then answer who has asked.

        The first time the shared store is joined too, if there is one.
        """
        sharing, first = self._sharing, not self._started
        self._started = True
        if sharing is not None and first:
            await sharing.learn_time()
        for rule, since in self._authority.unloaded():
            self._authority.load(rule, await self._shifted(rule, since))
        if sharing is not None and first:
            await sharing.start(self._deliver, self._spent)
        early, self._early = self._early, None
        for worker, message in early or ():
            self.receive(worker, message)

    async def _shifted(self, rule: LimitRule, since: int) -> list[Spent]:
        """What the ledger has, dated by the authority's clock; the ledger's is our own."""
        ms = round(self._sharing.shift() * 1000) if self._sharing is not None else 0
        rows = await self._spent(rule, since - ms)
        return [replace(row, ts_ms=row.ts_ms + ms) for row in rows] if ms else rows

    async def tick(self) -> None:
        """To be called some times a second."""
        if self._authority.unloaded():
            await self.restore()
        self._deliver(self._authority.tick())
        if isinstance(self._authority, SharedAuthority):
            self._deliver(self._authority.expire())
        unchecked, self._authority.unchecked = self._authority.unchecked, {}
        if self._watch is not None:
            for rule, calls in unchecked.items():
                self._watch.unchecked(rule, calls)

    async def replace_rules(self, rules: Iterable[LimitRule]) -> None:
        """Another revision; to be called before any worker hears of it."""
        self._deliver(self._authority.replace_rules(rules))
        try:
            await self.restore()
        except LedgerError as error:
            log.error("what counts for new limits can't be read yet: %s", error)

    def replace_raises(self, raises: Iterable[Raise]) -> None:
        """Other raises are in force; each ends by itself."""
        self._deliver(self._authority.replace_raises(raises))

    def standings(self, rule: str) -> list[dict[str, Any]]:
        """How the buckets of a rule stand on this machine: amounts in the rule's unit, reset in seconds."""
        return [
            {
                "value": account.value,
                "amount": account.amount,
                "used": account.used,
                "leased": account.leased,
                "left": account.told,
                "reset_s": round(account.whole_in, 1),
            }
            for account in self._authority.of_rule(rule)
        ]

    def posted(self, sheets: Sequence[Sheet]) -> None:
        """Calls were booked. Of those of an earlier supervisor's workers (`earlier`) no lease tells."""
        if not self.earlier or self._early is not None:
            return
        for record in late.records(sheets, self.earlier):
            for rule in self._authority.rules:
                for row in late.spent(rule, record):
                    self._deliver(self._authority.late(rule, row))

    def recounted(self, calls: Iterable[tuple[Record, Record]]) -> None:
        """Calls that were charged by an estimate, and booked as they were counted since: before and after.

        What was missing is charged now. What was too much stays: to take it back would let the window forget.
        """
        if self._early is not None:
            return
        for before, after in calls:
            if after.get("worker") in self.earlier:  # charged as it was booked
                continue
            for rule in self._authority.rules:
                for row in late.lacking(rule, before, after):
                    if spent_units(rule, row):
                        self._deliver(self._authority.late(rule, row))

    def lost(self, worker: int) -> Callable[[], Awaitable[None]]:
        """A worker has died; what comes back is to be awaited once its journal has been booked."""
        orphans = self._authority.lost(worker)

        async def recount() -> None:
            for orphan in orphans:
                rows = await self._spent(orphan.rule, orphan.since_ms, orphan.value, orphan.worker)
                self._authority.recount(orphan, rows)

        return recount

    async def close(self) -> None:
        """No worker is left: what is leased goes back to the shared store."""
        if self._sharing is not None:
            await self._sharing.close()

    async def _spent(
        self, rule: LimitRule, since: int, value: str | None = None, worker: int | None = None
    ) -> list[Spent]:
        return await self._in_thread(lambda: list(self._ledger.spent(rule, since, value, worker)))


def made(
    settings: Settings,
    data: Path,
    replica: str,
    ledger: Ledger,
    in_thread: InThread,
    send: Callable[[int, Message], None],
    metrics: Metrics,
    tell: Callable[[Notice], None],
) -> Limits:
    """The limits of an appliance, over all replicas where the settings name a store that they share."""
    from gateway.supervisor.watch import LimitWatch

    watch = LimitWatch(metrics, tell, settings)
    sharing = sharing_of(settings, data, replica, watch.shared)
    return Limits(settings.limits, ledger, in_thread, send, watch, sharing)


def sharing_of(settings: Settings, data: Path, replica: str, told: Told) -> Sharing | None:
    """The connection to the store that replicas share, if the settings name one."""
    if settings.state.shared is None:
        return None
    from gateway.supervisor.sharing import Sharing

    return Sharing(settings.state, data, replica, told)
