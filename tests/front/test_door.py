"""Accepting connections: fair, bounded, with TLS, and closed in order."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl

import pytest
import trustme
import uvloop

from gateway.front.door import Door


class Greeter(asyncio.Protocol):
    """Says hello, closes when asked to; stands among the door's connections as uvicorn's protocol does."""

    def __init__(self, door):
        self.door = door

    def connection_made(self, transport):
        self.transport = transport
        self.door.connections.add(self)
        transport.write(b"hello")

    def connection_lost(self, error):
        self.door.connections.discard(self)

    def shutdown(self):
        self.transport.close()

    def expire(self):
        self.transport.abort()


def run(scenario):
    async def main():
        with socket.create_server(("127.0.0.1", 0)) as listener:
            door = Door(listener)
            try:
                async with asyncio.timeout(60):
                    await scenario(door, listener.getsockname())
            finally:
                door.close()
                await door.emptied(1)
                for writer in WRITERS:
                    await hang_up(writer)
                WRITERS.clear()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())


WRITERS: list[asyncio.StreamWriter] = []


async def connect(address, **options):
    reader, writer = await asyncio.open_connection(*address, **options)
    WRITERS.append(writer)
    return reader, writer


async def hang_up(writer):
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


async def hello(address, **options):
    reader, writer = await connect(address, **options)
    assert await reader.readexactly(5) == b"hello"
    await asyncio.sleep(0)  # the door's own task for this connection ends
    return reader, writer


def test_each_connection_gets_a_protocol():
    async def scenario(door, address):
        door.open(lambda: Greeter(door), None, 10)
        clients = [await hello(address) for _ in range(3)]
        assert door.count == 3
        for _, writer in clients:
            await hang_up(writer)
        assert await door.emptied(30)

    run(scenario)


def test_at_the_bound_connections_wait_until_one_closes():
    async def scenario(door, address):
        door.open(lambda: Greeter(door), None, 2)
        clients = [await hello(address) for _ in range(2)]
        waiting = asyncio.ensure_future(hello(address))
        for _ in range(20):
            await asyncio.sleep(0)
        assert door.count == 2 and not waiting.done()
        await hang_up(clients[0][1])
        await waiting
        assert door.count == 2

    run(scenario)


def test_a_failed_tls_handshake_makes_room_and_harms_nobody():
    authority = trustme.CA()
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(server)
    client = ssl.create_default_context()
    authority.configure_trust(client)

    async def scenario(door, address):
        door.open(lambda: Greeter(door), server, 1)
        reader, writer = await connect(address)
        writer.write(b"GET / HTTP/1.1\r\n\r\n")
        with contextlib.suppress(ConnectionResetError):
            await reader.read()
        await hello(address, ssl=client)

    run(scenario)


def test_new_settings_hold_for_new_connections_only():
    async def scenario(door, address):
        door.open(lambda: Greeter(door), None, 10)
        await hello(address)
        made = []
        door.open(lambda: made.append(1) or Greeter(door), None, 10)
        await hello(address)
        assert made == [1] and door.count == 2

    run(scenario)


def test_closing_refuses_new_connections_and_asks_open_ones_to_leave():
    async def scenario(door, address):
        door.open(lambda: Greeter(door), None, 10)
        reader, _ = await hello(address)
        door.close()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(*address)
        assert await reader.read() == b""
        assert await door.emptied(30)

    run(scenario)
