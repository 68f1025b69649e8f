"""`x-ratelimit-*`: how the limits of a call stand, told with its answer."""

from __future__ import annotations

from collections.abc import Sequence

from gateway.core.limit import Bucket, lasts
from gateway.core.ports import Leases


def up(number: float) -> int:
    """Rounded up."""
    return -int(-number // 1)


class Shown:
    """A bucket as `x-ratelimit-*` headers, by its place among a caller's: what never changes is made once.

    `others` are buckets of the same unit: the tightest of them all is told.
    """

    __slots__ = ("_any", "_leases", "amount", "part", "place", "rivals", "sole", "whole")

    def __init__(self, leases: Leases, buckets: Sequence[Bucket], place: int, *others: int) -> None:
        bucket = buckets[place]
        rule = bucket.rule
        name = b"x-ratelimit-%%b-%b: " % rule.unit.replace("_", "-").encode()
        limit, remaining, reset = (name % what for what in (b"limit", b"remaining", b"reset"))
        self._leases = leases
        self.place = place
        self.amount = rule.amount
        self.rivals = [Shown(leases, buckets, other) for other in others]
        # What is left can be read off the bucket itself, of this one and of its rivals.
        self.sole = not (rule.calendar or rule.burst) and leases.standing(bucket) is not None
        self.sole = self.sole and all([rival.sole for rival in self.rivals])
        self._any = limit + b"%d\r\n" + remaining + b"%d\r\n" + reset + b"%ds\r\n"
        self.whole = self._any % (rule.amount, rule.amount, 0)
        # Of what this very call took nothing has gone by: it counts for the whole of the window.
        whole_in = up(lasts(rule.seconds)) if rule.amount else 0
        self.part = b"%b%d\r\n%b%%d\r\n%b%ds\r\n" % (limit, rule.amount, remaining, reset, whole_in)

    def tightest(self, buckets: Sequence[Bucket]) -> bytes:
        """Of several buckets the one with the least left; one whose standing nobody knows says nothing."""
        known = [(self._leases.standing(buckets[each.place]), each) for each in (self, *self.rivals)]
        stated = [(standing, each) for standing, each in known if standing is not None]
        if not stated:
            return b""
        standing, best = min(stated, key=lambda pair: pair[0].remaining)
        return best._any % (standing.limit, standing.remaining, up(standing.reset))


def wire(shown: tuple[Shown, ...], buckets: Sequence[Bucket]) -> bytes:
    """All headers of a call's limits, as a wire block."""
    block = b""
    for each in shown:
        if each.sole:  # as `Leases.standing` says, without the frames
            bucket = buckets[each.place]
            best, left = each, bucket.left + bucket.free
            if each.rivals:
                best, left = _least(each, left, buckets)
            block += best.whole if left >= best.amount else best.part % (left if left > 0 else 0)
        else:
            block += each.tightest(buckets)
    return block


def anew(shown: tuple[Shown, ...], buckets: Sequence[Bucket]) -> bytes:
    """As `wire`, where some of the limits may be raised for a while."""
    return b"".join([each.tightest(buckets) for each in shown])


def _least(first: Shown, left: int, buckets: Sequence[Bucket]) -> tuple[Shown, int]:
    best, left = first, min(left, first.amount)
    for rival in first.rivals:
        bucket = buckets[rival.place]
        remaining = bucket.left + bucket.free
        if remaining > rival.amount:
            remaining = rival.amount
        if remaining < left:
            best, left = rival, remaining
    return best, left
