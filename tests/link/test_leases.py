"""Limits over several workers: exact, whatever the order of messages."""

from __future__ import annotations

import asyncio
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.errors import FaultError
from gateway.core.hold import Hold
from gateway.core.limit import Denial, Spent
from gateway.link import ends, leases
from gateway.link.leases import LeaseClient, local
from gateway.link.stock import IDLE
from gateway.stores.leases import Authority
from tests.link.world import EPOCH, World, rule

BURST = rule(amount=100)


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_a_burst_of_300_at_a_limit_of_100_admits_exactly_100(workers: int) -> None:
    world = World([BURST], workers)
    calls = [world.take(n % workers, (BURST, "a", 1)) for n in range(300)]
    world.pump()
    assert sum(call.admitted for call in calls) == 100
    assert all(isinstance(call.outcome, Hold | Denial) for call in calls)


@pytest.mark.parametrize("workers", [1, 3])
def test_concurrent_admits_exactly_n_and_places_move_between_workers(workers: int) -> None:
    places = rule("concurrent", 5)
    world = World([places], workers)
    calls = [world.take(n % workers, (places, "a", 1)) for n in range(20)]
    world.pump()
    inside = [(n % workers, call) for n, call in enumerate(calls) if call.admitted]
    assert len(inside) == 5
    for number, call in inside:
        world.clients[number].settle(call.hold, 0, 0)
    world.pump()
    again = [world.take(0, (places, "a", 1)) for _ in range(6)]
    world.pump()
    assert [call.admitted for call in again] == [True] * 5 + [False]


def test_the_last_unit_is_found_at_whichever_worker_has_it() -> None:
    world = World([BURST], 4)
    world.call(3, (BURST, "a", 1))  # now worker 3 holds some stock
    assert sum(world.call(0, (BURST, "a", 1)).admitted for _ in range(150)) == 99


def test_steady_traffic_rarely_waits_for_the_link() -> None:
    plenty = rule(amount=1_000_000)
    world = World([plenty], 2)
    waited = 0
    for _ in range(2000):
        call = world.take(0, (plenty, "a", 1))
        waited += call.outcome is None
        world.wait(0.002)
        assert call.admitted
    assert waited <= 5
    assert world.sent < 100


def test_a_call_takes_from_all_its_buckets_or_from_none() -> None:
    few, many = rule(amount=1, id="few"), rule(amount=10, id="many")
    world = World([few, many])
    assert world.call(0, (many, "a", 1), (few, "a", 1)).admitted
    for number in (0, 1):
        assert world.call(number, (many, "a", 1), (few, "a", 1)).denial.rule is few
    assert sum(world.call(n % 2, (many, "a", 1)).admitted for n in range(20)) == 9


def test_two_workers_with_half_each_do_not_block_each_other() -> None:
    left, right = rule("concurrent", 1, id="left"), rule("concurrent", 1, id="right")
    world = World([left, right])
    for number, one in enumerate((left, right)):  # each worker now has one place in hand
        world.clients[number].settle(world.call(number, (one, "a", 1)).hold, 0, 0)
    calls = [world.take(number, (left, "a", 1), (right, "a", 1)) for number in (0, 1)]
    world.pump()
    assert sorted(call.admitted for call in calls) == [False, True]


def test_tokens_are_held_as_estimated_and_charged_as_used() -> None:
    tokens = rule("tokens", 100)
    world = World([tokens])
    hold = world.call(0, (tokens, "a", 80)).hold
    assert world.call(1, (tokens, "a", 30)).denial.remaining == 20
    world.clients[0].settle(hold, 10, 0)
    world.wait(0.2)
    assert world.call(1, (tokens, "a", 90)).admitted
    assert not world.call(0, (tokens, "a", 1)).admitted


