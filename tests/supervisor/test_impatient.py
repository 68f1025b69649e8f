"""The admin port under clients that are slow, endless or gone."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
import uvicorn
from starlette.requests import Request
from starlette.responses import JSONResponse
from uvicorn.server import ServerState

from gateway.supervisor.impatient import _PATIENCE, Impatient

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
GET = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\n\r\n"


class Loop(asyncio.SelectorEventLoop):
    """One whose time a test can move on."""

    ahead = 0.0

    def time(self) -> float:
        return super().time() + self.ahead


async def echo(scope, receive, send):
    body = await Request(scope, receive).body() if scope["method"] == "POST" else b""
    await JSONResponse({"bytes": len(body)})(scope, receive, send)


def talk(scenario: Callable[[Callable[[], Awaitable[Streams]], ServerState], Awaitable[None]]) -> None:
    async def run() -> None:
        state = ServerState()
        config = uvicorn.Config(
            echo, http=Impatient, log_config=None, ws="none", lifespan="off", timeout_keep_alive=600
        )
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: Impatient(config, state, {}), "127.0.0.1", 0)
        writers: list[asyncio.StreamWriter] = []

        async def connect() -> Streams:
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            writers.append(writer)
            return reader, writer

        async with asyncio.timeout(60):
            await scenario(connect, state)
        for writer in writers:
            writer.close()
        server.close()
        while state.connections:
            await asyncio.sleep(0)

    with asyncio.Runner(loop_factory=Loop) as runner:
        runner.run(run())


@pytest.mark.parametrize("begun", [b"", b"GET / HTTP/1.1\r\nhost", POST + b"ab", GET + POST])
def test_what_does_not_arrive_in_time_is_not_waited_for(begun: bytes) -> None:
    async def scenario(connect: Callable[[], Awaitable[Streams]], state: ServerState) -> None:
        reader, writer = await connect()
        writer.write(begun)
        if begun.startswith(GET):  # what arrived in time is answered
            head = await reader.readuntil(b"\r\n\r\n")
            assert b"200 OK" in head and await reader.readexactly(11)
        while not any(arrived(each, begun) for each in state.connections):
            await asyncio.sleep(0)
        loop = asyncio.get_running_loop()
        assert isinstance(loop, Loop)
        loop.ahead += _PATIENCE + 1
        assert await reader.read() == b""  # the end of the connection

    talk(scenario)


def arrived(connection: asyncio.Protocol, begun: bytes) -> bool:
    """Whether the server has read so much: of a POST the head at least."""
    assert isinstance(connection, Impatient)
    return not connection._in_head if b"POST" in begun else connection._head == len(begun)


def test_requests_one_after_another_are_each_awaited_anew() -> None:
    async def scenario(connect: Callable[[], Awaitable[Streams]], state: ServerState) -> None:
        reader, writer = await connect()
        for piece in (GET, POST + b"abcd", GET[:9], GET[9:]):
            writer.write(piece)
            if piece != GET[:9]:
                head = await reader.readuntil(b"\r\n\r\n")
                assert b"200 OK" in head
                await reader.readexactly(11)

    talk(scenario)


def test_a_head_without_end_is_431_long_before_memory_ends() -> None:
    async def scenario(connect: Callable[[], Awaitable[Streams]], state: ServerState) -> None:
        reader, writer = await connect()
        writer.write(b"GET / HTTP/1.1\r\nauthorization: Bearer ")
        sent = 0
        try:
            while not reader.at_eof() and sent < 1 << 26:
                writer.write(b"a" * 65536)
                await writer.drain()
                sent += 65536
        except ConnectionError:
            pass
        assert sent < 1 << 24
        reader, writer = await connect()
        writer.write(b"GET / HTTP/1.1\r\nx: " + b"a" * 100_000)
        assert b" 431 " in await reader.read()

    talk(scenario)
