"""Limits over three appliances that share a Redis: exact, also while it is away and after it came back."""

from __future__ import annotations

import asyncio
import os
import signal
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.e2e.gateway import KEY, Gateway, unchecked
from tests.e2e.provider import Provider
from tests.e2e.raw import request
from tests.e2e.running import until
from tests.e2e.test_limits import CONFIG, asked, chat, exactly
from tests.servers import redis as servers

pytestmark = pytest.mark.skipif(servers.found() is None, reason="redis-server is not installed")

# A store that is there answers in time, also where the machine stands still for a moment.
STATE = '\n[state]\nshared = "{url}"\ntimeout = "1s"\n'


@pytest.fixture
def redis() -> Iterator[servers.Redis]:
    with servers.serving() as running:
        yield running


@contextmanager
def appliances(
    folder: Path, provider: Provider, url: str, amount: str, scope: str = "key", count: int = 3
) -> Iterator[list[Gateway]]:
    """So many of them, with two workers each and a key that they all know."""
    config = CONFIG.format(url=provider.url, scope=scope, amount=amount) + STATE.format(url=url)
    with ExitStack() as stack:
        made = [
            stack.enter_context(Gateway(folder / f"gw{n}", config, workers=2, ready=False))
            for n in range(count)
        ]
        for gateway in made:
            gateway.wait_ready()
        yield made


async def burst(
    gateways: list[Gateway], document: dict[str, object], count: int, patient: bool = True
) -> Counter[int]:
    """So many calls: all connections first, then all requests at once.

    `patient`: those whose limits could not be checked in time are made again.
    """
    ports = [gateways[n % len(gateways)].port for n in range(count)]
    streams = await asyncio.gather(*(asyncio.open_connection("127.0.0.1", port) for port in ports))
    for _, writer in streams:
        writer.write(request(document, KEY, Connection="close"))

    async def status(port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> int:
        answer = await reader.read()
        writer.close()
        await writer.wait_closed()
        found = int(answer[9:12])
        return await asked(port, document) if patient and unchecked(found, answer) else found

    answers = (status(port, *stream) for port, stream in zip(ports, streams, strict=True))
    return Counter(await asyncio.gather(*answers))


def metric(gateway: Gateway, name: str) -> float:
    """One number without labels."""
    for line in gateway.admin("/metrics")[1].splitlines():
        if line.startswith(f"{name} "):
            return float(line.split()[1])
    return -1.0


def test_a_burst_gets_exactly_the_limit_over_three_appliances(
    tmp_path: Path, provider: Provider, redis: servers.Redis
) -> None:
    config = 'requests = 100\nper = "1h"'
    for trial in range(3):
        redis.ask("FLUSHALL")
        with appliances(tmp_path / str(trial), provider, redis.url, config) as made:
            exactly(100, 300, lambda count, made=made: asyncio.run(burst(made, chat(), count)))  # type: ignore[misc]
            assert {metric(gateway, "penstock_shared_up") for gateway in made} == {1.0}


def test_while_redis_is_away_each_replica_has_its_part_and_on_return_the_books_agree(
    tmp_path: Path, provider: Provider, redis: servers.Redis
) -> None:
    with appliances(tmp_path, provider, redis.url, 'requests = 30\nper = "1h"') as made:
        until("all are there", lambda: all(metric(g, "penstock_shared_replicas") == 3 for g in made))
        assert asyncio.run(burst(made, chat(), 6)) == {200: 6}
        redis.kill()
        until("the loss is known", lambda: all(metric(g, "penstock_shared_up") == 0 for g in made))
        status, headers, _ = made[0].post(chat())
        assert (status, headers["x-penstock-reason"].split("limits:")[1]) == (200, "store_lost")
        away = asyncio.run(burst(made, chat(), 150))

        def all_is_given() -> bool:
            """One is given already, and some may have been refused too early: see `exactly`."""
            if away[200] < 3 * 10 - 1:
                away.update(asyncio.run(burst(made, chat(), 30)))
            return away[200] >= 3 * 10 - 1

        until("each gives its part", all_is_given)
        assert set(away) == {200, 429}
        # At most what was on lease, and a third of the limit each.
        assert away[200] <= 24 + 3 * 10
        redis.start()
        until("it is back", lambda: all(metric(g, "penstock_shared_up") == 1 for g in made))
        used = 7 + away[200]
        rest = asyncio.run(burst(made, chat(), 60))
        assert rest[200] == max(30 - used, 0) and rest[429] == 60 - rest[200]


@pytest.mark.parametrize(("policy", "expected"), [("closed", {503}), ("open", {200})])
def test_a_limit_may_be_closed_or_open_while_redis_is_away(
    tmp_path: Path, provider: Provider, redis: servers.Redis, policy: str, expected: set[int]
) -> None:
    amount = f'requests = 2\nper = "1h"\non_store_loss = "{policy}"'
    with appliances(tmp_path, provider, redis.url, amount, count=1) as made:
        assert [made[0].post(chat())[0] for _ in range(3)] == [200, 200, 429]
        redis.signal(signal.SIGSTOP)
        until("the loss is known", lambda: metric(made[0], "penstock_shared_up") == 0)
        statuses = asyncio.run(burst(made, chat(), 20, patient=False))
        assert set(statuses) == expected
        if policy == "closed":
            status, headers, body = made[0].post(chat(), patient=False)
            assert status == 503 and b"gateway_limits_unavailable" in body and "retry-after" in headers
        redis.signal(signal.SIGCONT)
        until("it is back", lambda: metric(made[0], "penstock_shared_up") == 1)
        assert asyncio.run(burst(made, chat(), 2)) == {429: 2}


def test_what_was_used_survives_a_restart_of_everything(
    tmp_path: Path, provider: Provider, redis: servers.Redis
) -> None:
    with appliances(tmp_path, provider, redis.url, 'requests = 20\nper = "1h"', count=2) as made:
        exactly(20 - 8, 12, lambda count: asyncio.run(burst(made, chat(), count)), more=8)
        for gateway in made:
            gateway.process.terminate()
        for gateway in made:
            gateway.wait()
        redis.kill()
        redis.start()
        for gateway in made:
            gateway.start()
        for gateway in made:
            gateway.wait_ready()
        exactly(8, 30, lambda count: asyncio.run(burst(made, chat(), count)))


def test_a_killed_replica_takes_nothing_along_for_long(
    tmp_path: Path, provider: Provider, redis: servers.Redis
) -> None:
    with appliances(tmp_path, provider, redis.url, 'requests = 20\nper = "1h"', count=2) as made:
        exactly(5, 5, lambda count: asyncio.run(burst(made[:1], chat(), count)), more=15)
        told = metric(made[0], "penstock_shared_trips_total") + 4
        until("its use is reported", lambda: metric(made[0], "penstock_shared_trips_total") >= told)
        os.killpg(made[0].process.pid, signal.SIGKILL)
        admitted = 0

        def all_found() -> bool:
            nonlocal admitted
            admitted += made[1].post(chat())[0] == 200
            return admitted >= 15

        until("its lease has ended", all_found)
        assert asyncio.run(burst(made[1:], chat(), 10)) == {429: 10}