def test_use_beyond_the_hold_is_charged_too() -> None:
    tokens = rule("tokens", 100)
    world = World([tokens])
    world.clients[0].settle(world.call(0, (tokens, "a", 10)).hold, 150, 0)
    world.wait(0.2)
    assert world.call(1, (tokens, "a", 1)).denial.remaining <= 0
    world.wait(61)
    assert world.call(1, (tokens, "a", 100)).admitted


def test_a_second_settle_does_nothing() -> None:
    places = rule("concurrent", 1)
    world = World([places])
    hold = world.call(0, (places, "a", 1)).hold
    for _ in range(3):
        world.clients[0].settle(hold, 0, 0)
    calls = [world.call(0, (places, "a", 1)) for _ in range(2)]
    assert [call.admitted for call in calls] == [True, False]


def test_a_denial_says_when_exactly_there_is_room_again() -> None:
    one = rule(amount=1)
    world = World([one], 2)
    assert world.call(0, (one, "a", 1)).admitted
    world.wait(10.25)
    retry = world.call(1, (one, "a", 1)).denial.retry_after
    assert 49.7 <= retry <= 51.0
    world.wait(retry - 0.01)
    assert not world.call(1, (one, "a", 1)).admitted
    world.wait(0.011)
    assert world.call(1, (one, "a", 1)).admitted


def test_a_calendar_limit_is_whole_again_when_its_period_ends() -> None:
    daily = rule("usd", 5_000_000, calendar="day")
    world = World([daily])
    world.clients[0].settle(world.call(0, (daily, "a", 5_000_000)).hold, 0, 5_000_000)
    world.wait(1)
    denial = world.call(1, (daily, "a", 1)).denial
    assert denial.retry_after == pytest.approx(86_400 - world.clock.now, abs=0.001)
    world.clock.advance(denial.retry_after)
    world.wait(0.1)
    assert world.call(1, (daily, "a", 5_000_000)).admitted


def test_a_flood_of_refused_calls_does_not_reach_the_authority() -> None:
    one = rule("tokens", 10)
    world = World([one], 2)
    world.clients[0].settle(world.call(0, (one, "a", 10)).hold, 10, 0)
    world.wait(0.2)
    before = world.sent
    for _ in range(1000):
        assert not world.call(1, (one, "a", 10)).admitted
        world.wait(0.001)
    assert world.sent - before <= 50


def test_room_that_appears_ends_remembered_refusals_at_once() -> None:
    places = rule("concurrent", 1)
    world = World([places], 2)
    hold = world.call(0, (places, "a", 1)).hold
    assert not world.call(1, (places, "a", 1)).admitted
    world.clients[0].settle(hold, 0, 0)
    world.pump()
    assert world.call(1, (places, "a", 1)).admitted


def test_an_amount_above_the_limit_is_refused_and_takes_nothing() -> None:
    tokens = rule("tokens", 100)
    world = World([tokens])
    assert world.call(0, (tokens, "a", 101)).denial.remaining == 100
    assert world.call(1, (tokens, "a", 100)).admitted


def test_standing_tells_limit_what_is_left_and_when_it_is_whole() -> None:
    tokens = rule("tokens", 100)
    world = World([tokens], 1)
    client = world.clients[0]
    world.call(0, (tokens, "a", 30))
    standing = client.standing(client.bucket(tokens, "a"))
    assert (standing.limit, standing.remaining, standing.reset) == (100, 70, 61.0)


def test_what_went_back_with_an_ask_that_was_refused_counts_as_left() -> None:
    requests, tokens = rule(amount=100, id="r"), rule("tokens", 100, id="t")
    world = World([requests, tokens], 1)
    client = world.clients[0]
    world.call(0, (requests, "a", 1))
    for _ in range(5):
        assert world.call(0, (requests, "a", 1), (tokens, "a", 101)).denial.rule is tokens
    assert client.standing(client.bucket(requests, "a")).remaining == 99


