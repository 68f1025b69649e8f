"""Limits over replicas: `python -m bench.limits_shared [burst trips]`. Needs redis-server (or valkey-server).

burst   50 times 300 calls at a limit of 100, all requests at once: three appliances of two workers around
        one Redis, then one appliance of four workers without.
trips   2,000 calls a second under six limits, steadily: round trips to Redis per call, how long an ask of the
        shared store takes, and how often a call had to wait for one. The calls are made by the workers' own
        lease clients in one process per replica, without HTTP: two cores do not serve so many calls beside
        their clients.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from gateway.core.limit import LimitRule

TRIALS, CALLS, LIMIT = 50, 300, 100
RATE, SECONDS, REPLICAS, WORKERS = 2000, 20.0, 3, 2
KEY = "sk-bench-0000"
_BEHIND = 50  # calls that are made up for at once
_CONFIG = """
[server]
listen = "127.0.0.1:{port}"
admin = "127.0.0.1:{admin}"
workers = {workers}
data_dir = "data"
[state]
shared = "{shared}"
[observe]
calls = "off"
level = "warning"
[backends.echo]
kind = "echo"
[models."*"]
targets = [ {{ backend = "echo" }} ]
{keys}
[[limits]]
scope = "key"
requests = {limit}
per = "1h"
"""


def main() -> None:
    """Run what was asked for, or all of it."""
    parts = {"burst": burst, "trips": trips}
    parser = argparse.ArgumentParser(prog="python -m bench.limits_shared", description=__doc__)
    parser.add_argument("part", nargs="*", choices=[*parts, "all"], default="all")
    chosen = parser.parse_args().part
    for name in parts if "all" in chosen else chosen:
        parts[name]()


# -- bursts ------------------------------------------------------------------------------------


def burst() -> None:
    """Exact trials of all, for both ways to run."""
    with redis_server() as url, tempfile.TemporaryDirectory() as folder:
        shared = Path(folder) / "shared"
        show("3 replicas x 2 workers, Redis", asyncio.run(bursts(shared, [2, 2, 2], url)))
        show("1 replica x 4 workers, memory", asyncio.run(bursts(Path(folder) / "alone", [4], "memory")))


def show(what: str, admitted: list[int]) -> None:
    """One line of the table."""
    exact = admitted.count(LIMIT)
    others = sorted(set(admitted) - {LIMIT})
    print(
        f"burst   {what:32} {exact}/{len(admitted)} exact" + (f", others {others}" if others else ""),
        flush=True,
    )


async def bursts(folder: Path, workers: list[int], shared: str) -> list[int]:
    """How many calls were let through, trial by trial; each trial has a key of its own."""
    keys = "".join(f'[[keys]]\nname = "k{n}"\nkey = "{KEY}-{n}"\n' for n in range(TRIALS))
    with ExitStack() as stack:
        ports = [
            stack.enter_context(appliance(folder / str(n), count, shared, keys))
            for n, count in enumerate(workers)
        ]
        await asyncio.gather(*(ready(admin) for _, admin in ports))
        return [await trial([port for port, _ in ports], f"{KEY}-{n}") for n in range(TRIALS)]


async def trial(ports: list[int], key: str) -> int:
    """All connections first, then all requests at once."""
    body = b'{"model":"m","messages":[{"role":"user","content":"hi"}]}'
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\n"
    head += f"content-type: application/json\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
    streams = await asyncio.gather(
        *(asyncio.open_connection("127.0.0.1", ports[n % len(ports)]) for n in range(CALLS))
    )
    for _, writer in streams:
        writer.write(head.encode() + body)

    async def status(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        answer = await reader.read()
        writer.close()
        return answer[9:12]

    found = await asyncio.gather(*(status(*stream) for stream in streams))
    strange = set(found) - {b"200", b"429"}
    assert not strange, strange
    return found.count(b"200")


@contextmanager
def appliance(folder: Path, workers: int, shared: str, keys: str) -> Iterator[tuple[int, int]]:
    """`penstock serve` on two free ports."""
    from bench.process import free_port

    folder.mkdir(parents=True)
    port, admin = free_port(), free_port()
    config = folder / "gateway.toml"
    config.write_text(
        _CONFIG.format(port=port, admin=admin, workers=workers, shared=shared, keys=keys, limit=LIMIT)
    )
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "gateway", "serve", "-c", str(config)],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
    try:
        yield port, admin
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


async def ready(admin: int) -> None:
    """Wait until an appliance accepts calls."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", admin)
            writer.write(b"GET /readyz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
            answer = await reader.read()
            writer.close()
            if answer.startswith(b"HTTP/1.1 200"):
                return
        except OSError:
            pass
        await asyncio.sleep(0.1)
    raise RuntimeError("an appliance did not get ready")


# -- round trips -------------------------------------------------------------------------------

RULES = (
    LimitRule("global.requests", ("global",), "requests", 1_000_000, 60.0),
    LimitRule("tenant.usd", ("tenant",), "usd", 1_000_000_000, calendar="month"),
    LimitRule("tenant.tokens", ("tenant",), "tokens", 100_000_000, 60.0),
    LimitRule("team.requests", ("team",), "requests", 500_000, 60.0),
    LimitRule("key.requests", ("key",), "requests", 200_000, 60.0, burst=5000),
    LimitRule("model.concurrent", ("model",), "concurrent", 5_000),
)


def trips() -> None:
    """Steady load: what it costs at Redis."""
    with redis_server() as url, tempfile.TemporaryDirectory() as folder:
        queue: Any = multiprocessing.Queue()
        jobs = [
            multiprocessing.Process(target=replica, args=(url, f"{folder}/{n}", f"r{n}", queue))
            for n in range(REPLICAS)
        ]
        for job in jobs:
            job.start()
        found = [json.loads(queue.get(timeout=SECONDS + 60)) for _ in jobs]
        for job in jobs:
            job.join()
    calls, count = sum(f["calls"] for f in found), sum(f["trips"] for f in found)
    asks = sorted(ask for f in found for ask in f["asks"])
    waits = sorted(wait for f in found for wait in f["waits"])
    rate = calls / statistics.mean(f["seconds"] for f in found)
    print(
        f"trips   {rate:,.0f} calls/s over {REPLICAS} replicas, {len(RULES)} buckets each, simulated workers"
    )
    print(f"trips   round trips per call             {count / calls:.4f}   (target ≤ 0.05)")
    print(f"trips   an ask of Redis                  p50 {at(asks, 50):.2f} ms   p99 {at(asks, 99):.2f} ms")
    share = len(waits) / calls
    waited = f"p50 {at(waits, 50):.2f} ms   p99 {at(waits, 99):.2f} ms"
    print(f"trips   calls that waited for an answer  {share:.2%}   {waited}")
    print(f"trips   refused                          {sum(f['refused'] for f in found)}", flush=True)


def at(ordered: list[float], percent: int) -> float:
    """A percentile, in milliseconds."""
    return ordered[min(len(ordered) * percent // 100, len(ordered) - 1)] * 1000 if ordered else 0.0


def replica(url: str, folder: str, name: str, queue: Any) -> None:
    """A process of one replica: its supervisor's part, and its workers' lease clients."""
    queue.put(json.dumps(asyncio.run(_replica(url, Path(folder), name))))


async def _replica(url: str, folder: Path, name: str) -> dict[str, Any]:
    from tests.supervisor.replicas import Replica

    here = Replica(url, folder, RULES, name, workers=WORKERS, timeout=0.075)
    await here.open()
    asks: list[float] = []
    exchange = here.sharing._leases.exchange

    async def timed(*given: Any) -> Any:
        began = time.perf_counter()
        answer = await exchange(*given)
        asks.append(time.perf_counter() - began)
        return answer

    await load(here, 2.0)  # leases find their size
    here.sharing._leases.exchange = timed  # type: ignore[method-assign]
    before, began = here.trips, time.monotonic()
    calls, refused, waits = await load(here, SECONDS)
    taken = time.monotonic() - began
    found = {"calls": calls, "trips": here.trips - before, "refused": refused, "waits": waits}
    await here.close()
    return {**found, "asks": asks, "seconds": taken}


async def load(here: Any, seconds: float) -> tuple[int, int, list[float]]:
    """Calls at an even rate, 20 ms each: how many, how many were refused, how long some waited."""
    from gateway.core.hold import Hold

    values = {"global": "", "tenant": "acme", "team": "search", "key": "key_1", "model": "gpt"}
    amounts = {"requests": 1, "concurrent": 1, "tokens": 400, "usd": 900}
    charges = [
        tuple((worker.bucket(rule, values[rule.scope[0]]), amounts[rule.unit]) for rule in RULES)
        for worker in here.workers
    ]
    waits: list[float] = []
    running: set[asyncio.Task[None]] = set()
    calls = missed = refused = 0
    loop = asyncio.get_running_loop()

    async def waiting(number: int) -> None:
        nonlocal refused
        began = time.perf_counter()
        taken = await here.take(number, *[(b.rule, b.value, amount) for b, amount in charges[number]])
        waits.append(time.perf_counter() - began)
        if isinstance(taken, Hold):
            loop.call_later(0.02, here.workers[number].settle, taken, 250, 500)
        else:
            refused += 1

    began = time.monotonic()
    while (now := time.monotonic() - began) < seconds:
        due = int(now * RATE / REPLICAS)
        missed = max(missed, due - calls - _BEHIND)  # this process got no time: those calls were never made
        while calls + missed < due:
            number = calls % len(here.workers)
            calls += 1
            taken = here.workers[number].try_take(charges[number], 400, 900)
            if isinstance(taken, Hold):
                loop.call_later(0.02, here.workers[number].settle, taken, 250, 500)
            elif taken is None:
                running.add(task := asyncio.create_task(waiting(number)))
                task.add_done_callback(running.discard)
            else:
                refused += 1
        await asyncio.sleep(0.001)
    await asyncio.gather(*running)
    await asyncio.sleep(0.05)
    return calls, refused, waits


@contextmanager
def redis_server() -> Iterator[str]:
    """A Redis of our own."""
    from tests.servers import redis as servers

    with servers.serving() as server:
        yield server.url


if __name__ == "__main__":
    main()
