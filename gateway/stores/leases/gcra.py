"""A limit of requests that flows: so many at once, then evenly (the generic cell rate algorithm)."""

from __future__ import annotations

import math


class GcraWindow:
    """`burst` at once, then one every `seconds / limit`: at most `limit + burst` in any stretch of `seconds`.

    Kept as a level of nanoseconds that runs down with time; a unit raises it by its interval. Intervals are
    whole nanoseconds, rounded up. Times are seconds of one clock that never goes back, looked at in whole
    microseconds.
    """

    __slots__ = ("_at", "_level", "_limit", "_step", "burst", "seconds")

    def __init__(self, limit: int, seconds: float, burst: int) -> None:
        self.seconds = seconds
        self.burst = burst
        self._limit = limit
        self._step = step(limit, seconds)
        self._level = 0
        self._at = 0

    @property
    def limit(self) -> int:
        """Units in `seconds`."""
        return self._limit

    @limit.setter
    def limit(self, limit: int) -> None:
        """What is used stays the same number of units."""
        before, self._step = self._step, step(limit, self.seconds)
        self._level = -(-self._level * self._step // before)
        self._limit = limit

    @property
    def most(self) -> int:
        """The largest amount that ever fits at once."""
        return self.burst

    def _run(self, now: float) -> int:
        """Let time go on; the level then."""
        at = int(now * 1_000_000 + 0.5)
        if at > self._at:
            self._level = max(self._level - (at - self._at) * 1000, 0)
            self._at = at
        return self._level

    def used(self, now: float) -> int:
        """How much of the burst is taken at `now`."""
        return -(-self._run(now) // self._step)

    def room(self, now: float) -> int:
        """What may be used at `now`; below 0 after an overrun or when the burst was lowered."""
        return self.burst - self.used(now)

    def charge(self, at: float, amount: int) -> None:
        """Count what was used at `at`. What comes late counts as if used now: never too little."""
        self._run(at)
        self._level += amount * self._step

    def retry_at(self, need: int, now: float) -> float:
        """When there is room for `need` if nothing more is used; `now` where there is, inf if never."""
        if need > self.burst:
            return math.inf
        over = self._run(now) - (self.burst - need) * self._step
        return (self._at + -(-over // 1000)) / 1_000_000 if over > 0 else now

    def whole_at(self, now: float) -> float:
        """When nothing used by `now` counts any more."""
        level = self._run(now)
        return (self._at + -(-level // 1000)) / 1_000_000 if level else now


def step(limit: int, seconds: float) -> int:
    """Nanoseconds between two units."""
    return math.ceil(seconds * 1_000_000_000 / max(limit, 1))
