"""Limits that flow, calendars of time zones, raises and thresholds."""

from __future__ import annotations

from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.limit import Raise, Spent
from gateway.stores.leases import Authority, CalendarWindow, GcraWindow, bounds
from tests.link.world import World, rule

ZONES = (
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "Asia/Kolkata",
    "Australia/Lord_Howe",
    "Africa/Cairo",
    "Pacific/Apia",
)
_steps = st.lists(st.tuples(st.floats(0, 3, allow_nan=False), st.integers(1, 4)), min_size=1, max_size=150)


@given(st.floats(0, 2e9), st.sampled_from([(10, 7.3, 4), (7, 1.0, 1), (600, 60.0, 20), (3, 0.25, 9)]), _steps)
def test_no_stretch_as_long_as_the_window_ever_exceeds_limit_and_burst(
    start: float, shape: tuple[int, float, int], steps: list[tuple[float, int]]
) -> None:
    limit, seconds, burst = shape
    window, log, now = GcraWindow(limit, seconds, burst), [], start
    for wait, amount in steps:
        now += wait * seconds / limit
        if window.room(now) >= amount:
            window.charge(now, amount)
            log.append((now, amount))
    for last, _ in log:
        assert sum(amount for at, amount in log if last - seconds < at <= last) <= limit + burst


@given(st.floats(0, 2e9), _steps, st.integers(1, 5))
def test_a_burst_refused_says_exactly_when_it_fits(
    start: float, steps: list[tuple[float, int]], need: int
) -> None:
    window, now = GcraWindow(10, 7.3, 5), start
    for wait, amount in steps:
        now += wait
        if window.room(now) >= amount:
            window.charge(now, amount)
    at = window.retry_at(need, now)
    if at > now:
        assert window.room(max(now, at - 2e-6)) < need
    assert window.room(at) >= need
    assert window.used(window.whole_at(at)) == 0


def test_a_burst_comes_back_evenly_and_another_rate_keeps_what_is_used() -> None:
    window = GcraWindow(60, 60.0, 10)
    window.charge(100.0, 10)
    assert [window.room(100.0 + second) for second in (0, 1, 2.5, 10, 99)] == [0, 1, 2, 10, 10]
    window.charge(300.0, 10)
    window.limit = 120
    assert window.used(300.0) == 10
    assert window.room(301.0) == 2
    assert window.retry_at(11, 301.0) == float("inf")


@given(
    st.integers(0, 4_000_000_000),
    st.sampled_from(["minute", "hour", "day", "week", "month"]),
    st.sampled_from(ZONES),
)
def test_periods_of_a_zone_begin_and_end_by_its_clocks(at: int, period: str, zone: str) -> None:
    start, end = bounds(period, at, zone)
    assert start <= at < end
    if period in ("day", "week", "month"):
        begins = datetime.fromtimestamp(start, ZoneInfo(zone))
        before = datetime.fromtimestamp(start - 1, ZoneInfo(zone))
        assert begins.date() > before.date()
        assert bounds(period, end, zone)[0] == end


def test_a_day_on_which_clocks_change_is_as_long_as_they_make_it() -> None:
    noon = datetime(2026, 3, 29, 12, tzinfo=ZoneInfo("Europe/Berlin"))
    start, end = bounds("day", noon.timestamp(), "Europe/Berlin")
    assert end - start == 23 * 3600
    start, end = bounds("day", (noon + timedelta(days=210)).timestamp(), "Europe/Berlin")
    assert end - start == 25 * 3600


def test_a_calendar_window_ends_at_midnight_of_its_zone() -> None:
    midnight = datetime(2026, 7, 2, tzinfo=ZoneInfo("Asia/Kolkata")).timestamp()
    window = CalendarWindow(5, "day", "Asia/Kolkata")
    window.charge(midnight - 10, 5)
    assert (window.room(midnight - 1), window.retry_at(1, midnight - 1), window.room(midnight)) == (
        0,
        midnight,
        5,
    )


def test_a_burst_is_exact_over_workers_and_says_when_to_come_back() -> None:
    flowing = rule(amount=60, burst=5)
    world = World([flowing], 2)
    calls = [world.take(n % 2, (flowing, "a", 1)) for n in range(20)]
    world.pump()
    assert sum(call.admitted for call in calls) == 5
    world.wait(0.2)
    retry = world.call(0, (flowing, "a", 1)).denial.retry_after
    assert 0.5 < retry <= 1.0
    world.wait(retry + 0.01)
    assert world.call(1, (flowing, "a", 1)).admitted


@given(st.data())
def test_over_workers_no_stretch_exceeds_limit_and_burst(data: st.DataObject) -> None:
    flowing = rule(amount=20, seconds=10.0, burst=4)
    world, log = World([flowing], 3), []
    for _ in range(data.draw(st.integers(5, 40))):
        world.wait(data.draw(st.sampled_from([0.0, 0.01, 0.2, 0.5, 1.1])))
        if world.call(data.draw(st.integers(0, 2)), (flowing, "a", 1)).admitted:
            log.append(world.clock.now)
    for last in log:
        assert sum(last - 10.0 < at <= last for at in log) <= 24


def test_a_burst_is_restored_from_the_ledger() -> None:
    flowing = rule(amount=60, burst=5)
    world = World([flowing], 1)
    now = int(world.clock.wall() * 1000)
    rows = [Spent("a", now - 100, 4, 0, 0), Spent("a", now - 3000, 5, 0, 0)]
    world.authority.load(flowing, rows)
    assert world.authority.account("key.requests", "a").used == 6  # 2.1 of the five are left, and four more


# -- raises