def test_nothing_is_asked_of_an_overdrawn_limit_of_which_nothing_is_taken() -> None:
    requests, dollars = rule(amount=100, id="r"), rule("usd", 100, id="d")
    world = World([requests, dollars], 1)
    hold = world.call(0, (dollars, "a", 50)).hold
    world.clients[0].settle(hold, 0, 500)
    world.wait(1.0)
    assert world.call(0, (requests, "a", 1), (dollars, "a", 0)).admitted
    assert world.sent < 20


def test_standing_of_a_calendar_limit_resets_with_the_period() -> None:
    daily = rule(calendar="day", amount=3)
    world = World([daily], 1)
    client = world.clients[0]
    world.call(0, (daily, "a", 1))
    standing = client.standing(client.bucket(daily, "a"))
    assert (standing.remaining, standing.reset) == (2, 86_400 - world.clock.now)


def test_a_shadow_limit_counts_and_never_refuses() -> None:
    shadow = rule(amount=3, mode="shadow")
    world = World([shadow])
    assert all(world.call(n % 2, (shadow, "a", 1)).admitted for n in range(10))
    counted = sum(
        client.counts.get(("limits", "key.requests", "shadow"), 0) for client in world.clients.values()
    )
    assert counted == 7


def test_a_shadow_limit_of_tokens_counts_what_was_really_used() -> None:
    shadow = rule("tokens", 10, mode="shadow")
    world = World([shadow], 1)
    for _ in range(3):
        world.clients[0].settle(world.call(0, (shadow, "a", 8)).hold, 8, 0)
    world.wait(0.3)
    client = world.clients[0]
    assert world.call(0, (shadow, "a", 1)).admitted
    assert client.counts["limits", "key.tokens", "shadow"] == 3
    assert client.bucket(shadow, "a").left < -10


def test_an_idle_lease_goes_back() -> None:
    world = World([BURST], 2)
    world.call(0, (BURST, "a", 1))
    assert world.clients[0].bucket(BURST, "a").free > 0
    world.wait(2 * IDLE + 1.0)
    account = world.authority.account("key.requests", "a")
    assert account is not None and account.leased == 0 and account.used == 1


def test_nothing_is_kept_of_buckets_that_are_idle_for_longer_than_their_window() -> None:
    world = World([BURST], 2)
    for n in range(50):
        assert world.call(n % 2, (BURST, f"v{n}", 1)).admitted
    world.wait(70.0)
    assert world.authority.accounts == 0
    assert world.clients[0].buckets == 0


def test_waiters_that_leave_take_nothing_along() -> None:
    one = rule(amount=3)
    world = World([one], 2)
    for n in range(6):
        call = world.take(n % 2, (one, "a", 3))
        assert call.waiter is not None
        world.clients[n % 2].abandon(call.waiter)
        world.pump()
    assert world.call(0, (one, "a", 3)).admitted


def test_what_a_dead_worker_used_is_counted_and_the_rest_is_free() -> None:
    tokens = rule("tokens", 100)
    world = World([tokens], 2)
    world.call(0, (tokens, "a", 60))
    (orphan,) = world.authority.lost(0)
    world.post(world.authority.tick())
    assert world.call(1, (tokens, "a", 60)).denial.remaining < 60
    assert (orphan.rule, orphan.value, orphan.worker) == (tokens, "a", 0)
    world.authority.recount(orphan, [Spent("a", 0, 1, 25, 0)])
    world.tick()
    world.wait(0.1)
    assert world.call(1, (tokens, "a", 75)).admitted
    assert not world.call(1, (tokens, "a", 1)).admitted


def test_places_of_a_dead_worker_are_free_at_once() -> None:
    places = rule("concurrent", 2)
    world = World([places], 2)
    assert world.call(0, (places, "a", 1)).admitted and world.call(0, (places, "a", 1)).admitted
    assert world.authority.lost(0) == []
    world.tick()
    assert world.call(1, (places, "a", 1)).admitted and world.call(1, (places, "a", 1)).admitted


