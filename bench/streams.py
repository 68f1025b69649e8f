"""Many streams open at once: how many hold, and what each costs in memory.

python -m bench.streams --streams 1000 [--workers 1]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import urllib.request
from pathlib import Path
from typing import Any

import uvloop

from bench import latency, load
from bench.gateway import KEY, gateway, workers_of
from bench.process import Server, descriptors, free_port, rss


class Reader(asyncio.Protocol):
    """One open stream; counts events, notices an end that came too early."""

    def __init__(self, request: bytes, ready: asyncio.Event) -> None:
        self._request = request
        self._ready = ready
        self.events = 0
        self._answered = False
        self.lost = False

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        if not self._answered:
            self._answered = True
            self.lost = not data.startswith(b"HTTP/1.1 200")
        self.events += data.count(b"data: ")
        if self.events >= 3:
            self._ready.set()

    def connection_lost(self, error: Exception | None) -> None:
        self.lost = True
        self._ready.set()


async def _hold(port: int, count: int, workers: list[int]) -> dict[str, Any]:
    loop = asyncio.get_running_loop()
    request = latency.request_bytes(load.chat_body(700, stream=True), KEY)
    readers: list[Reader] = []
    waits: list[asyncio.Event] = []

    async def open_streams(number: int) -> None:
        for _ in range(number):
            waits.append(asyncio.Event())
            reader = Reader(request, waits[-1])
            await loop.create_connection(lambda reader=reader: reader, "127.0.0.1", port)  # type: ignore[misc]
            readers.append(reader)
        await asyncio.wait_for(asyncio.gather(*(wait.wait() for wait in waits)), 60)

    await open_streams(20)  # what a first stream loads is not the price of one more
    before = sum(map(rss, workers))
    await open_streams(count)
    after = sum(map(rss, workers))
    lost = sum(reader.lost for reader in readers)
    found = {
        "streams": count,
        "lost": lost,
        "per_stream_bytes": (after - before) / count,
        "rss_before": before,
        "rss_after": after,
        "descriptors": sum(map(descriptors, workers)),
    }
    for reader in readers:
        reader.transport.abort()
    return found


def stream_provider(directory: Path, cores: str, *, chunks: int, pace: float) -> Server:
    """Start the provider of streams."""
    port = free_port()
    command = [sys.executable, "-m", "bench.stream_upstream", "--port", str(port)]
    command += ["--chunks", str(chunks), "--pace", str(pace)]
    root = Path(__file__).resolve().parent.parent
    server = Server("provider", command, port, cores=cores, cwd=root, log=directory / "provider.log")
    try:
        server.wait_ready(f"http://127.0.0.1:{port}/count")
    except BaseException:
        server.stop()
        raise
    return server


def sent(provider: Server) -> int:
    """Chunks the provider has sent so far."""
    with urllib.request.urlopen(f"http://127.0.0.1:{provider.port}/count") as answer:
        return int(json.load(answer)["sent"])


def hold(server: Server, count: int) -> dict[str, Any]:
    """Open `count` streams through a running gateway and measure its workers."""
    return uvloop.run(_hold(server.port, count, workers_of(server)))


def main() -> None:
    """Measure once and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", type=int, default=1000)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--python", default=sys.executable)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        with stream_provider(directory, "1", chunks=1_000_000, pace=1.0) as provider:
            under_test = gateway(
                directory, "0", provider.port, workers=options.workers, python=options.python
            )
            with under_test:
                found = hold(under_test, options.streams)
    print(
        f"{found['streams']} streams open, {found['lost']} lost, "
        f"{found['per_stream_bytes'] / 1000:.1f} KB each, {found['descriptors']} descriptors"
    )


if __name__ == "__main__":
    main()