def test_a_raise_gives_more_until_it_ends_and_only_to_whom_it_names() -> None:
    few = rule(amount=2)
    world = World([few], 2)
    until = world.clock.wall() + 30
    world.post(world.authority.replace_raises([Raise("r1", few.id, 3, until, "a*")]))
    assert sum(world.call(n % 2, (few, "acme", 1)).admitted for n in range(9)) == 5
    assert sum(world.call(n % 2, (few, "bolt", 1)).admitted for n in range(9)) == 2
    world.wait(31)
    assert not world.call(0, (few, "acme", 1)).admitted
    world.wait(62)
    assert sum(world.call(n % 2, (few, "acme", 1)).admitted for n in range(9)) == 2


def test_workers_know_by_how_much_a_bucket_is_raised_as_long_as_it_is() -> None:
    many = rule(amount=100)
    world = World([many], 2)
    buckets = [client.bucket(many, "acme") for client in world.clients.values()]

    def stand() -> list[tuple[int, bool]]:
        found = [
            client.standing(bucket).limit
            for client, bucket in zip(world.clients.values(), buckets, strict=True)
        ]
        return list(zip(found, [client.unusual for client in world.clients.values()], strict=True))

    assert world.call(0, (many, "acme", 1)).admitted
    world.post(world.authority.replace_raises([Raise("r1", many.id, 5, world.clock.wall() + 30, "a*")]))
    world.pump()
    assert stand() == [(105, True), (100, False)]  # the other has nothing of it yet
    assert world.call(1, (many, "acme", 1)).admitted
    assert stand() == [(105, True), (105, True)]
    assert world.call(0, (many, "acme", 106)).denial.raised == 5
    world.wait(31)
    assert world.call(0, (many, "acme", 1)).admitted and world.call(1, (many, "acme", 1)).admitted
    assert stand() == [(100, False), (100, False)]
    assert world.call(0, (many, "acme", 106)).denial.raised == 0


def test_a_raise_taken_back_acts_at_once() -> None:
    places = rule("concurrent", 1)
    world = World([places], 2)
    world.post(world.authority.replace_raises([Raise("r", places.id, 1, world.clock.wall() + 99)]))
    assert world.call(0, (places, "a", 1)).admitted
    world.post(world.authority.replace_raises([]))
    world.pump()
    assert not world.call(1, (places, "a", 1)).admitted


# -- thresholds


class Heard(World):
    """A world that notes what is told."""

    def __init__(self, *rules: object) -> None:
        super().__init__(rules, 2)  # type: ignore[arg-type]
        self.told: list[tuple[str, str, int, int]] = []
        self.authority = Authority(
            rules,  # type: ignore[arg-type]
            self.clock,
            self.clock.wall,
            lambda kind, rule, value, used, amount: self.told.append((kind, value, used, amount)),
        )


def test_a_limit_that_is_nearly_used_up_is_told_of_once_in_its_window() -> None:
    few = rule(amount=10)
    world = Heard(few)
    for n in range(12):
        world.call(n % 2, (few, "a", 1))
        world.wait(0.15)
    assert [(kind, value) for kind, value, _, _ in world.told] == [
        ("limit.near", "a"),
        ("limit.reached", "a"),
    ]
    assert world.told[0][2:] == (8, 10)
    world.wait(70)
    for n in range(9):
        world.call(n % 2, (few, "a", 1))
        world.wait(0.15)
    assert len(world.told) == 3


@pytest.mark.parametrize("warn", [0.0, 0.5])
def test_the_share_at_which_it_is_told_is_the_rules_own(warn: float) -> None:
    tokens = rule("tokens", 100, warn=warn)
    world = Heard(tokens)
    hold = world.call(0, (tokens, "a", 60)).hold
    world.clients[0].settle(hold, 55, 0)
    world.wait(0.3)
    assert [kind for kind, *_ in world.told] == (["limit.near"] if warn else [])


def test_a_refusal_is_told_of_with_what_calls_under_way_hold() -> None:
    tokens = rule("tokens", 100)
    world = Heard(tokens)
    world.call(0, (tokens, "a", 60))
    assert not world.call(1, (tokens, "a", 60)).admitted
    assert [(kind, used >= 60, amount) for kind, _, used, amount in world.told] == [
        ("limit.reached", True, 100)
    ]


def test_of_a_burst_it_is_told_how_much_is_taken_at_once() -> None:
    flowing = rule("requests", 600, 60.0, burst=10)
    world = Heard(flowing)
    for _ in range(12):
        world.call(0, (flowing, "a", 1))
    world.wait(0.1)
    assert {kind: amount for kind, _, _, amount in world.told} == {"limit.near": 10, "limit.reached": 10}


def test_what_hovers_around_the_threshold_is_not_told_again_and_again() -> None:
    daily = rule("tokens", 100, calendar="day")
    world = Heard(daily)
    for _ in range(3):
        world.clients[0].settle(world.call(0, (daily, "a", 40)).hold, 30, 0)
        world.wait(0.3)
    assert [kind for kind, *_ in world.told] == ["limit.near"]


def test_a_rule_with_another_window_begins_anew_from_the_ledger() -> None:
    hourly, daily = rule("tokens", 100, 3600.0, id="named"), rule("tokens", 100, calendar="day", id="named")
    world = World([hourly], 1)
    world.authority.load(hourly, [])
    world.clients[0].settle(world.call(0, (hourly, "a", 50)).hold, 50, 0)
    world.wait(0.3)
    world.post(world.authority.replace_rules([daily]))
    ((again, since),) = world.authority.unloaded()
    assert (again, since % 86_400_000) == (daily, 0)
    world.authority.load(daily, [Spent("a", int(world.clock.wall() * 1000), 1, 70, 0)])
    assert world.authority.account("named", "a").used == 70
