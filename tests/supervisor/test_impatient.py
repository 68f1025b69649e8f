"""The admin port under clients that are slow, endless or gone."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
import uvicorn
from starlette.requests import Request
from starlette.responses import JSONResponse
from uvicorn.server import ServerState

from gateway.supervisor import impatient
from gateway.supervisor.impatient import Impatient

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
GET = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\n\r\n"


async def echo(scope, receive, send):
    body = await Request(scope, receive).body() if scope["method"] == "POST" else b""
    await JSONResponse({"bytes": len(body)})(scope, receive, send)


def talk(scenario: Callable[[Callable[[], Awaitable[Streams]]], Awaitable[None]]) -> None:
    async def run() -> None:
        state = ServerState()
        config = uvicorn.Config(echo, http=Impatient, log_config=None, ws="none", lifespan="off")
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: Impatient(config, state, {}), "127.0.0.1", 0)
        writers: list[asyncio.StreamWriter] = []

        async def connect() -> Streams:
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            writers.append(writer)
            return reader, writer

        async with asyncio.timeout(20):
            await scenario(connect)
        for writer in writers:
            writer.close()
        server.close()
        while state.connections:
            await asyncio.sleep(0)

    asyncio.run(run())


@pytest.mark.parametrize("begun", [b"", b"GET / HTTP/1.1\r\nhost", POST + b"ab", GET + POST])
def test_what_does_not_arrive_in_time_is_not_waited_for(
    begun: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(impatient, "_PATIENCE", 0.05)

    async def scenario(connect: Callable[[], Awaitable[Streams]]) -> None:
        reader, writer = await connect()
        writer.write(begun)
        answered = await reader.read()  # up to the end of the connection
        assert answered.count(b"200 OK") == begun.count(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")

    talk(scenario)


def test_requests_one_after_another_are_each_awaited_anew() -> None:
    async def scenario(connect: Callable[[], Awaitable[Streams]]) -> None:
        reader, writer = await connect()
        for piece in (GET, POST + b"abcd", GET[:9], GET[9:]):
            writer.write(piece)
            if piece != GET[:9]:
                head = await reader.readuntil(b"\r\n\r\n")
                assert b"200 OK" in head
                await reader.readexactly(11)

    talk(scenario)


def test_a_head_without_end_is_431_long_before_memory_ends() -> None:
    async def scenario(connect: Callable[[], Awaitable[Streams]]) -> None:
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
