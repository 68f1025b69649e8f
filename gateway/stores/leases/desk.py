"""Decides asks: whose turn it is, what is granted, what is recalled, what is refused; sans-IO."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from gateway.core.limit import LimitRule
from gateway.stores.leases.account import MEMORY, Account
from gateway.stores.leases.ask import Ask, Part
from gateway.stores.leases.outbox import Message, Outbox
from gateway.stores.leases.share import DRY, TIGHT, WAIT
from gateway.stores.leases.upstream import Upstream

Messages = list[tuple[int, Message]]
Noticed = Callable[[str, LimitRule, str, int, int], None]

UNANSWERED = 0.1  # seconds after which a recalled worker counts as having nothing
_AGAIN = 0.1  # seconds between two tries to stock up where there was nothing


class Desk:
    """Asks about the same bucket are decided in the order they came; an ask has all it needs, or nothing."""

    def __init__(self, clock: Callable[[], float], noticed: Noticed, upstream: Upstream | None) -> None:
        self._clock = clock
        self._noticed = noticed
        self._upstream = upstream
        self._workers: set[int] = set()
        self._recalls: deque[tuple[float, Account, int]] = deque()  # sent when, for what, to whom
        self._touched: dict[str, Account] = {}
        self._at = 0  # epoch ms up to which the message at hand reports
        self._out = Outbox()
        self.unchecked: dict[str, int] = {}  # rule → calls that passed uncounted while the store was lost

    def _flush(self) -> Messages:
        self._give_up_on_recalls()
        while self._touched:
            touched, self._touched = self._touched, {}
            self._decide(deque(a.queue[0] for a in touched.values() if a.queue))
            for account in touched.values():
                self._call_off(account)
        return self._out.take()

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
        """True to grant, False to deny, None while others are asked for what they don't use."""
        waiting = False
        for part in ask.parts:
            account = part.account
            if account is None or part.need <= max(account.left, 0) or account.unchecked:
                continue
            found = part.need <= account.most and self._awaited(account, part.need, ask.worker)
            if found:
                waiting = True
            elif account.rule.mode != "shadow":
                return False
        return None if waiting else True

    def _awaited(self, account: Account, need: int, asker: int) -> bool:
        """Whether there may be more: at the shared store, or with other workers."""
        share, upstream = account.share, self._upstream
        if share is None or upstream is None or upstream.lost:
            return self._recall(account, asker)
        now = self._clock()
        share.used_at = now
        if share.waiting_since and now >= share.waiting_since + WAIT:
            share.refuse(account.rule.unit, now)
        if not share.refuses(need - account.left, now):
            if not share.waiting_since:
                if not share.asking:
                    upstream.urge(account)
                return True
            self._recall(account, asker)
            return True
        return self._recall(account, asker)

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
                answers.append([part.name, part.need, 0, 0.0, 0.0, 0])
                continue
            units, tight = self._share(account, part, ask.worker)
            if units < part.need and account.unchecked:
                self.unchecked[account.rule.id] = self.unchecked.get(account.rule.id, 0) + 1
                units = part.need
            short = units < part.need  # only in shadow mode
            account.grant(ask.worker, units, self._at)
            memory = MEMORY[account.rule.unit] if short else 0.0
            self._restock(account, part.want)
            answers.append([part.name, units, account.told, tight, memory, account.raised])
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

    def _restock(self, account: Account, want: int) -> None:
        """What workers will want soon is asked of the shared store before they do."""
        share, upstream = account.share, self._upstream
        if share is None or upstream is None or upstream.lost:
            return
        now = self._clock()
        share.used_at = now
        if account.left >= max(share.stock // 2, want) or now < max(share.tight_until, share.refused_until):
            return
        if share.left > 0 or now > share.asked_at + _AGAIN:
            share.hungry = max(share.hungry, want)
            upstream.urge(account)

    def _deny(self, ask: Ask) -> None:
        answers, now = [], self._clock()
        for part in ask.parts:
            account = part.account
            if account is None or account.rule.mode == "shadow" or not account.lacks(part.need):
                continue
            if account.reached():
                taken = account.used + account.leased  # with what calls under way may still use
                self._noticed("limit.reached", account.rule, account.value, taken, account.most)
            retry = account.retry_in(part.need)
            memory = max(min(retry, MEMORY[account.rule.unit]), 0.001)
            account.denied[ask.worker] = (now + memory, account.told)
            answers.append([part.name, account.told, retry, memory, account.raised])
        self._out.add(ask.worker, "answers", [ask.id, False, answers])

    def _call_off(self, account: Account) -> None:
        """Let workers ask again that were told of less than is there now."""
        if not account.denied:
            return
        now, left = self._clock(), account.told
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
                self._hand_back(account)

    def _hand_back(self, account: Account) -> None:
        """What is unused is wanted by another replica."""
        share = account.share
        if share is not None and self._upstream is not None and self._clock() < share.tight_until:
            self._upstream.urge(account)
