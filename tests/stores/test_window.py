"""Windows against the naive log of events and the standard library's calendar."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from gateway.stores.leases.window import CalendarWindow, RollingWindow, bounds

PERIODS = ("minute", "hour", "day", "week", "month")
_steps = st.lists(st.tuples(st.floats(0, 70, allow_nan=False), st.integers(1, 8)), min_size=1, max_size=200)


def _admit(window: RollingWindow | CalendarWindow, start: float, steps: list[tuple[float, int]]) -> list:
    log, now = [], start
    for wait, amount in steps:
        now += wait
        if window.room(now) >= amount:
            window.charge(now, amount)
            log.append((now, amount))
    return log


@given(st.floats(0, 2e9), st.sampled_from([0.25, 1.0, 7.3, 60.0, 3600.0]), _steps)
def test_no_stretch_as_long_as_the_window_ever_exceeds_the_limit(
    start: float, seconds: float, steps: list[tuple[float, int]]
) -> None:
    log = _admit(RollingWindow(10, seconds), start, steps)
    for last, _ in log:
        assert sum(amount for at, amount in log if last - seconds < at <= last) <= 10


@given(st.floats(0, 2e9), _steps)
def test_what_is_older_than_a_window_and_a_slice_never_counts(
    start: float, steps: list[tuple[float, int]]
) -> None:
    window, log, now = RollingWindow(1 << 60, 60.0), [], start
    for wait, amount in steps:
        now += wait
        window.charge(now, amount)
        log.append((now, amount))
        assert window.used(now) <= sum(a for at, a in log if at >= now - 61.00001)
        assert window.used(now) >= sum(a for at, a in log if at > now - 60)


@given(st.floats(0, 2e9), st.sampled_from([0.25, 7.3, 60.0]), _steps, st.integers(1, 10))
def test_retry_at_is_the_first_moment_with_room(
    start: float, seconds: float, steps: list[tuple[float, int]], need: int
) -> None:
    window = RollingWindow(10, seconds)
    log = _admit(window, start, steps)
    now = log[-1][0] if log else start
    at = window.retry_at(need, now)
    if at > now:
        assert window.room(max(now, at - 2e-6)) < need
    assert window.room(at) >= need


@given(st.floats(0, 2e9), _steps)
def test_the_window_is_whole_when_it_says_so(start: float, steps: list[tuple[float, int]]) -> None:
    window = RollingWindow(10, 60.0)
    log = _admit(window, start, steps)
    now = log[-1][0] if log else start
    at = window.whole_at(now)
    if at > now:
        assert window.used(at - 2e-6) > 0
    assert window.used(at) == 0


@given(st.lists(st.tuples(st.floats(0, 100), st.integers(1, 5)), max_size=50), st.floats(100, 200))
def test_the_order_of_charges_does_not_matter(charges: list[tuple[float, int]], now: float) -> None:
    given_order, by_time = RollingWindow(10, 60.0), RollingWindow(10, 60.0)
    for at, amount in charges:
        given_order.charge(at, amount)
    for at, amount in sorted(charges):
        by_time.charge(at, amount)
    assert given_order.used(now) == by_time.used(now)


def test_more_than_the_limit_never_fits() -> None:
    assert RollingWindow(10, 60.0).retry_at(11, 5.0) == math.inf
    assert CalendarWindow(10, "day").retry_at(11, 5.0) == math.inf


def test_a_lowered_limit_counts_at_once() -> None:
    window = RollingWindow(10, 60.0)
    window.charge(1.0, 8)
    window.limit = 5
    assert window.room(2.0) == -3
    assert window.retry_at(1, 2.0) == 62.0


@given(st.sampled_from(PERIODS), st.floats(0, 4e9))
def test_calendar_bounds_are_those_of_datetime(period: str, now: float) -> None:
    start, end = bounds(period, now)
    assert start <= now < end
    first, after = datetime.fromtimestamp(start, UTC), datetime.fromtimestamp(end, UTC)
    zero = {"microsecond": 0, "second": 0}
    expected = {
        "minute": (zero, timedelta(minutes=1)),
        "hour": ({**zero, "minute": 0}, timedelta(hours=1)),
        "day": ({**zero, "minute": 0, "hour": 0}, timedelta(days=1)),
        "week": ({**zero, "minute": 0, "hour": 0}, timedelta(days=7)),
        "month": ({**zero, "minute": 0, "hour": 0, "day": 1}, None),
    }[period]
    assert first == first.replace(**expected[0])
    if period == "week":
        assert first.weekday() == 0
    if expected[1] is not None:
        assert after - first == expected[1]
    else:
        assert after.day == 1 and timedelta(days=28) <= after - first <= timedelta(days=31)


@given(st.sampled_from(PERIODS), st.floats(0, 4e9), _steps)
def test_no_calendar_period_exceeds_the_limit(
    period: str, start: float, steps: list[tuple[float, int]]
) -> None:
    log = _admit(CalendarWindow(10, period), start, steps)
    sums: dict[float, int] = {}
    for at, amount in log:
        sums[bounds(period, at)[0]] = sums.get(bounds(period, at)[0], 0) + amount
    assert all(total <= 10 for total in sums.values())


def test_a_calendar_window_is_empty_again_at_its_end() -> None:
    window = CalendarWindow(10, "month")
    january = datetime(2026, 1, 31, 23, 59, 59, tzinfo=UTC).timestamp()
    window.charge(january, 10)
    assert window.retry_at(1, january) == january + 1 == window.whole_at(january)
    assert window.room(january + 1) == 10


def test_a_clock_set_back_does_not_open_the_old_period_again() -> None:
    window = CalendarWindow(10, "minute")
    window.charge(120.0, 10)
    assert window.room(59.0) == 0
    window.charge(59.0, 10)
    assert window.used(121.0) == 10
