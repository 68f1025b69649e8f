"""All that one replica asks of the store that replicas share, and what it makes of the answers; sans-IO."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

from gateway.stores.leases.gcra import step
from gateway.stores.leases.share import DRY, IDLE, LEASE, MARGIN, POLL, RENEW, TIGHT, WAIT, Reply, Share
from gateway.stores.leases.windows import seed_of

if TYPE_CHECKING:
    from gateway.stores.leases.account import Account
    from gateway.stores.leases.ask import Ask

REPORT = 0.1  # seconds between reports of what was used
GATHER = 0.002  # seconds between two batches, in which questions gather
MOST = 500  # questions in one batch
_LOOK = 0.25  # seconds between two looks at leases that are to be renewed or given back
_QUEUED = 200  # calls whose needs are added up into one question


@dataclass(slots=True)
class Question:
    """One bucket in a batch. `document` is what the store's script reads; see stores/redis/script.py."""

    account: Account
    document: dict[str, Any]
    used: int
    need: int


@dataclass(slots=True, frozen=True)
class Predecessor:
    """What this replica's last life may have used of a bucket, since it last reported (epoch seconds)."""

    account: Account
    units: int
    since: float


class Upstream:
    """Shares of buckets, and the questions they lead to. One batch is under way at a time.

    `lost` is whether the store is not to be counted on: then `on_store_loss` says what holds. `boot` tells
    this life of the replica from those before.
    """

    def __init__(self, boot: str, clock: Callable[[], float], wall: Callable[[], float] = time.time) -> None:
        self.lost = True
        self.outages = 1
        self.replicas = 1
        self.predecessors: list[Predecessor] = []
        self._boot = boot
        self._clock = clock
        self._own_wall = wall
        self._ahead: float | None = None  # of the clock: the store's time
        self._made = 0
        self._urgent: dict[str, Account] = {}
        self._dirty: dict[str, Account] = {}
        self._waiting: dict[str, Account] = {}  # for other replicas to hand back
        self._live: dict[str, Account] = {}  # with something at stake
        self._reported = self._looked = self._sent = 0.0

    def share(self, most: int) -> Share:
        """A share of a new account."""
        self._made += 1
        return Share(self, f"{self._boot}.{self._made}", most)

    def wall(self) -> float:
        """The store's time (epoch seconds) as far as is known here; our own before it was ever heard of."""
        return self._own_wall() if self._ahead is None else self._clock() + self._ahead

    def heard_time(self, seconds: float) -> None:
        """The store's time, just now."""
        self._ahead = seconds - self._clock()

    # -- what is to be asked

    def urge(self, account: Account) -> None:
        """Ask about it as soon as possible."""
        self._urgent[account.name] = account

    def touch(self, account: Account) -> None:
        """Report it soon."""
        self._dirty[account.name] = account

    def forget(self, account: Account) -> None:
        """Its rule is gone, or it is idle: what is leased ends by itself."""
        for group in (self._urgent, self._dirty, self._waiting, self._live):
            group.pop(account.name, None)

    def pause(self) -> float:
        """Seconds until there may be something to ask."""
        now = self._clock()
        at = now + _LOOK
        if self._urgent:
            at = self._sent + GATHER
        if self._dirty:
            at = min(at, self._reported + REPORT)
        for account in self._waiting.values():
            assert account.share is not None
            at = min(at, account.share.recalled_at + POLL)
        return max(at - now, 0.0)

    def questions(self) -> list[Question]:
        """What to ask now, in one go; empty when nothing is due."""
        now = self._clock()
        self._look(now)
        for account in self._waiting.values():
            if account.share is not None and account.share.recalled_at + POLL <= now:
                self._urgent[account.name] = account
        if not self._urgent and (not self._dirty or now < self._reported + REPORT):
            return []
        chosen = list(islice({**self._urgent, **self._dirty}.values(), MOST))
        for account in chosen:
            self._urgent.pop(account.name, None)
            self._dirty.pop(account.name, None)
        self._sent = self._reported = now
        return [self._question(account, account.share, now) for account in chosen if account.share]

    def _look(self, now: float) -> None:
        """Leases end by themselves; those in use are renewed, those that are not go back."""
        if now < self._looked + _LOOK:
            return
        self._looked = now
        for name, account in list(self._live.items()):
            share = account.share
            if share is None or not (share.busy or account.leased):
                del self._live[name]
                continue
            idle = now - share.used_at > IDLE and share.lease > account.leased
            if idle or now > share.reported_at + RENEW or share.used != share.acknowledged:
                self._dirty[name] = account

    def _question(self, account: Account, share: Share, now: float) -> Question:
        share.sequence += 1
        share.asking = True
        share.reported_at = now
        self._live[account.name] = account
        tight = now < share.tight_until
        self._keep(account, share, tight, now)
        need, total, ticket = self._needs(account, share, now)
        want = (
            0
            if tight or self.lost or not (need or share.hungry)
            else share.appetite(max(share.hungry, need), now)
        )
        share.hungry = 0
        document: dict[str, Any] = {"boot": share.boot, "seq": share.sequence, "used": share.used}
        # While the store is lost workers may have more than was granted; it is to know of that too.
        lease = max(share.lease, account.leased) if self.lost else share.lease
        document |= {"base": share.acknowledged, "lease": lease, "met": share.met}
        if need:
            document |= {
                "need": need,
                "all": total,
                "recall": share.recalled_at + POLL <= now,
                "ticket": ticket,
            }
            share.recalled_at = now if document["recall"] else share.recalled_at
        if want:
            document["want"] = want
        if tight and not account.recalls:
            document["dry"] = DRY
        if share.adopt is not None:
            document["adopt"] = share.adopt
        if not share.met:
            at = self.wall() if account.rule.calendar else now
            document["seed"] = seed_of(account.window, at)
        if account.rule.calendar:
            document["period"] = share.bounds_at(account.rule, self.wall())
        if account.rule.burst:
            document["step"] = step(account.amount, account.rule.seconds)
        return Question(account, document, share.used, need)

    def _keep(self, account: Account, share: Share, tight: bool, now: float) -> None:
        """Give back what is not needed: it is not counted on from here on."""
        leased = account.leased
        if now >= share.until:
            share.lease = min(share.lease, leased)
        elif tight:
            head = account.queue[0] if account.queue else None
            older = head is not None and self._ticket(head) < share.rival
            mine = head.need_of(account) if head is not None and older else 0
            share.lease = min(share.lease, leased + mine)
        elif now - share.used_at > IDLE and not account.queue:
            share.lease = min(share.lease, leased)

    def _ticket(self, ask: Ask) -> str:
        """Since when it waits, by the store's clock; told once, so that all replicas compare the same."""
        if not ask.ticket:
            ask.ticket = f"{(ask.born + (self._ahead or 0.0)) * 1e6:020.0f}.{self._boot}"
        return ask.ticket

    def _needs(self, account: Account, share: Share, now: float) -> tuple[int, int, str]:
        """What the first call lacks, what all that wait lack, and the first's ticket."""
        if not account.queue:
            return 0, 0, ""
        head, left = account.queue[0], account.left
        need = head.need_of(account) - left
        if self.lost or need <= 0 or need > account.most or share.refuses(need, now):
            return 0, 0, ""
        total = sum(ask.need_of(account) for ask in islice(account.queue, _QUEUED)) - left
        return need, max(total, need), self._ticket(head)

    # -- what is answered

    def answered(self, questions: Sequence[Question], replies: Iterable[Reply], sent: float) -> list[Account]:
        """Take in the answers to questions sent at `sent`; gives accounts that may stand otherwise now."""
        now = self._clock()
        for question, reply in zip(questions, replies, strict=True):
            account, share = question.account, question.account.share
            assert share is not None
            share.asking = False
            if reply.status != "ok":
                share.met = share.met and reply.status != "unknown"
                self.urge(account)
                continue
            share.met = True
            share.acknowledged = max(share.acknowledged, question.used)
            share.until = sent + LEASE - MARGIN
            share.granted(reply, now)
            self._judge(question, share, reply, now)
            if not reply.orphan:
                share.adopt, share.orphaned = None, False
            elif not share.orphaned:
                share.orphaned = True
                self.predecessors.append(Predecessor(account, reply.orphan, reply.since))
        return [question.account for question in questions]

    def _judge(self, question: Question, share: Share, reply: Reply, now: float) -> None:
        """A need that was not met is refused once nobody else may have something unused."""
        account = question.account
        self._waiting.pop(account.name, None)
        if not question.need or reply.granted >= question.need:
            share.waiting_since = 0.0  # who has come meanwhile asks anew
            return
        if reply.others and not share.waiting_since:
            share.waiting_since = now
        if reply.others and now < share.waiting_since + WAIT:
            self._waiting[account.name] = account
        else:
            share.refuse(account.rule.unit, now)

    def unanswered(self, questions: Iterable[Question]) -> None:
        """Nobody knows whether these arrived; asking again does no harm."""
        for question in questions:
            if question.account.share is not None:
                question.account.share.asking = False
                self.touch(question.account)

    # -- what other replicas say

    def recalled(self, account: Account, ticket: str) -> None:
        """Another replica is in want, with this ticket."""
        share = account.share
        if share is not None:
            share.tight_until = self._clock() + TIGHT
            share.rival = ticket
            self.urge(account)

    def opened(self, account: Account, left: int) -> None:
        """Units have come back that this replica may have been refused."""
        share = account.share
        if share is not None:
            share.refused_until = 0.0
            share.left = left
            if account.queue:
                self.urge(account)

    # -- the store goes and comes

    def lose(self) -> None:
        """What is leased may be used until it ends; beyond it, as the rules say."""
        if not self.lost:
            self.lost = True
            self.outages += 1
            self._waiting.clear()

    def unmet(self, accounts: Iterable[Account]) -> None:
        """It has forgotten everything: it is to be told what was used here."""
        for account in accounts:
            if account.share is not None:
                account.share.met = False
                if account.share.busy or account.leased or account.used:
                    self.urge(account)

    def find(self, accounts: Iterable[Account]) -> None:
        """It answers (again)."""
        self.lost = False
        for account in accounts:
            if account.share is not None:
                account.share.recover(account.leased)
                if account.share.busy or account.queue or account.used:
                    self.urge(account)
