"""The authority of one replica among several: leases from the store that they share; sans-IO."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence

from gateway.core.limit import LimitRule, Raise, Spent
from gateway.stores.leases.authority import Authority
from gateway.stores.leases.book import spent_units
from gateway.stores.leases.desk import Messages, Noticed
from gateway.stores.leases.share import Reply
from gateway.stores.leases.upstream import Predecessor, Question, Upstream


class SharedAuthority(Authority):
    """An `Authority` whose limits hold over all replicas.

    Whoever drives it sends `questions` to the store, one batch at a time, and tells what came of them. `boot`
    tells this life of the replica from those before. It begins with the store lost.
    """

    def __init__(
        self,
        boot: str,
        rules: Iterable[LimitRule] = (),
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        noticed: Noticed = lambda *_: None,
    ) -> None:
        self.upstream = Upstream(boot, clock, wall)
        super().__init__(rules, clock, self.upstream.wall, noticed, self.upstream)

    def questions(self) -> list[Question]:
        """What to ask the store now."""
        return self.upstream.questions()

    def answered(self, questions: Sequence[Question], replies: Sequence[Reply], sent: float) -> Messages:
        """The store's answers to questions sent at `sent`."""
        for account in self.upstream.answered(questions, replies, sent):
            self._touched[account.name] = account
        for question, reply in zip(questions, replies, strict=True):
            account = question.account
            if reply.near:
                self._noticed("limit.near", account.rule, account.value, reply.used, account.most)
            if reply.reached:  # with what calls under way may still use
                taken = account.most - reply.left
                self._noticed("limit.reached", account.rule, account.value, taken, account.most)
        return self._flush()

    def recalled(self, name: str, ticket: str) -> Messages:
        """Another replica is in want of this bucket, with this ticket."""
        account = self._book.find(name)
        if account is not None and account.share is not None:
            self.upstream.recalled(account, ticket)
            self._recall(account, -1)
        return self._flush()

    def opened(self, name: str, left: int) -> Messages:
        """Another replica has given back units of this bucket."""
        account = self._book.find(name)
        if account is not None:
            self.upstream.opened(account, left)
            self._touched[name] = account
        return self._flush()

    def lose(self) -> Messages:
        """The store does not answer."""
        self.upstream.lose()
        return self._tell_all()

    def forgotten(self) -> None:
        """The store is empty: it is to be told what was used here. Nothing is granted until `find`."""
        self.upstream.unmet(self._book.all())

    def find(self) -> Messages:
        """The store answers (again)."""
        self.upstream.find(self._book.all())
        return self._tell_all()

    def _tell_all(self) -> Messages:
        for worker in self._workers:
            self._out.store(worker, self.upstream.lost)
        for account in self._book.all():
            self._touched[account.name] = account
        return self._flush()

    def expire(self) -> Messages:
        """Leases that could not be renewed: what workers have of them and don't use comes back."""
        now = self._clock()
        for account in self._book.all():
            share = account.share
            if share is not None and share.lease and now >= share.until:
                share.lease = 0
                self._recall(account, -1)
        return self._flush()

    def predecessors(self) -> list[Predecessor]:
        """Leases of this replica's former life, each once: what was used of them is to be told to `adopt`."""
        found, self.upstream.predecessors = self.upstream.predecessors, []
        return found

    def adopt(self, predecessor: Predecessor, rows: Iterable[Spent]) -> None:
        """What the former life used, by the ledger."""
        share = predecessor.account.share
        if share is not None:
            used = sum(spent_units(predecessor.account.rule, row) for row in rows)
            share.adopt = min(max(used, 0), predecessor.units)
            self.upstream.urge(predecessor.account)

    def replace_rules(self, rules: Iterable[LimitRule]) -> Messages:
        """As for any authority; the store hears of it with the next question."""
        return self._urged(super().replace_rules(rules))

    def replace_raises(self, raises: Iterable[Raise]) -> Messages:
        """As for any authority; the store hears of it with the next question."""
        return self._urged(super().replace_raises(raises))

    def _urged(self, messages: Messages) -> Messages:
        for account in self._book.all():
            if account.share is not None:
                account.share.refused_until = 0.0
        return messages

    def leave(self) -> None:
        """The next questions are the last: all that workers don't have goes back."""
        for account in self._book.all():
            share = account.share
            if share is not None and share.busy:
                share.lease = min(share.lease, account.leased)
                share.used_at = 0.0
                self.upstream.urge(account)
