"""One worker's share of one limit: what is leased to it, unused and used."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, NamedTuple

from gateway.compiled import mypyc_attr
from gateway.core.limit import UNITS, Denial, LimitRule

REQUESTS: Final = 0  # places in UNITS
CONCURRENT: Final = 3

# The watermark of a bucket of requests with nothing to report: any take is below it and so takes notice.
CLEAN: Final = 1 << 62


class Refusal(NamedTuple):
    """The authority's last word: until when more than `left` and what is free here is refused at once."""

    until: float
    left: int
    retry_at: float


NEVER = Refusal(0.0, 0, 0.0)


# Slots are laid out in the order of the classes: what every call looks at lies in one line of the cache, what
# its end and the reports look at in the next. With 10,000 callers these lines are what a call waits for.
@mypyc_attr(allow_interpreted_subclasses=True)
class _Counted:
    __slots__ = ("base", "free", "kind", "left", "low", "spent")

    base: int
    free: int
    kind: int
    left: int
    low: int
    spent: int


@mypyc_attr(allow_interpreted_subclasses=True)
class _Reported(_Counted):
    __slots__ = ("dirty", "era", "live", "name", "over", "rule", "stock", "tight_until")

    dirty: bool
    era: int
    live: bool
    name: str
    over: int
    rule: LimitRule
    stock: int
    tight_until: float


@mypyc_attr(allow_interpreted_subclasses=True)
class LeasedBucket(_Reported):
    """Counters of one rule and scope value. `free` is all that a call looks at.

    Times are seconds of the client's clock. For requests a take only lowers `free` and every other change
    of it goes through `add`, so that `base - free` is what they have used since the last report.
    """

    __slots__ = ("asked_at", "asking_until", "denied", "peak", "raised", "value")

    def __init__(self, name: str, rule: LimitRule, value: str) -> None:
        self.name = name
        self.rule = rule
        self.value = value
        self.kind = UNITS.index(rule.unit)
        self.free = 0  # leased and not held by a call
        self.base = 0
        self.low = CLEAN  # below this a take looks at the stock; never below 0
        self.dirty = False  # on the list of those that report
        self.live = False  # among those that are looked after
        self.era = 0  # in which it was last used (link/stock.py)
        self.spent = 0  # settled since the last report (all but requests)
        self.over = 0  # used beyond every lease since the last report
        self.left = rule.burst or rule.amount  # unleased at the authority when it last said so
        self.stock = 0  # what to have in hand for the near future
        self.peak = 0  # the largest amount taken lately
        self.asked_at = 0.0
        self.asking_until = 0.0  # stock has been asked for; until the answer, or then
        self.raised = 0  # what the limit has on top of its rule's amount, as the authority last said
        self.denied = NEVER
        self.tight_until = 0.0  # until then somebody else waits: what becomes free goes straight back

    @property
    def shadow(self) -> bool:
        """Whether it refuses nothing."""
        return self.rule.mode == "shadow"

    def add(self, units: int) -> None:
        """More (or, below 0, less) to take from."""
        self.free += units
        self.base += units

    def report(self) -> tuple[int, int]:
        """What was used since the last report: of the lease, and beyond it."""
        used, over = self.spent, self.over
        if self.kind == REQUESTS:
            used, self.base = self.base - self.free, self.free
        self.spent = self.over = 0
        return used, over

    def untake(self, units: int) -> bool:
        """Take back a request; False when it is already reported as used."""
        if self.base - self.free < units:
            return False
        self.free += units
        return True

    def overrun(self, held: int, used: int) -> None:
        """Settle a hold that was too small: the rest comes from `free`, then from nowhere."""
        covered = min(self.free, used - held)
        self.free -= covered
        self.spent += held + covered
        self.over += used - held - covered

    def refuses(self, amount: int, now: float) -> bool:
        """Whether the authority has lately said that there is not so much left."""
        return now < self.denied.until and amount > self.denied.left + self.free

    def denial(self, now: float) -> Denial:
        """The authority's last word, for one more call."""
        remaining = max(self.denied.left + self.free, 0)
        return Denial(self.rule, self.value, remaining, max(self.denied.retry_at - now, 0.0), self.raised)

    def appetite(self, amount: int, now: float) -> int:
        """What to ask for beyond the need, settling where a second brings one to four asks."""
        if amount > self.peak:
            self.peak = amount
        since, self.asked_at = now - self.asked_at, now
        # Where there is plenty a little more: many callers who each come now and then ask seldom.
        left, peak = self.left, self.peak
        least = (64 if left > 10_000 * peak else 16 if left > 1000 * peak else 4) * peak
        if since < 0.25 or not self.stock:
            self.stock = min(max(2 * self.stock, least), self.rule.amount)
        elif since > 1.0:
            self.peak = max(amount, self.peak // 2)
            self.stock = max(self.stock // 2, min(least, self.rule.amount))
        return self.stock

    def granted(self, answer: list[Any], now: float) -> None:
        """Units from the authority, with how it stands there: [name, units, left, tight, memory, raised]."""
        _, units, left, tight, memory, _ = answer
        self.left = left
        self.free += units  # as `add` does
        self.base += units
        most = left >> 1 if left > 3 else 1
        if self.stock > most:
            self.stock = most
        self.asking_until = 0.0
        if self.dirty or self.kind != REQUESTS:
            self.low = self.stock >> 1 if units else 0
        if tight and now + tight > self.tight_until:
            self.tight_until = now + tight
        if memory or self.denied.until:
            self.denied = Refusal(now + memory if memory else 0.0, self.left, self.denied.retry_at)

    def refused(self, answer: list[Any], now: float) -> None:
        """No units: [name, left, retry, memory, raised], with seconds until a retry may work."""
        _, self.left, retry, memory, _ = answer
        self.denied = Refusal(now + memory, self.left, now + retry)


Rows = Iterable[tuple[LeasedBucket, int]]
