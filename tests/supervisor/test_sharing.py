"""Replicas around a real Redis: exact, whatever becomes of it and of them."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.core.errors import FaultError
from gateway.core.hold import Hold
from gateway.core.limit import Denial, Raise, Spent
from gateway.stores.redis.leases import Met
from tests.link.world import rule
from tests.servers import redis as servers
from tests.supervisor.replicas import Replica, admitted, burst, replicas, until

pytestmark = [
    pytest.mark.skipif(servers.found() is None, reason="redis-server is not installed"),
    pytest.mark.usefixtures("unhurried"),
]

HUNDRED = rule(amount=100, seconds=3600.0)
TOKENS = rule("tokens", 1000, 3600.0)
PLACES = rule("concurrent", 9)


@pytest.fixture(scope="module")
def running() -> Iterator[servers.Redis]:
    with servers.serving() as server:
        yield server


@pytest.fixture
def redis(running: servers.Redis) -> servers.Redis:
    if running.process is None:
        running.start()
    running.signal(signal.SIGCONT)
    running.ask("FLUSHALL")
    return running


async def stopped(redis: servers.Redis, made: list[Replica]) -> None:
    """The store stops to answer, and all know that."""
    for replica in made:
        replica.patience(0.3)
    redis.signal(signal.SIGSTOP)
    await until(lambda: all(replica.lost for replica in made))


async def continued(redis: servers.Redis, made: list[Replica]) -> None:
    """It answers again, and all know that."""
    for replica in made:
        replica.patience(20.0)
    redis.signal(signal.SIGCONT)
    await until(lambda: not any(replica.lost for replica in made))


def run(scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(scenario())


def test_a_burst_over_three_replicas_gets_exactly_the_limit(redis: servers.Redis, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with replicas(redis.url, tmp_path, [HUNDRED]) as made:
            for trial in range(10):
                outcomes = await burst(made, HUNDRED, 300, f"v{trial}")
                assert admitted(outcomes) == 100
                assert all(isinstance(outcome, Hold | Denial) for outcome in outcomes)
                assert all(o.remaining == 0 for o in outcomes if isinstance(o, Denial))

    run(scenario)


def test_places_are_exact_over_replicas_and_move_between_them(redis: servers.Redis, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with replicas(redis.url, tmp_path, [PLACES]) as made:
            outcomes = await burst(made, PLACES, 60)
            inside = [(n, o) for n, o in enumerate(outcomes) if isinstance(o, Hold)]
            assert len(inside) == 9
            for n, hold in inside:
                made[n % 3].settle(n // 3 % 2, hold)
            for _ in range(9):
                await until_taken(made[1], (PLACES, "a", 1))
            assert not isinstance(await made[0].take(0, (PLACES, "a", 1)), Hold)

    run(scenario)


def test_tokens_are_held_as_estimated_and_charged_as_used(redis: servers.Redis, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with replicas(redis.url, tmp_path, [TOKENS]) as made:
            outcomes = await burst(made, TOKENS, 30, amount=100)
            assert admitted(outcomes) == 10
            for n, outcome in enumerate(outcomes):
                if isinstance(outcome, Hold):
                    made[n % 3].settle(n // 3 % 2, outcome, 40)
            assert admitted([await made[0].take(1, (TOKENS, "a", 100)) for _ in range(12)]) == 6

    run(scenario)


def test_a_call_takes_from_all_its_buckets_or_from_none(redis: servers.Redis, tmp_path: Path) -> None:
    few, many = rule(amount=5, id="few"), rule(amount=50, id="many")

    async def scenario() -> None:
        async with replicas(redis.url, tmp_path, [few, many]) as made:
            takes = [made[n % 3].take(0, (many, "a", 1), (few, "a", 1)) for n in range(30)]
            outcomes = await asyncio.gather(*takes)
            assert admitted(outcomes) == 5
            assert {o.rule.id for o in outcomes if isinstance(o, Denial)} == {"few"}
            assert admitted(await burst(made, many, 60)) == 45

    run(scenario)


def test_two_replicas_that_each_hold_what_the_other_needs_do_not_both_fail(
    redis: servers.Redis, tmp_path: Path
) -> None:
    left, right = rule("concurrent", 1, id="left"), rule("concurrent", 1, id="right")

    async def scenario() -> None:
        async with replicas(redis.url, tmp_path, [left, right], 2) as made:
            for _ in range(5):
                for replica, one in zip(made, (left, right), strict=True):
                    # What another has just settled may be on its way.
                    replica.settle(0, await sooner_or_later(replica, (one, "a", 1)))
                takes = [replica.take(0, (left, "a", 1), (right, "a", 1)) for replica in made]
                outcomes = await asyncio.gather(*takes)
                assert admitted(outcomes) == 1
                for replica, outcome in zip(made, outcomes, strict=True):
                    if isinstance(outcome, Hold):
                        replica.settle(0, outcome)

    run(scenario)


@pytest.mark.parametrize(
    "limit",
    [
        rule(amount=20, burst=6, seconds=3600.0),  # one in three minutes: none comes back while they ask
        rule(amount=20, calendar="month", zone="Europe/Berlin"),
        rule(amount=20),
    ],
    ids=["burst", "calendar", "rolling"],
)
def test_every_kind_of_window_is_kept_there(redis: servers.Redis, tmp_path: Path, limit: Any) -> None:
    async def scenario() -> None:
        async with replicas(redis.url, tmp_path, [limit]) as made:
            outcomes = await burst(made, limit, 60)
            assert admitted(outcomes) == (limit.burst or 20)
            denial = next(o for o in outcomes if isinstance(o, Denial))
            longest = 181 if limit.burst else 62 if limit.seconds else 31 * 86_400 + 3600
            assert 0 < denial.retry_after <= longest

    run(scenario)


def test_a_burst_flows_back_when_the_refusal_said(redis: servers.Redis, tmp_path: Path) -> None:
    flowing = rule(amount=300, burst=3)  # one every 0.2 s

    async def scenario() -> None:
        async with replicas(redis.url, tmp_path, [flowing], 2) as made:
            began = time.monotonic()
            count = admitted(await burst(made, flowing, 10))
            assert 3 <= count <= 3 + (time.monotonic() - began) / 0.2
            while count < 8:
                outcome = await made[count % 2].take(0, (flowing, "a", 1))
                if isinstance(outcome, Hold):
                    count += 1
                else:
                    await asyncio.sleep(min(outcome.retry_after, 0.05))  # type: ignore[union-attr]
            assert time.monotonic() - began >= 5 * 0.2 - 0.05

    run(scenario)


def test_replicas_with_clocks_far_apart_still_share_a_window(
    redis: servers.Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A calendar minute of the server's clock: the replicas' own are five minutes fast and slow."""
    minute = rule(amount=30, calendar="minute")
    from gateway.stores.leases import upstream

    async def scenario() -> None:
        made = []
        for n, skew in enumerate((-300.0, 0.0, 300.0)):
            real = upstream.Upstream.__init__.__defaults__
            monkeypatch.setattr(
                upstream.Upstream.__init__, "__defaults__", (lambda skew=skew: time.time() + skew,)
            )
            made.append(Replica(redis.url, tmp_path / str(n), [minute], f"r{n}"))
            monkeypatch.setattr(upstream.Upstream.__init__, "__defaults__", real)
        await asyncio.gather(*(replica.open() for replica in made))
        while time.time() % 60 > 45:  # not over the edge
            await asyncio.sleep(0.5)
        assert admitted(await burst(made, minute, 90)) == 30
        for replica in made:
            assert abs(replica.sharing._authority.upstream.wall() - time.time()) < 5
        await asyncio.gather(*(replica.close() for replica in made))

    run(scenario)


