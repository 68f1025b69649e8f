"""The authority over limits: what is used and leased, in one place, sans-IO."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from gateway.core.limit import LimitRule, Raise, Spent
from gateway.stores.leases.account import DRY, MEMORY, TIGHT, Account
from gateway.stores.leases.ask import Ask, Part
from gateway.stores.leases.book import Book, spent_units
from gateway.stores.leases.outbox import Message, Outbox

Messages = list[tuple[int, Message]]
Noticed = Callable[[str, LimitRule, str, int, int], None]

UNANSWERED = 0.1  # seconds after which a recalled worker counts as having nothing
_MOST_DEAD = 1000  # lost workers remembered, for their late messages
_SWEEP = 256  # accounts looked at per tick
_SLACK = 50  # ms by which a record may date a call's end before the end its lease saw


@dataclass(slots=True, frozen=True)
class Orphan:
    """A dead worker's lease: how much of it was used is known once its journal is read to the end."""

    rule: LimitRule
    value: str
    worker: int
    since_ms: int
    token: int


class Authority:
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
    ) -> None:
        self._clock = clock
        self._noticed = noticed
        self._book = Book(clock, wall)
        self._book.replace(rules)
        self._workers: set[int] = set()
        self._dead: dict[int, None] = {}  # in the order in which they died
        self._recalls: deque[tuple[float, Account, int]] = deque()  # sent when, for what, to whom
        self._touched: dict[str, Account] = {}
        self._tokens = 0
        self._at = 0  # epoch ms up to which the message at hand reports
        self._out = Outbox()

    # ------------------------------------------------------------------ messages

    def receive(self, worker: int, message: Mapping[str, Any]) -> Messages:
        """An `ask`, `used` or `return` of a worker."""
        if worker in self._dead:
            return []
        self._workers.add(worker)
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
        self._lowered(self._book.lower())
        return self._flush()

    def _flush(self) -> Messages:
        self._give_up_on_recalls()
        while self._touched:
            touched, self._touched = self._touched, {}
            self._decide(deque(a.queue[0] for a in touched.values() if a.queue))
            for account in touched.values():
                self._call_off(account)
        return self._out.take()

    # ------------------------------------------------------------------ what workers report

    def _report(self, worker: int, name: str, units: int, used: int, over: int) -> Account | None:
        account = self._book.account(name)
        if account is not None:
            account.take_back(worker, units, used, over, self._at)
            if units:
                self._touched[name] = account
            if used + over > 0 and (total := account.near()) is not None:
                self._noticed("limit.near", account.rule, account.value, total, account.amount)
        return account

    def _tell(self, worker: int, name: str) -> None:
        """Keep a worker's idea of what is left fresh where it is not alone."""
        account = self._book.find(name)
        if account is not None and any(other != worker for other in account.leases):
            self._out.add(worker, "left", [name, account.left])

    def _answered(self, worker: int, name: str) -> None:
        account = self._book.find(name)
        if account is not None:
            sent = account.recalls.pop(worker, None)
            if sent is not None:
                account.dry[worker] = sent + DRY
            self._touched[name] = account

    # ------------------------------------------------------------------ asks

    def _ask(self, worker: int, number: int, raw: list[list[Any]]) -> None:
        parts = []
        for name, need, want, deposit, used, over in raw:
            account = self._report(worker, name, deposit, used, over)
            parts.append(Part(name, account, need, want))
        ask = Ask(worker, number, parts)
        if number == 0:
            self._grant(ask)
            return
        for part in parts:
            if part.account:
                part.account.queue.append(ask)
        self._decide(deque([ask]))

    def _decide(self, asks: deque[Ask]) -> None:
        """Decide these asks where it is their turn, then those behind them."""
        while asks:
            ask = asks.popleft()
            accounts = [part.account for part in ask.parts if part.account]
            if any(not account.queue or account.queue[0] is not ask for account in accounts):
                continue
            granted = self._verdict(ask)
            if granted is None:
                continue
            for account in accounts:
                account.queue.popleft()
                if account.queue:
                    asks.append(account.queue[0])
            self._grant(ask) if granted else self._deny(ask)

    def _verdict(self, ask: Ask) -> bool | None:
        """True to grant, False to deny, None while other workers are asked for what they don't use."""
        waiting = False
        for part in ask.parts:
            account = part.account
            if account is None or part.need <= account.left:
                continue
            if part.need <= account.most and self._recall(account, ask.worker):
                waiting = True
            elif account.rule.mode != "shadow":
                return False
        return None if waiting else True

    def _recall(self, account: Account, asker: int) -> bool:
        now = self._clock()
        for worker in list(account.to_recall(asker, now)):
            account.recalls[worker] = now
            self._recalls.append((now, account, worker))
            self._out.recall(worker, account.name, TIGHT)
        return any(worker != asker for worker in account.recalls)

    def _grant(self, ask: Ask) -> None:
        answers = []
        for part in ask.parts:
            account = part.account
            if account is None:
                answers.append([part.name, part.need, 0, 0.0, 0.0])
                continue
            units, tight = self._share(account, part, ask.worker)
            short = units < part.need  # only in shadow mode
            account.grant(ask.worker, units, self._at)
            memory = MEMORY[account.rule.unit] if short else 0.0
            answers.append([part.name, units, account.left, tight, memory])
        self._out.add(ask.worker, "answers", [ask.id, True, answers])

    def _share(self, account: Account, part: Part, worker: int) -> tuple[int, float]:
        """What to lease: the need and, while nobody else is in want, half a fair share of the rest."""
        now = self._clock()
        tight, left = account.contested(worker, now), account.left
        extra = 0
        if not tight:
            extra = max(min(part.want - part.need, (left - part.need) // (2 * len(self._workers))), 0)
        if extra:
            account.dry.pop(worker, None)
        if part.need + extra:
            account.denied.pop(worker, None)
        return max(min(part.need + extra, left), 0), tight

    def _deny(self, ask: Ask) -> None:
        answers, now = [], self._clock()
        for part in ask.parts:
            account = part.account
            if account is None or part.need <= account.left or account.rule.mode == "shadow":
                continue
            if account.reached():
                self._noticed("limit.reached", account.rule, account.value, account.used, account.amount)
            retry = account.retry_in(part.need)
            memory = max(min(retry, MEMORY[account.rule.unit]), 0.001)
            account.denied[ask.worker] = (now + memory, account.left)
            answers.append([part.name, account.left, retry, memory])
        self._out.add(ask.worker, "answers", [ask.id, False, answers])

    def _call_off(self, account: Account) -> None:
        """Let workers ask again that were told of less than is there now."""
        if not account.denied:
            return
        now, left = self._clock(), account.left
        for worker, (until, told) in list(account.denied.items()):
            if until <= now:
                del account.denied[worker]
            elif told < left:
                del account.denied[worker]
                self._out.add(worker, "open", account.name)

    def _give_up_on_recalls(self) -> None:
        now = self._clock()
        while self._recalls and self._recalls[0][0] + UNANSWERED <= now:
            sent, account, worker = self._recalls.popleft()
            if account.recalls.get(worker) == sent:
                del account.recalls[worker]
                account.dry[worker] = now + DRY
                self._touched[account.name] = account

    # ------------------------------------------------------------------ workers and rules come and go

    @property
    def accounts(self) -> int:
        """How many buckets are being counted."""
        return len(self._book)

    def account(self, rule_id: str, value: str) -> Account | None:
        """How one bucket stands: its `used`, `leased` and `left`; None when nothing is counted."""
        return self._book.find(f"{rule_id}|{value}")

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
            self._touched[account.name] = account

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
            for ask in account.queue:
                ask.forget(account)
                self._touched.update((part.name, part.account) for part in ask.parts if part.account)
            self._decide(deque(account.queue))
        self._lowered(changed)
        return self._flush()

    def replace_raises(self, raises: Iterable[Raise]) -> Messages:
        """Other raises are in force; each ends by itself."""
        self._lowered(self._book.replace_raises(raises))
        return self._flush()

    def _lowered(self, changed: Iterable[Account]) -> None:
        """These have another amount: who waits may get it, or what is unused must come back."""
        for account in changed:
            self._touched[account.name] = account
            if account.left < 0:
                self._recall(account, -1)
