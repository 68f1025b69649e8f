"""What was used in a window of time: rolling in 60 slices, or by the calendar of a time zone."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from datetime import datetime, timedelta, tzinfo
from typing import Protocol
from zoneinfo import ZoneInfo

from gateway.core.limit import SLICES, slice_us

_FIXED = {"minute": 60, "hour": 3600}


class Window(Protocol):
    """What all windows can tell. Times are seconds of one clock, amounts in the rule's unit."""

    limit: int

    @property
    def most(self) -> int:
        """The largest amount that ever fits at once."""

    def used(self, now: float) -> int:
        """What counts at `now`."""

    def room(self, now: float) -> int:
        """What may still be used at `now`; below 0 after an overrun or when the limit was lowered."""

    def charge(self, at: float, amount: int) -> None:
        """Count what was used at `at`; it may lie in the past."""

    def retry_at(self, need: int, now: float) -> float:
        """When there is room for `need` if nothing more is used; `now` where there is, inf if never."""

    def whole_at(self, now: float) -> float:
        """When nothing used by `now` counts any more."""


class RollingWindow:
    """At most `limit` in any stretch of `seconds`, wherever it starts.

    Amounts are kept per slice, a 60th of the window. A slice leaves the sum only when all of it is older
    than the window, so the sum covers between 60 and 61 slices: never less than the window. Times are
    seconds of one clock that never goes back.
    """

    __slots__ = ("_slice", "_slices", "_used", "limit", "seconds")

    def __init__(self, limit: int, seconds: float) -> None:
        self.limit = limit
        self.seconds = seconds
        # Whole microseconds, rounded up, so that slice borders are exact and 60 of them cover the window.
        self._slice = slice_us(seconds)
        self._slices: deque[list[int]] = deque()  # [index, amount], oldest first
        self._used = 0

    @property
    def most(self) -> int:
        """The largest amount that ever fits at once."""
        return self.limit

    @property
    def slices(self) -> list[tuple[float, int]]:
        """What was used, with the times before which it was, oldest first."""
        return [((index + 1) * self._slice / 1_000_000, amount) for index, amount in self._slices]

    def _index(self, at: float) -> int:
        return int(at * 1_000_000 + 0.5) // self._slice

    def used(self, now: float) -> int:
        """What counts at `now`."""
        slices = self._slices
        oldest = self._index(now) - SLICES
        while slices and slices[0][0] < oldest:
            self._used -= slices.popleft()[1]
        return self._used

    def room(self, now: float) -> int:
        """What may still be used at `now`; below 0 after an overrun or when the limit was lowered."""
        return self.limit - self.used(now)

    def charge(self, at: float, amount: int) -> None:
        """Count what was used at `at`; it may lie in the past."""
        index, slices = self._index(at), self._slices
        self._used += amount
        place = len(slices)
        while place and slices[place - 1][0] > index:
            place -= 1
        if place and slices[place - 1][0] == index:
            slices[place - 1][1] += amount
        else:
            slices.insert(place, [index, amount])

    def retry_at(self, need: int, now: float) -> float:
        """When there is room for `need` if nothing more is used; `now` where there is, inf if never."""
        if need > self.limit:
            return math.inf
        missing = need - self.room(now)
        if missing <= 0:
            return now
        for index, amount in self._slices:
            missing -= amount
            if missing <= 0:
                return (index + SLICES + 1) * self._slice / 1_000_000
        raise AssertionError("the slices add up to what is used")

    def whole_at(self, now: float) -> float:
        """When nothing used by `now` counts any more."""
        self.used(now)
        return (self._slices[-1][0] + SLICES + 1) * self._slice / 1_000_000 if self._slices else now


class CalendarWindow:
    """At most `limit` in each minute, hour, day, week (from Monday) or month of a time zone.

    Times are epoch seconds. A clock that is set back stays in the newest period it was in.
    """

    __slots__ = ("_used", "end", "limit", "period", "start", "zone")

    def __init__(self, limit: int, period: str, zone: str = "UTC") -> None:
        self.limit = limit
        self.period = period
        self.zone = zone
        self.start = self.end = -math.inf
        self._used = 0

    @property
    def most(self) -> int:
        """The largest amount that ever fits at once."""
        return self.limit

    def used(self, now: float) -> int:
        """What counts at `now`."""
        if now >= self.end:
            self.start, self.end = bounds(self.period, now, self.zone)
            self._used = 0
        return self._used

    def room(self, now: float) -> int:
        """What may still be used at `now`; below 0 after an overrun or when the limit was lowered."""
        return self.limit - self.used(now)

    def charge(self, at: float, amount: int) -> None:
        """Count what was used at `at`; what lies before the current period is forgotten."""
        self.used(at)
        if at >= self.start:
            self._used += amount

    def retry_at(self, need: int, now: float) -> float:
        """When there is room for `need` if nothing more is used; `now` where there is, inf if never."""
        if need > self.limit:
            return math.inf
        return now if need <= self.room(now) else self.end

    def whole_at(self, now: float) -> float:
        """When nothing used by `now` counts any more."""
        return self.end if self.used(now) else now


def bounds(period: str, now: float, zone: str = "UTC") -> tuple[float, float]:
    """First and last+1 second of the minute, hour, day, week or month that `now` (epoch) lies in.

    `zone` is an IANA name. Days are as long as their clocks make them: 23 or 25 hours where those change.
    """
    place = ZoneInfo(zone)
    length = _FIXED.get(period)
    if length is not None:
        offset = datetime.fromtimestamp(now, place).utcoffset()
        ahead = offset.total_seconds() if offset else 0.0
        start = (now + ahead) // length * length - ahead
        return start, start + length
    local = datetime.fromtimestamp(now, place)
    return _LONG[period](local.replace(hour=0, minute=0, second=0, microsecond=0, tzinfo=None, fold=0), place)


def _midnight(day: datetime, place: tzinfo) -> float:
    """The first moment of a local day; where clocks skip midnight, the moment they do so."""
    return day.replace(tzinfo=place).timestamp()


def _day(day: datetime, place: tzinfo) -> tuple[float, float]:
    return _midnight(day, place), _midnight(day + timedelta(days=1), place)


def _week(day: datetime, place: tzinfo) -> tuple[float, float]:
    start = day - timedelta(days=day.weekday())
    return _midnight(start, place), _midnight(start + timedelta(days=7), place)


def _month(day: datetime, place: tzinfo) -> tuple[float, float]:
    start = day.replace(day=1)
    return _midnight(start, place), _midnight((start + timedelta(days=32)).replace(day=1), place)


_LONG: dict[str, Callable[[datetime, tzinfo], tuple[float, float]]] = {
    "day": _day,
    "week": _week,
    "month": _month,
}