# -- the store goes and comes


def test_without_redis_each_replica_has_its_lease_and_its_part(redis: servers.Redis, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with replicas(redis.url, tmp_path, [HUNDRED]) as made:
            await until(lambda: all(r.sharing._upstream.replicas == 3 for r in made))
            assert admitted(await burst(made, HUNDRED, 9)) == 9
            leased = sum(worker.bucket(HUNDRED, "a").free for r in made for worker in r.workers)
            redis.kill()
            await until(lambda: all(replica.lost for replica in made))
            spare = sum(r.sharing._authority.account(HUNDRED.id, "a").left for r in made)
            assert 99 <= leased + spare <= 99 + 91
            away = admitted(await burst(made, HUNDRED, 400))
            assert 99 <= away <= 99 + 91
            assert all(worker.degraded for replica in made for worker in replica.workers)
            redis.start()
            await until(lambda: not any(replica.lost for replica in made))
            await until(lambda: not any(worker.degraded for replica in made for worker in replica.workers))
            assert admitted(await burst(made, HUNDRED, 60)) == max(100 - 9 - away, 0)
            assert [w.told for w in (r.watch for r in made)] != [[], [], []]

    run(scenario)


@pytest.mark.parametrize("policy", ["closed", "open"])
def test_without_redis_a_limit_is_closed_or_open_as_it_says(
    redis: servers.Redis, tmp_path: Path, policy: str
) -> None:
    two = rule(amount=2, seconds=3600.0, on_store_loss=policy)

    async def scenario() -> None:
        async with replicas(redis.url, tmp_path, [two], 1) as (only,):
            assert admitted([await only.take(0, (two, "a", 1)) for _ in range(3)]) == 2
            await stopped(redis, [only])
            outcomes = [await only.take(0, (two, "a", 1)) for _ in range(5)]
            await continued(redis, [only])
            if policy == "closed":
                assert {(type(o), getattr(o, "status", 0)) for o in outcomes} == {(FaultError, 503)}
            else:
                assert admitted(outcomes) == 5
                await until(lambda: only.watch.passed == {two.id: 5})
            assert admitted([await only.take(0, (two, "a", 1)) for _ in range(3)]) == 0

    run(scenario)


def test_what_was_used_is_told_to_a_store_that_was_emptied(redis: servers.Redis, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with replicas(redis.url, tmp_path, [HUNDRED]) as made:
            assert admitted(await burst(made, HUNDRED, 60)) == 60
            redis.ask("FLUSHALL")
            await until(lambda: all(len(r.watch.stood) > 1 and False in r.watch.stood for r in made))
            await until(lambda: not any(replica.lost for replica in made))
            assert admitted(await burst(made, HUNDRED, 90)) == 40

    run(scenario)


def test_what_the_store_still_knows_is_not_told_twice(redis: servers.Redis, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with replicas(redis.url, tmp_path, [HUNDRED], 2) as made:
            for _ in range(3):
                assert admitted(await burst(made, HUNDRED, 20)) == 20
                await stopped(redis, made)
                await continued(redis, made)
            assert admitted(await burst(made, HUNDRED, 90)) == 40

    run(scenario)


def test_a_store_that_was_never_there_gives_each_replica_its_part_of_what_it_last_saw(tmp_path: Path) -> None:
    async def scenario() -> None:
        folder = tmp_path / "r"
        folder.mkdir()
        (folder / "replicas").write_text("4\n")
        alone = Replica(f"redis://127.0.0.1:{servers.free_port()}/0", folder, [HUNDRED], "r", timeout=0.2)
        await alone.open(joined=False)
        outcomes = [await alone.take(n % 2, (HUNDRED, "a", 1)) for n in range(60)]
        assert admitted(outcomes) == 25
        assert all(isinstance(outcome, Hold | Denial) for outcome in outcomes)
        await alone.close()

    run(scenario)


def test_a_store_that_comes_back_empty_leaves_each_replica_its_part_until_all_have_greeted_it(
    redis: servers.Redis, tmp_path: Path
) -> None:
    seen: list[int] = []

    def watched(replica: Replica) -> None:
        meet = replica.sharing._meet

        def meeting(met: Met) -> bool:
            new = meet(met)
            seen.append(
                min(replica.sharing._upstream.replicas, int((replica.folder / "replicas").read_text()))
            )
            return new

        replica.sharing._meet = meeting  # type: ignore[method-assign]

    async def scenario() -> None:
        async with replicas(redis.url, tmp_path, [HUNDRED], timeout=0.3) as made:
            await until(lambda: all(r.sharing._upstream.replicas == 3 for r in made))
            redis.kill()
            await until(lambda: all(replica.lost for replica in made))
            for replica in made:
                watched(replica)
            redis.start()
            await until(lambda: not any(replica.lost for replica in made))
            assert set(seen) == {3}

    run(scenario)


def test_replicas_that_are_gone_are_forgotten_once_the_store_has_been_joined_for_a_while(
    tmp_path: Path,
) -> None:
    (tmp_path / "replicas").write_text("3\n")
    alone = Replica("redis://127.0.0.1:1/0", tmp_path, [HUNDRED], "r")
    sharing = alone.sharing

    def met(replicas: int, grace: float) -> tuple[int, str]:
        sharing._meet(Met(1000.0, replicas, grace, grace > 0))
        return sharing._upstream.replicas, (tmp_path / "replicas").read_text()

    assert met(1, 1.5) == (3, "3\n")
    assert met(4, 1.0) == (4, "4\n")
    assert met(2, 0.0) == (4, "4\n")  # of the others some have not tried again yet
    sharing._joined.set()
    assert met(2, 0.5) == (4, "4\n")
    assert met(2, 0.0) == (2, "2\n")
    assert [path.name for path in tmp_path.iterdir()] == ["replicas"]


# -- replicas go and come


def test_what_a_replica_that_ends_had_on_lease_is_there_for_others_at_once(
    redis: servers.Redis, tmp_path: Path
) -> None:
    async def scenario() -> None:
        async with replicas(redis.url, tmp_path, [TOKENS], 1) as (stays,):
            leaves = Replica(redis.url, tmp_path / "leaves", [TOKENS], "leaves")
            await leaves.open()
            hold = await leaves.take(0, (TOKENS, "a", 900))
            assert isinstance(hold, Hold)
            assert not isinstance(await stays.take(0, (TOKENS, "a", 500)), Hold)
            leaves.settle(0, hold, 0)
            await leaves.close()
            await until_taken(stays, (TOKENS, "a", 1000))

    run(scenario)


async def until_taken(replica: Replica, charge: Any, seconds: float = 30.0) -> float:
    """When it could be taken, in seconds from now."""
    began = time.monotonic()
    await sooner_or_later(replica, charge, seconds)
    return time.monotonic() - began


def test_a_dead_replicas_lease_comes_back_by_itself(
    redis: servers.Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.supervisor.sharing.LEASE", 6.0)
    for name in ("desk", "upstream"):  # the dead one does not hand back anything
        monkeypatch.setattr(f"gateway.stores.leases.{name}.WAIT", 0.4)

    async def scenario() -> None:
        async with replicas(redis.url, tmp_path, [TOKENS], 1) as (stays,):
            dies = Replica(redis.url, tmp_path / "dies", [TOKENS], "dies")
            await dies.open()
            assert isinstance(await dies.take(0, (TOKENS, "a", 900)), Hold)
            await dies.kill()
            assert not isinstance(await stays.take(0, (TOKENS, "a", 500)), Hold)
            assert await until_taken(stays, (TOKENS, "a", 1000)) > 0.1

    run(scenario)


def test_a_replica_that_starts_again_tells_what_its_last_life_used(
    redis: servers.Redis, tmp_path: Path
) -> None:
    async def scenario() -> None:
        first = Replica(redis.url, tmp_path / "r", [TOKENS], "r")
        await first.open()
        hold = await first.take(0, (TOKENS, "a", 700))
        assert isinstance(hold, Hold)
        await first.kill()  # with 300 of it used, as the journal knows
        again = Replica(redis.url, tmp_path / "r", [TOKENS], "r")
        again.books.rows = [Spent("a", int(time.time() * 1000), 1, 300, 0)]
        await again.open()
        await until_taken(again, (TOKENS, "a", 700), 8.0)
        assert not isinstance(await again.take(1, (TOKENS, "a", 1)), Hold)
        await again.close()

    run(scenario)


# -- rules


def test_raises_and_lowered_limits_hold_over_replicas(redis: servers.Redis, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with replicas(redis.url, tmp_path, [HUNDRED], 2) as made:
            for replica in made:
                replica.limits.replace_raises([Raise("r", HUNDRED.id, 20, time.time() + 60)])
            assert admitted(await burst(made, HUNDRED, 150)) == 120
            lower = rule(amount=50, seconds=3600.0)
            for replica in made:
                replica.limits.replace_raises([])
                await replica.limits.replace_rules([lower])
            assert admitted(await burst(made, lower, 20)) == 0
            higher = rule(amount=130, seconds=3600.0)
            for replica in made:
                await replica.limits.replace_rules([higher])
            assert admitted(await burst(made, higher, 40)) == 10

    run(scenario)


def test_one_replica_alone_tells_of_a_limit_that_is_nearly_used_up(
    redis: servers.Redis, tmp_path: Path
) -> None:
    async def scenario() -> None:
        async with replicas(redis.url, tmp_path, [HUNDRED]) as made:
            await burst(made, HUNDRED, 150)
            await until(lambda: sum(len(replica.watch.told) for replica in made) >= 2)
            told = sorted(kind for replica in made for kind, *_ in replica.watch.told)
            assert told == ["limit.near", "limit.reached"]

    run(scenario)


def test_nothing_is_kept_of_what_is_no_longer_counted(redis: servers.Redis, tmp_path: Path) -> None:
    short = rule(amount=50, seconds=1.0)

    async def scenario() -> None:
        async with replicas(redis.url, tmp_path, [short], 1) as (only,):
            for n in range(20):
                assert isinstance(await only.take(0, (short, f"v{n}", 1)), Hold)
            assert redis.ask("EVAL", "return #redis.call('keys', '*:l:*')", "0").startswith(":20")
            ttl = redis.ask("EVAL", "return redis.call('pttl', redis.call('keys', '*:l:*')[1])", "0")
            assert 0 < int(ttl[1:]) <= 75_000

    run(scenario)


async def sooner_or_later(replica: Replica, charge: Any, seconds: float = 30.0) -> Hold:
    """The hold, once it can be had."""
    began = time.monotonic()
    while not isinstance(outcome := await replica.take(0, charge), Hold):
        assert time.monotonic() - began < seconds
        await asyncio.sleep(0.02)
    return outcome
