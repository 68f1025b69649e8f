"""The authority over limits: what is used and leased, in one place, sans-IO."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gateway.core.limit import LimitRule, Raise, Spent
from gateway.stores.leases.account import Account
from gateway.stores.leases.ask import Ask, Part
from gateway.stores.leases.book import Book, spent_units
from gateway.stores.leases.desk import Desk, Messages, Noticed
from gateway.stores.leases.share import DRY
from gateway.stores.leases.upstream import Upstream

_MOST_DEAD = 1000  # lost workers remembered, for their late messages
_SWEEP = 256  # accounts looked at per tick
_SLACK = 5  # ms by which a record may date the end of a call before the report that counts it, by rounding


@dataclass(slots=True, frozen=True)
class Orphan:
    """A dead worker's lease: how much of it was used is known once its journal is read to the end."""

    rule: LimitRule
    value: str
    worker: int
    since_ms: int
    token: int


class Authority(Desk):
    """Decides asks in the order they come; see link/leases.py for the messages.

    `receive`, `tick` and `replace_rules` give messages to send, each with its worker, in order. `tick`
    wants to be called some times a second, and after `lost` and `recount`. A worker's number is never used
    again. Rules must be replaced before any worker hears of them: an ask about an unknown rule is one about
    a rule that is gone, and is granted. `noticed` hears, once per bucket and window, of "limit.near" and
    "limit.reached": kind, rule, scope value, what is used, what the limit is.
    """

    def __init__(
        self,
        rules: Iterable[LimitRule] = (),
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        noticed: Noticed = lambda *_: None,
        upstream: Upstream | None = None,
    ) -> None:
        super().__init__(clock, noticed, upstream)
        self._book = Book(clock, wall, upstream)
        self._book.replace(rules)
        self._dead: dict[int, None] = {}  # in the order in which they died
        self._tokens = 0

    # ------------------------------------------------------------------ messages

    def receive(self, worker: int, message: Mapping[str, Any]) -> Messages:
        """An `ask`, `used` or `return` of a worker."""
        if worker in self._dead:
            return []
        if worker not in self._workers:
            self._workers.add(worker)
            if self._upstream is not None and self._upstream.lost:
                self._out.store(worker, True)
        self._at = message["at"] - _SLACK
        match message["t"]:
            case "ask":
                for number, parts in message["asks"]:
                    self._ask(worker, number, parts)
            case "used":
                for name, used, over in message["used"]:
                    self._report(worker, name, 0, used, over)
                    self._tell(worker, name)
            case "return":
                for name, units, used, over in message["units"]:
                    self._report(worker, name, units, used, over)
                    if message["recall"]:
                        self._answered(worker, name)
        return self._flush()

    def tick(self) -> Messages:
        """Time has passed: workers that don't answer are not waited for, idle accounts are dropped."""
        self._book.sweep(_SWEEP)
        self._raised(self._book.lower())
        return self._flush()

    # ------------------------------------------------------------------ what workers report

    def _report(self, worker: int, name: str, units: int, used: int, over: int) -> Account | None:
        account = self._book.account(name)
        if account is not None:
            account.take_back(worker, units, used, over, self._at)
            if units:
                self._touched[name] = account
                self._hand_back(account)
            if account.share is not None and self._upstream is not None and used + over > 0:
                self._upstream.touch(account)
            if used + over > 0 and (total := account.near()) is not None:
                self._noticed("limit.near", account.rule, account.value, total, account.most)
        return account

    def _tell(self, worker: int, name: str) -> None:
        """Keep a worker's idea of what is left fresh where it is not alone."""
        account = self._book.find(name)
        if account is not None and any(other != worker for other in account.leases):
            self._out.add(worker, "left", [name, account.told])

    def _answered(self, worker: int, name: str) -> None:
        account = self._book.find(name)
        if account is not None:
            sent = account.recalls.pop(worker, None)
            if sent is not None:
                account.dry[worker] = sent + DRY
            self._touched[name] = account
            self._hand_back(account)

    def _ask(self, worker: int, number: int, raw: list[list[Any]]) -> None:
        parts = []
        for name, need, want, deposit, used, over in raw:
            account = self._report(worker, name, deposit, used, over)
            parts.append(Part(name, account, need, want))
        ask = Ask(worker, number, parts, self._clock())
        if number == 0:
            self._grant(ask)
            return
        for part in parts:
            if part.account:
                part.account.queue.append(ask)
        self._decide(deque([ask]))

    # ------------------------------------------------------------------ workers and rules come and go

    @property
    def accounts(self) -> int:
        """How many buckets are being counted."""
        return len(self._book)

    def account(self, rule_id: str, value: str) -> Account | None:
        """How one bucket stands: its `used`, `leased` and `left`; None when nothing is counted."""
        return self._book.find(f"{rule_id}|{value}")

    @property
    def rules(self) -> list[LimitRule]:
        """The rules in force."""
        return self._book.rules()

    def late(self, rule: LimitRule, row: Spent) -> Messages:
        """Use that no lease tells of: it counts from now on."""
        account = self._book.account(f"{rule.id}|{row.value}")
        if account is not None:
            account.take_back(-1, 0, 0, spent_units(rule, row), 0)
            self._used(account)
        return self._flush()

    def of_rule(self, rule_id: str) -> list[Account]:
        """The buckets of a rule that are being counted."""
        return [account for account in self._book.all() if account.rule.id == rule_id]

    def lost(self, worker: int) -> list[Orphan]:
        """A worker has died. Its unused leases are free; what it may have used counts until `recount`.

        Late messages of it are ignored. Call `tick` afterwards for what others are to be told.
        """
        self._workers.discard(worker)
        self._dead[worker] = None
        if len(self._dead) > _MOST_DEAD:
            del self._dead[next(iter(self._dead))]
        orphans = []
        for account in self._book.all():
            self._touched[account.name] = account
            account.queue = deque(ask for ask in account.queue if ask.worker != worker)
            self._tokens += 1
            lease = account.orphan(worker, self._tokens)
            if lease is not None:
                orphans.append(Orphan(account.rule, account.value, worker, lease.since, self._tokens))
        return orphans

    def recount(self, orphan: Orphan, rows: Iterable[Spent]) -> None:
        """What the dead worker used since its last report: `ledger.spent(rule, since_ms, value, worker)`."""
        account = self._book.find(f"{orphan.rule.id}|{orphan.value}")
        if account is not None:
            account.adopt(orphan.token, sum(spent_units(orphan.rule, row) for row in rows))
            self._used(account)

    def _used(self, account: Account) -> None:
        self._touched[account.name] = account
        if self._upstream is not None:
            self._upstream.touch(account)

    def unloaded(self) -> list[tuple[LimitRule, int]]:
        """New rules whose past use is not known yet, and since when (epoch ms) it counts; see `load`."""
        return self._book.unloaded()

    def load(self, rule: LimitRule, rows: Iterable[Spent]) -> None:
        """What was used before: `ledger.spent(rule, since_ms)`, before any worker asks."""
        self._book.load(rule, rows)

    def replace_rules(self, rules: Iterable[LimitRule]) -> Messages:
        """Another revision: what is counted for rules with the same id stays; lowered limits act at once."""
        changed, gone = self._book.replace(rules)
        for account in gone:
            if self._upstream is not None:
                self._upstream.forget(account)
            for ask in account.queue:
                ask.forget(account)
                self._touched.update((part.name, part.account) for part in ask.parts if part.account)
            self._decide(deque(account.queue))
        self._lowered(changed)
        return self._flush()

    def replace_raises(self, raises: Iterable[Raise]) -> Messages:
        """Other raises are in force; each ends by itself."""
        self._raised(self._book.replace_raises(raises))
        return self._flush()

    def _raised(self, changed: Sequence[Account]) -> None:
        """These have another amount for a while; who neither has of them nor refuses hears it when asking."""
        for account in changed:
            for worker in {**account.leases, **account.denied}:
                self._out.add(worker, "raised", [account.name, account.raised])
                self._out.add(worker, "left", [account.name, account.told])
        self._lowered(changed)

    def _lowered(self, changed: Iterable[Account]) -> None:
        """These have another amount: who waits may get it, or what is unused must come back."""
        for account in changed:
            self._touched[account.name] = account
            if account.left < 0:
                self._recall(account, -1)