def test_an_ask_that_waits_for_a_dead_worker_is_decided() -> None:
    places = rule("concurrent", 1)
    world = World([places], 2)
    assert world.call(0, (places, "a", 1)).admitted
    call = world.take(1, (places, "a", 1))
    world.clock.advance(0.0)
    world.deliver_to(1)  # a recall is on its way to 0, which never answers
    world.authority.lost(0)
    world.tick()
    world.back[0].clear()
    world.pump()
    assert call.admitted


def test_late_messages_of_a_dead_worker_are_ignored() -> None:
    tokens = rule("tokens", 10)
    world = World([tokens], 2)
    hold = world.call(0, (tokens, "a", 10)).hold
    world.authority.lost(0)
    world.clients[0].settle(hold, 0, 0)
    world.wait(3.0)
    assert not world.call(1, (tokens, "a", 10)).admitted


def test_a_worker_that_does_not_answer_is_not_waited_for() -> None:
    world = World([BURST], 2)
    assert world.call(0, (BURST, "a", 90)).admitted
    call = world.take(1, (BURST, "a", 11))
    world.clock.advance(0.0)
    world.deliver_to(1)
    world.clock.advance(0.11)
    world.tick()
    world.deliver_back(1)
    assert call.denial.rule is BURST


def test_a_lowered_limit_acts_at_once_and_keeps_what_was_counted() -> None:
    world = World([BURST], 2)
    for n in range(40):
        assert world.call(n % 2, (BURST, "a", 1)).admitted
    lower = rule(amount=41)
    world.post(world.authority.replace_rules([lower]))
    world.pump()
    assert sum(world.call(n % 2, (lower, "a", 1)).admitted for n in range(10)) == 1


def test_a_raised_limit_acts_at_once() -> None:
    world = World([rule(amount=1)], 2)
    low, high = rule(amount=1), rule(amount=2)
    assert world.call(0, (low, "a", 1)).admitted
    assert not world.call(1, (low, "a", 1)).admitted
    world.post(world.authority.replace_rules([high]))
    world.pump()
    assert world.call(1, (high, "a", 1)).admitted
    assert not world.call(1, (high, "a", 1)).admitted


def test_a_rule_that_is_gone_limits_nothing_more() -> None:
    one = rule(amount=1)
    world = World([one], 2)
    assert world.call(0, (one, "a", 1)).admitted
    waiting = world.take(1, (one, "a", 1))
    world.clock.advance(0.0)
    world.deliver_to(1)
    world.post(world.authority.replace_rules([]))
    world.pump()
    assert waiting.admitted
    world.wait(3.0)
    assert world.call(0, (one, "a", 1)).admitted


def test_windows_are_restored_from_the_ledger() -> None:
    tokens, daily = rule("tokens", 100), rule("usd", 100, calendar="day")
    world = World([tokens, daily], 1)
    now_ms = int(world.clock.wall() * 1000)
    unloaded = dict(world.authority.unloaded())
    assert unloaded[daily] == int(EPOCH * 1000)
    assert now_ms - 61_100 <= unloaded[tokens] <= now_ms - 61_000
    world.authority.load(tokens, [Spent("a", now_ms - 30_000, 1, 60, 0)])
    world.authority.load(
        daily, [Spent("a", now_ms - 900_000, 1, 0, 70), Spent("a", now_ms + 5_000, 1, 0, 20)]
    )
    assert world.authority.unloaded() == []
    assert world.call(0, (tokens, "a", 41)).denial.remaining == 40
    assert world.call(0, (daily, "a", 11)).denial.remaining == 10
    assert world.call(0, (tokens, "a", 40), (daily, "a", 10)).admitted


def test_nothing_is_restored_for_values_the_rule_does_not_match() -> None:
    some = rule(amount=1, match="a*")
    world = World([some], 1)
    world.authority.load(some, [Spent("b", int(world.clock.wall() * 1000), 5, 0, 0)])
    assert world.authority.accounts == 0


