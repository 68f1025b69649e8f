"""Mixed traffic for a while, and whether anything grows: memory, calls under way, file descriptors.

    python -m bench.soak --minutes 10 --workers 2

Half of the calls stream; one in twenty is left by its client at a moment of chance. A line of samples is
printed every few seconds; at the end the slopes after the warm-up (the first quarter), by least squares.
Exits with 1 where a call failed that was not left, or where memory grew by more than 1 MB an hour and 5 %.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import re
import sys
import tempfile
import time
import urllib.request
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import uvloop

from bench import latency, load, streams
from bench.gateway import KEY, gateway, workers_of
from bench.process import Server, anonymous, descriptors, rss


@dataclass(slots=True)
class Tally:
    """What the clients saw."""

    whole: int = 0
    left: int = 0
    failed: int = 0
    faults: dict[str, int] = field(default_factory=dict)

    def fail(self, why: str) -> None:
        """Count a failure by its reason."""
        self.failed += 1
        self.faults[why] = self.faults.get(why, 0) + 1


async def client(port: int, end: float, chance: random.Random, tally: Tally) -> None:
    """Calls one after the other, until `end` (monotonic)."""
    while time.monotonic() < end:
        size = chance.choice((300, 700, 700, 3000, 40_000))
        body = load.chat_body(size, stream=chance.random() < 0.5)
        leaves = chance.random() < 0.05
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(latency.request_bytes(body, KEY))
            if leaves:
                await _leave(reader, chance)
                tally.left += 1
            else:
                await _take(reader, tally)
            writer.transport.abort()
        except (OSError, asyncio.IncompleteReadError) as fault:
            tally.fail(type(fault).__name__)


async def _leave(reader: asyncio.StreamReader, chance: random.Random) -> None:
    try:
        await asyncio.wait_for(reader.readexactly(1 + chance.randrange(4000)), chance.random() * 0.3)
    except (TimeoutError, asyncio.IncompleteReadError):
        pass


async def _take(reader: asyncio.StreamReader, tally: Tally) -> None:
    head = await reader.readuntil(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 200"):
        tally.fail(head[9:12].decode())
        return
    if b"chunked" in head.lower():
        tail = await reader.readuntil(b"0\r\n\r\n")
        ended = b"[DONE]" in tail
    else:
        length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
        ended = len(await reader.readexactly(length)) == length
    if ended:
        tally.whole += 1
    else:
        tally.fail("cut short")


@dataclass(slots=True, frozen=True)
class Sample:
    """One look at the processes."""

    at: float  # seconds since the start
    workers_mb: float
    own_mb: float  # of the workers, without the mapped pages of their journals
    supervisor_mb: float
    descriptors: int
    inflight: float  # calls under way, as the gateway counts them


def look(server: Server, admin: int, start: float) -> Sample:
    """Take a sample."""
    workers = workers_of(server)
    return Sample(
        time.monotonic() - start,
        sum(map(rss, workers)) / 1e6,
        sum(map(anonymous, workers)) / 1e6,
        rss(server.pid) / 1e6,
        sum(map(descriptors, [server.pid, *workers])),
        _metric(admin, "penstock_worker_inflight_requests"),
    )


def _metric(admin: int, name: str) -> float:
    """The sum of a metric over its labels; 0 where there is none of that name."""
    with urllib.request.urlopen(f"http://127.0.0.1:{admin}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    return sum(float(value) for value in re.findall(rf"(?m)^{name}(?:{{[^}}]*}})? (\S+)$", text))


def slope(samples: list[Sample], name: str) -> float:
    """Growth per hour, by least squares."""
    if len(samples) < 3:
        return 0.0
    xs = [sample.at / 3600 for sample in samples]
    ys = [float(getattr(sample, name)) for sample in samples]
    x0, y0 = sum(xs) / len(xs), sum(ys) / len(ys)
    below = sum((x - x0) ** 2 for x in xs)
    return sum((x - x0) * (y - y0) for x, y in zip(xs, ys, strict=True)) / below


async def soak(server: Server, admin: int, given: argparse.Namespace) -> tuple[list[Sample], Tally]:
    """Run clients and take samples."""
    start = time.monotonic()
    end = start + given.minutes * 60
    tally = Tally()
    clients = [
        asyncio.create_task(client(server.port, end, random.Random(seed), tally))
        for seed in range(given.clients)
    ]
    samples = []
    while time.monotonic() < end:
        await asyncio.sleep(min(10.0, given.minutes * 6))
        sample = await asyncio.to_thread(look, server, admin, start)
        samples.append(sample)
        print(f"{sample}  {tally.whole} whole, {tally.left} left, {tally.failed} failed", flush=True)
    await asyncio.gather(*clients)
    await asyncio.sleep(3)
    samples.append(await asyncio.to_thread(look, server, admin, start))
    return samples, tally


def verdict(samples: list[Sample], tally: Tally) -> int:
    """Print the slopes; the exit code."""
    warm = samples[len(samples) // 4 : -2] or samples  # the last ones see the clients leave
    print(f"\n{tally.whole} calls whole, {tally.left} left, {tally.failed} failed {tally.faults or ''}")
    print("slopes per hour after the first quarter:")
    for name in ("workers_mb", "own_mb", "supervisor_mb", "descriptors", "inflight"):
        first, last = getattr(warm[0], name), getattr(warm[-1], name)
        print(f"  {name:14} {slope(warm, name):+10.2f}   {first:.1f} → {last:.1f}")
    print(f"idle again: {samples[-1]}")
    grown = warm[-1].own_mb / warm[0].own_mb
    return int(tally.failed > 0 or (slope(warm, "own_mb") > 1 and grown > 1.05))


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--json", type=Path, help="write the samples there")
    given = parser.parse_args()
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        provider = stack.enter_context(streams.stream_provider(directory, "", chunks=20, pace=0.01))
        server = stack.enter_context(
            gateway(directory, "", provider.port, workers=given.workers, python=given.python)
        )
        samples, tally = uvloop.run(soak(server, server.admin, given))
    if given.json:
        given.json.write_text(json.dumps([[getattr(s, n) for n in Sample.__slots__] for s in samples]))
    return verdict(samples, tally)


if __name__ == "__main__":
    sys.exit(main())
