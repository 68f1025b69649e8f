"""Added latency: an open-loop client at a set rate, in turns straight to the upstream and through a proxy.

The rate does not wait for answers, so a stall is seen by every request that falls into it
(no coordinated omission). The clock runs from the write of the request to its answer's last byte.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Any

import uvloop


class Lane(asyncio.Protocol):
    """One keep-alive connection: one request at a time, answers with a content-length."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._data = bytearray()
        self._need = -1
        self._waiter: asyncio.Future[tuple[int, float]] | None = None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def connection_lost(self, error: Exception | None) -> None:
        if self._waiter and not self._waiter.done():
            self._waiter.set_exception(error or ConnectionResetError("closed"))

    def send(self, request: bytes) -> asyncio.Future[tuple[int, float]]:
        """Send one request; the future gives status and latency in seconds."""
        self._waiter = self._loop.create_future()
        self._sent = time.perf_counter()
        self.transport.write(request)
        return self._waiter

    def data_received(self, data: bytes) -> None:
        self._data += data
        if self._need < 0:
            end = self._data.find(b"\r\n\r\n")
            if end < 0:
                return
            head = bytes(self._data[:end]).lower()
            length = head.partition(b"\r\ncontent-length:")[2].split(b"\r\n")[0]
            self._need = end + 4 + int(length)
        if len(self._data) >= self._need and self._waiter:
            status = int(self._data[9:12])
            self._data.clear()
            self._need = -1
            if not self._waiter.done():
                self._waiter.set_result((status, time.perf_counter() - self._sent))


class Client:
    """Keep-alive connections to one address, as many as are needed at once."""

    def __init__(self, port: int, request: bytes) -> None:
        self._port = port
        self._request = request
        self._idle: list[Lane] = []
        self.failures = 0

    async def once(self, into: list[float]) -> None:
        """One request; its latency in seconds goes to `into`."""
        try:
            lane = self._idle.pop() if self._idle else await self._connect()
            status, seconds = await lane.send(self._request)
        except OSError:
            self.failures += 1
            return
        into.append(seconds)
        if status != 200:
            self.failures += 1
        self._idle.append(lane)

    async def _connect(self) -> Lane:
        loop = asyncio.get_running_loop()
        _, lane = await loop.create_connection(Lane, "127.0.0.1", self._port)
        return lane

    def close(self) -> None:
        """Close the idle connections."""
        for lane in self._idle:
            lane.transport.close()


async def _turn(client: Client, rate: float, seconds: float, into: list[float]) -> None:
    loop = asyncio.get_running_loop()
    start = loop.time()
    running: set[asyncio.Task[None]] = set()
    for number in range(int(rate * seconds)):
        due = start + number / rate
        if (wait := due - loop.time()) > 0:
            await asyncio.sleep(wait)
        task = loop.create_task(client.once(into))
        running.add(task)
        task.add_done_callback(running.discard)
    while running:
        await asyncio.wait(running)


async def _measure(
    ports: Mapping[str, int], request: bytes, rate: float, seconds: float
) -> dict[str, list[float]]:
    clients = {name: Client(port, request) for name, port in ports.items()}
    found: dict[str, list[float]] = {name: [] for name in ports}
    for client in clients.values():
        await _turn(client, rate, 0.5, [])  # connections and caches warm
    turns = max(1, round(seconds))
    for _ in range(turns):
        for name, client in clients.items():
            await _turn(client, rate, seconds / turns, found[name])
    for name, client in clients.items():
        client.close()
        if client.failures:
            raise RuntimeError(f"{client.failures} requests to {name} failed")
    return found


def request_bytes(body: bytes, key: str) -> bytes:
    """The request as it goes on the wire."""
    return (
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        b"Authorization: Bearer %s\r\nContent-Length: %d\r\n\r\n%s" % (key.encode(), len(body), body)
    )


def measure(
    ports: Mapping[str, int], request: bytes, rate: float = 200, seconds: float = 10
) -> dict[str, list[float]]:
    """Latencies in seconds by name, sorted; turns of one second each, interleaved."""
    found = uvloop.run(_measure(ports, request, rate, seconds))
    return {name: sorted(values) for name, values in found.items()}


def percentile(values: list[float], share: float) -> float:
    """The value below which `share` of the sorted values lie (nearest rank)."""
    return values[min(len(values) - 1, int(share * len(values)))]