def test_when_the_authority_is_full_new_buckets_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.stores.leases.book.MOST", 2)
    world = World([BURST], 1)
    assert [world.call(0, (BURST, value, 1)).admitted for value in "abc"] == [True, True, False]
    world.wait(65.0)
    assert world.call(0, (BURST, "c", 1)).admitted


@pytest.mark.parametrize("policy", ["local", "closed"])
def test_without_an_answer_a_call_is_refused(policy: str) -> None:
    world = World([], 1)
    call = world.take(0, (rule(on_store_loss=policy), "a", 1))
    world.clock.advance(leases.PATIENCE + 0.01)
    assert isinstance(call.outcome, FaultError)
    assert call.outcome.status == 503


def test_without_an_answer_an_open_limit_admits_and_the_use_is_reported_later() -> None:
    tokens = rule("tokens", 100, on_store_loss="open")
    world = World([tokens], 2)
    call = world.take(0, (tokens, "a", 30))
    world.clock.advance(leases.PATIENCE + 0.01)
    world.clients[0].settle(call.hold, 25, 0)
    world.wait(3.0)
    assert world.call(1, (tokens, "a", 76)).denial.remaining == 75


def test_calls_that_wait_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "MOST_WAITING", 3)
    world = World([BURST], 1)
    calls = [world.take(0, (BURST, "a", 1)) for _ in range(5)]
    assert [call.outcome is None for call in calls] == [True, True, True, False, False]
    assert isinstance(calls[4].outcome, FaultError)
    world.pump()
    assert all(call.admitted for call in calls[:3])


def test_one_process_alone_needs_no_link() -> None:
    async def scenario() -> None:
        tokens, places = rule("tokens", 100), rule("concurrent", 1)
        client = local(Authority([tokens, places]))
        charges = ((client.bucket(tokens, "a"), 60), (client.bucket(places, "a"), 1))
        hold = await client.take(charges, tokens=60)
        assert isinstance(hold, Hold) and hold.tokens == 60
        denial = await client.take(charges)
        assert isinstance(denial, Denial)
        client.settle(hold, 20, 0)
        assert isinstance(await client.take(charges), Hold)

    asyncio.run(scenario())


def test_a_cancelled_call_gives_back_what_it_was_just_granted() -> None:
    async def scenario() -> None:
        authority = Authority([rule("concurrent", 1), rule(amount=1)])
        client: LeaseClient

        def send(message: dict) -> None:
            for _, answer in authority.receive(0, message):
                client.receive(answer)
            for task in tasks:
                task.cancel()

        client = LeaseClient(send)
        charges = ((client.bucket(rule("concurrent", 1), "a"), 1), (client.bucket(rule(amount=1), "a"), 1))
        tasks = [asyncio.create_task(client.take(charges))]
        (result,) = await asyncio.gather(*tasks, return_exceptions=True)
        assert isinstance(result, asyncio.CancelledError)
        tasks = []
        assert isinstance(await client.take(charges), Hold)

    asyncio.run(scenario())


def test_over_real_links_a_burst_admits_exactly_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "PATIENCE", 60.0)  # of a clock that goes on where the machine stands still
    monkeypatch.setattr("gateway.stores.leases.desk.UNANSWERED", 30.0)

    async def scenario() -> None:
        authority = Authority([BURST])
        near: dict[int, ends.End] = {}
        far: list[ends.End] = []
        clients: list[LeaseClient] = []

        def to_workers(number: int, message: dict) -> None:
            for worker, answer in authority.receive(number, message):
                near[worker].send(answer)

        for number in range(4):
            ours, theirs = socket.socketpair()
            near[number] = await ends.connect(
                ours, lambda message, number=number: to_workers(number, message), lambda _: None
            )
            client = LeaseClient(lambda message, number=number: far[number].send(message))
            far.append(await ends.connect(theirs, client.receive, lambda _: None))
            clients.append(client)
        takes = [client.take(((client.bucket(BURST, "a"), 1),)) for client in clients * 75]
        outcomes = await asyncio.gather(*takes)
        for end in (*near.values(), *far):
            end.close()
        await asyncio.sleep(0)
        assert sum(isinstance(outcome, Hold) for outcome in outcomes) == 100

    asyncio.run(scenario())


