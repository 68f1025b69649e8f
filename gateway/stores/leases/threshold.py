"""When to tell of a bucket: once it is nearly used up, and when it refuses its first call."""

from __future__ import annotations

_ARMED = 0.9  # of the threshold: below it a new crossing is worth telling


class Threshold:
    """Remembers what was told, so that each is told once per window. `now` is seconds of one clock."""

    __slots__ = ("_near_until", "_over", "_reached_until")

    def __init__(self) -> None:
        self._over = False
        self._near_until = 0.0
        self._reached_until = 0.0

    def near(self, used: int, threshold: float, now: float, window: float) -> bool:
        """Whether to tell that `used` has crossed `threshold`; `window` is the rest of it."""
        if used < threshold:
            self._over = self._over and used >= threshold * _ARMED
            return False
        if self._over or now < self._near_until:
            return False
        self._over, self._near_until = True, now + window
        return True

    def reached(self, now: float, window: float) -> bool:
        """Whether this refusal is the first in its window."""
        if now < self._reached_until:
            return False
        self._reached_until = now + window
        return True
