"""A scripted upstream on a real socket, and what the tests of both transports share."""

from __future__ import annotations

import asyncio
import gc
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import uvloop

from gateway.core.errors import UpstreamError
from gateway.net.outbound import Outbound
from gateway.net.port import Exchange, Transport
from gateway.settings.schema import Deadlines

OK = b"HTTP/1.1 200 OK\r\n"
HELLO = OK + b"Content-Length: 5\r\nContent-Type: text/plain\r\n\r\nhello"
PATIENT = Deadlines(connect=30, first=30, idle=30, total=60)


@dataclass
class Peer:
    """One connection as the upstream sees it."""

    number: int  # counted from 1 in the order of arrival
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    ended: asyncio.Event = field(default_factory=asyncio.Event)  # its script has come to its end

    async def request(self) -> bytes:
        """One whole request (by its content-length), or b"" when the client has closed."""
        try:
            head = await self.reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError:
            return b""
        length = 0
        for line in head.lower().split(b"\r\n"):
            if line.startswith(b"content-length:"):
                length = int(line.partition(b":")[2])
        return head + await self.reader.readexactly(length)

    async def say(self, data: bytes) -> None:
        """Write and flush."""
        self.writer.write(data)
        await self.writer.drain()

    async def gone(self) -> None:
        """Returns when the client has closed or reset the connection."""
        try:
            while await self.reader.read(1 << 16):
                pass
        except ConnectionError:
            pass


@dataclass
class Upstream:
    """What a test sees of its scripted upstream."""

    port: int = 0
    peers: list[Peer] = field(default_factory=list)
    requests: list[bytes] = field(default_factory=list)
    failures: list[BaseException] = field(default_factory=list)


Script = Callable[[Peer], Awaitable[None]]


async def answering(peer: Peer) -> None:
    """Answers hello to every request."""
    while await peer.request():
        await peer.say(HELLO)


def once(*pieces: bytes) -> Script:
    """Answers the first request of a connection with these pieces, then closes it."""

    async def script(peer: Peer) -> None:
        await peer.request()
        for piece in pieces:
            await peer.say(piece)

    return script


@asynccontextmanager
async def upstream(script: Script, tls: ssl.SSLContext | None = None) -> AsyncIterator[Upstream]:
    """An upstream that runs the script for each connection, and closes it afterwards."""
    seen = Upstream()

    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = Peer(len(seen.peers) + 1, reader, writer)
        seen.peers.append(peer)
        task = cast("asyncio.Task[None]", asyncio.current_task())
        tasks.add(task)
        try:
            await script(peer)
        except (ConnectionError, asyncio.CancelledError):
            pass
        except Exception as error:
            seen.failures.append(error)
        finally:
            writer.close()
            tasks.discard(task)
            peer.ended.set()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    seen.port = server.sockets[0].getsockname()[1]
    try:
        yield seen
    finally:
        server.close()
        for peer in seen.peers:
            peer.writer.transport.abort()
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        await server.wait_closed()
    assert not seen.failures, seen.failures


def ask(method: bytes = b"POST", body: bytes = b'{"model":"m"}', target: bytes = b"/v1/x?y=1") -> Outbound:
    """A request as a backend would make it."""
    return Outbound(method, target, b"host: up.test\r\nx-fixed: 1\r\n", b"x-passed: 2\r\n", body)


async def fails(work: Awaitable[object]) -> UpstreamError:
    """The error that the work ends with."""
    try:
        result = await work
    except UpstreamError as error:
        return error
    raise AssertionError(f"no error but {result!r}")


async def whole(transport: Transport, outbound: Outbound | None = None) -> tuple[Exchange, bytes]:
    """Send, and the whole body."""
    exchange = await transport.send(outbound or ask())
    body = await exchange.collect(1 << 26)
    assert body is not None
    return exchange, body


class Basket:
    """A sink that keeps what it got."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self.waiting: asyncio.Future[None] | None = None

    def write(self, data: bytes) -> None:
        self.pieces.append(data)
        if self.waiting is not None and not self.waiting.done():
            self.waiting.set_result(None)

    async def filled(self) -> None:
        """Returns when something has come."""
        if not self.pieces:
            self.waiting = asyncio.get_running_loop().create_future()
            await self.waiting

    @property
    def data(self) -> bytes:
        return b"".join(self.pieces)


def open_files() -> list[str]:
    """What this process has open, as the kernel tells it."""
    return sorted(str(path.readlink()) for path in Path("/proc/self/fd").iterdir() if path.exists())


def run(scenario: Coroutine[None, None, None]) -> None:
    """Run on uvloop, as the gateway does, and see that no task and no file descriptor is left over."""
    uvloop.run(asyncio.sleep(0))  # what the first loop opens for good
    gc.collect()
    before = open_files()

    async def guarded() -> None:
        async with asyncio.timeout(60):
            await scenario
        left = asyncio.all_tasks() - {asyncio.current_task()}
        assert not left, left

    uvloop.run(guarded())
    gc.collect()
    assert len(open_files()) == len(before), (before, open_files())
