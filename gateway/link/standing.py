"""How buckets stand, as far as one worker knows: for `x-ratelimit-*`."""

from __future__ import annotations

from collections.abc import Callable

from gateway.core.limit import Standing, lasts
from gateway.link.bucket import LeasedBucket
from gateway.stores.leases import bounds


class Standings:
    """Knows when calendar windows end. `wall` gives epoch seconds."""

    def __init__(self, wall: Callable[[], float]) -> None:
        self._wall = wall
        self._ends: dict[tuple[str, str], float] = {}  # by calendar and zone, of which rules state few

    def of(self, bucket: LeasedBucket) -> Standing:
        """What other workers hold counts as used."""
        rule = bucket.rule
        amount = rule.amount + bucket.raised
        remaining = min(max(bucket.left + bucket.free, 0), amount)
        reset = lasts(rule.seconds) if remaining < amount else 0.0
        if rule.calendar:
            reset = self._end(rule.calendar, rule.zone)
        elif rule.burst:  # flows back at the rate of the limit
            remaining = min(remaining, rule.burst)
            reset = (rule.burst - remaining) * rule.seconds / amount
        return Standing(amount, remaining, reset)

    def _end(self, calendar: str, zone: str) -> float:
        """Seconds until the window ends."""
        now, window = self._wall(), (calendar, zone)
        if now >= self._ends.get(window, 0.0):
            self._ends[window] = bounds(calendar, now, zone)[1]
        return self._ends[window] - now