@given(st.data())
def test_standing_never_promises_more_than_the_limit(data: st.DataObject) -> None:
    tokens = rule("tokens", 50)
    world = World([tokens], 2)
    for _ in range(data.draw(st.integers(1, 10))):
        number = data.draw(st.integers(0, 1))
        call = world.call(number, (tokens, "a", data.draw(st.integers(1, 30))))
        if call.admitted:
            world.clients[number].settle(call.hold, data.draw(st.integers(0, 60)), 0)
        standing = world.clients[number].standing(world.clients[number].bucket(tokens, "a"))
        assert 0 <= standing.remaining <= 50


def test_a_hold_grows_from_what_is_leased_here_and_from_what_is_left_elsewhere() -> None:
    tokens = rule("tokens", 1000)
    world = World([tokens], 2)
    client, hold = world.clients[0], world.call(0, (tokens, "a", 100)).hold
    said: list[Denial | None] = []
    for amount in (50, 700):
        client.top_up(hold, ((client.bucket(tokens, "a"), amount),), said.append)
        world.pump()
    assert said == [None, None]
    assert [amount for _, amount in hold.charges] == [850]
    client.settle(hold, 840, 0)
    world.wait(0.2)
    assert world.call(1, (tokens, "a", 160)).admitted
    assert not world.call(1, (tokens, "a", 1)).admitted


def test_a_hold_does_not_grow_beyond_the_limit_and_says_what_is_left() -> None:
    tokens, money = rule("tokens", 1000, id="t"), rule("usd", 10, id="u")
    world = World([tokens, money], 2)
    client = world.clients[0]
    hold = world.call(0, (tokens, "a", 100), (money, "a", 5)).hold
    said: list[Denial | None] = []
    more = ((client.bucket(tokens, "a"), 100), (client.bucket(money, "a"), 6))
    client.top_up(hold, more, said.append)
    world.pump()
    (denial,) = said
    assert denial is not None and (denial.rule, denial.remaining) == (money, 5)
    assert [amount for _, amount in hold.charges] == [100, 5]
    client.settle(hold, 0, 0)
    world.pump()
    assert world.call(1, (tokens, "a", 1000), (money, "a", 10)).admitted


def test_what_comes_for_a_hold_that_is_settled_is_free_again() -> None:
    tokens = rule("tokens", 1000)
    world = World([tokens], 2)
    client, hold = world.clients[0], world.call(0, (tokens, "a", 100)).hold
    said: list[Denial | None] = []
    client.top_up(hold, ((client.bucket(tokens, "a"), 800),), said.append)
    client.settle(hold, 10, 0)
    world.pump()
    assert said == [None]
    world.wait(0.2)
    assert world.call(1, (tokens, "a", 990)).admitted


def test_a_hold_does_not_grow_while_nobody_answers() -> None:
    tokens = rule("tokens", 1000)
    world = World([tokens], 1)
    client, hold = world.clients[0], world.call(0, (tokens, "a", 100)).hold
    said: list[Denial | None] = []
    client.top_up(hold, ((client.bucket(tokens, "a"), 900),), said.append)
    world.clock.advance(leases.PATIENCE + 0.1)
    assert said[0] is not None and said[0].rule is tokens


def test_tokens_are_settled_by_side() -> None:
    rules = [rule(unit, 1000, id=unit) for unit in ("tokens", "input_tokens", "output_tokens")]
    world = World(rules, 2)
    hold = world.call(0, *((each, "a", 500) for each in rules)).hold
    world.clients[0].settle(hold, 70, 0, 50, 20)
    world.wait(0.2)
    for each, left in zip(rules, (930, 950, 980), strict=True):
        assert not world.call(1, (each, "a", left + 1)).admitted
        assert world.call(1, (each, "a", left)).admitted
