"""How long a worker keeps what nobody uses, and how long a call waits."""

from __future__ import annotations

import pytest

from gateway.core.errors import FaultError
from gateway.core.limit import LimitRule
from gateway.link import leases, stock
from gateway.link.stock import IDLE
from tests.link.world import World, rule

PLENTY = rule(amount=1_000_000)


def leased(world: World, limit: LimitRule, value: str) -> int:
    """What the authority has leased of a bucket."""
    account = world.authority.account(limit.id, value)
    return account.leased if account is not None else 0


def test_a_lease_that_is_little_of_what_is_left_is_found_again_after_half_a_minute() -> None:
    world = World([PLENTY], 1)
    for n in range(5):
        world.call(0, (PLENTY, f"v{n}", 1))
    world.wait(30.0)
    sent = world.sent
    assert all(world.take(0, (PLENTY, f"v{n}", 1)).admitted for n in range(5))
    assert world.sent == sent


def test_a_lease_that_is_little_goes_back_too_when_it_stays_unused() -> None:
    world = World([PLENTY], 1)
    world.call(0, (PLENTY, "a", 1))
    world.wait(5 * IDLE)
    assert leased(world, PLENTY, "a") == 0 and world.clients[0].buckets == 0


def test_a_lease_that_stays_is_called_back_when_somebody_is_in_want() -> None:
    world = World([PLENTY], 2)
    world.call(0, (PLENTY, "a", 1))
    world.wait(30.0)
    assert leased(world, PLENTY, "a") > 0
    assert world.call(1, (PLENTY, "a", 999_999)).admitted


def test_a_lease_that_is_much_of_what_is_left_goes_back_soon() -> None:
    few = rule("concurrent", 8)
    world = World([few], 1)
    hold = world.call(0, (few, "a", 1)).hold
    world.clients[0].settle(hold, 0, 0)
    world.wait(2 * IDLE)
    assert leased(world, few, "a") == 0


def test_with_too_many_buckets_each_lease_goes_back_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stock, "CROWDED", 3)
    world = World([PLENTY], 1)
    for n in range(5):
        world.call(0, (PLENTY, f"v{n}", 1))
    world.wait(2 * IDLE)
    assert world.clients[0].buckets <= 3


def test_a_bucket_in_use_keeps_its_lease() -> None:
    world = World([PLENTY], 1)
    world.call(0, (PLENTY, "a", 1))
    for _ in range(20):
        sent = world.sent
        assert world.take(0, (PLENTY, "a", 1)).admitted and world.sent == sent
        world.wait(10.0)


def test_each_call_waits_its_own_second() -> None:
    world = World([], 1)
    calls = []
    for _ in range(3):
        calls.append(world.take(0, (PLENTY, "a", 1)))
        world.clock.advance(0.3)
    answered = []
    for _ in range(3):
        world.clock.advance(leases.PATIENCE + 0.001 - 0.9 if not answered else 0.3)
        answered.append([isinstance(call.outcome, FaultError) for call in calls])
    assert answered == [[True, False, False], [True, True, False], [True, True, True]]
