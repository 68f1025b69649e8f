"""The ledger against the provider's own record: a row for each call, to the micro-dollar."""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.gateway import KEY, PROVIDER_KEY, Gateway
from tests.e2e.provider import Provider
from tests.e2e.raw import request
from tests.e2e.running import until

CONFIG = """
[[keys]]
name = "load"
key = "env:CALLER_KEY"

[backends.main]
kind = "openai"
base_url = "{url}/v1"
api_key = "env:PROVIDER_KEY"

[models."*"]
targets = [ {{ backend = "main" }} ]

[prices."priced*"]
input = 2.5
cached_input = 1.25
output = 10.0

[[limits]]
scope = "key"
tokens = 1_000_000_000
per = "1h"
"""


@pytest.fixture
def recording(tmp_path: Path) -> Iterator[Provider]:
    with Provider(tmp_path, PROVIDER_KEY) as running:
        yield running


class Client:
    """Sends calls, some of which it leaves; remembers what came back whole, by its mark."""

    def __init__(self, gateway: Gateway, seed: int) -> None:
        self._gateway = gateway
        self._random = random.Random(seed)
        self._numbers = itertools.count()
        self._name = f"c{seed}"
        self.whole: set[str] = set()

    async def run(self, calls: int) -> None:
        for _ in range(calls):
            await self.once()

    async def once(self) -> None:
        """One call on a connection of its own."""
        mark = f"{self._name}-{next(self._numbers)}"
        stream = self._random.random() < 0.5
        leaves = self._random.random() < 0.1
        kind = "priced-slow" if leaves or self._random.random() < 0.3 else "priced"
        document: dict[str, Any] = {
            "model": f"{kind}-{mark}",  # the one thing that ledger and provider both know of every call
            "messages": [{"role": "user", "content": "x" * self._random.randrange(900)}],
            "stream": stream,
        }
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", self._gateway.port)
        except OSError:
            return
        try:
            writer.write(request(document, KEY, Connection="close"))
            if leaves:
                await asyncio.wait_for(reader.read(1 + self._random.randrange(3000)), 0.02)
                return
            answer = await reader.read()
            end = b"0\r\n\r\n" if b"chunked" in answer[:2000].lower() else b"}"
            told = b'"upstream_' in answer or b'"gateway_' in answer
            if answer.startswith(b"HTTP/1.1 200") and answer.endswith(end) and not told:
                self.whole.add(document["model"])
        except (OSError, TimeoutError):
            pass
        finally:
            writer.transport.abort()


def cost(usage: dict[str, int]) -> int:
    """Micro-dollars of a usage at CONFIG's prices, rounded half up."""
    quarter = usage["input"] * 10 + usage["cached_input"] * 5 + (usage["output"] + usage["reasoning"]) * 40
    return (quarter + 2) // 4


def compare(gateway: Gateway, provider: Provider, clients: list[Client]) -> Counter[str]:
    """Hold the ledger against both sides; the outcomes there were."""
    arrived = {one.model: one for one in provider.journal()}
    until("every call has its row", lambda: arrived.keys() <= {row["model"] for row in gateway.rows()})
    rows = gateway.rows()
    assert [name for name, number in Counter(row["model"] for row in rows).items() if number > 1] == []
    by_model = {row["model"]: row for row in rows}
    for name in set().union(*(client.whole for client in clients)):
        row, truth = by_model[name], arrived[name]
        assert row["outcome"] == "ok", row
        assert row["usage_source"] == "provider"
        assert {kind: row[kind] for kind in truth.usage} == truth.usage
        assert row["cost_micros"] == cost(truth.usage)
    for row in rows:
        if row["outcome"] == "abandoned":
            assert row["hold_tokens"] > 0
    return Counter(row["outcome"] for row in rows)


def test_under_load_with_clients_that_leave_the_ledger_is_the_providers_record(
    tmp_path: Path, recording: Provider
) -> None:
    recording.spoil("interval=0.005", model="priced-slow*")
    with Gateway(tmp_path / "gw", CONFIG.format(url=recording.url), workers=2) as gateway:
        clients = [Client(gateway, seed) for seed in range(12)]
        asyncio.run(_all(clients, 25))
        outcomes = compare(gateway, recording, clients)
        assert outcomes["abandoned"] == 0
        assert outcomes["ok"] >= sum(len(client.whole) for client in clients) > 200
        assert outcomes["client_gone"] > 0


async def _all(clients: list[Client], calls: int) -> None:
    await asyncio.gather(*(client.run(calls) for client in clients))


def test_killed_workers_lose_no_row_and_double_none(tmp_path: Path, recording: Provider) -> None:
    recording.spoil("interval=0.005", model="priced-slow*")
    with Gateway(tmp_path / "gw", CONFIG.format(url=recording.url), workers=2) as gateway:
        clients = [Client(gateway, seed) for seed in range(10)]

        async def killer(running: asyncio.Task[None]) -> int:
            kills = 0
            while not running.done() and kills < 4:
                done_before = sum(len(client.whole) for client in clients)
                while sum(len(client.whole) for client in clients) < done_before + 25 and not running.done():
                    await asyncio.sleep(0.01)
                if pids := gateway.worker_pids():
                    os.kill(pids[kills % len(pids)], signal.SIGKILL)
                    kills += 1
            return kills

        async def scenario() -> int:
            running = asyncio.create_task(_all(clients, 30))
            kills = await killer(running)
            await running
            return kills

        assert asyncio.run(scenario()) >= 3
        outcomes = compare(gateway, recording, clients)
        assert outcomes["abandoned"] > 0
        until("both workers are back", lambda: gateway.ready() and len(gateway.worker_pids()) == 2)


def test_a_killed_supervisor_loses_no_row_and_doubles_none(tmp_path: Path, recording: Provider) -> None:
    recording.spoil("interval=0.005", model="priced-slow*")
    with Gateway(tmp_path / "gw", CONFIG.format(url=recording.url), workers=2) as gateway:
        clients = [Client(gateway, seed) for seed in range(10)]

        async def scenario() -> None:
            running = asyncio.create_task(_all(clients, 20))
            while sum(len(client.whole) for client in clients) < 60:
                await asyncio.sleep(0.01)
            workers = gateway.worker_pids()
            gateway.signal(signal.SIGKILL)
            gateway.wait()
            await asyncio.gather(*(asyncio.to_thread(_gone, pid) for pid in workers))
            gateway.start()
            await asyncio.to_thread(gateway.wait_ready)
            await running

        asyncio.run(scenario())
        outcomes = compare(gateway, recording, clients)
        assert outcomes["ok"] > 60


def _gone(pid: int) -> None:
    """Wait until a worker that lost its supervisor has drained and ended."""
    until(f"worker {pid} ends", lambda: not Path(f"/proc/{pid}").exists())


def test_usage_is_shown_by_key_model_and_day(tmp_path: Path, recording: Provider) -> None:
    with Gateway(tmp_path / "gw", CONFIG.format(url=recording.url)) as gateway:
        for _ in range(3):
            status, headers, _ = gateway.post({"model": "priced", "messages": []})
            assert status == 200
        gateway.row(headers["x-request-id"])
        spent = sum(cost(one.usage) for one in recording.journal())
        until("three rows", lambda: len(gateway.rows()) == 3)
        assert sum(row["cost_micros"] for row in gateway.rows()) == spent
        shown = gateway.command("usage", "--json")
        assert "priced" in shown or "load" in shown
        assert "load" in gateway.command("usage")
