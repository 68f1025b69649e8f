"""A small HTTP/2 server for tests: answers in pieces and notes what became of each stream."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import cast

import h2.config
import h2.connection
import h2.events


@dataclass
class Seen:
    """What the server saw."""

    port: int = 0
    connections: int = 0
    heads: list[list[tuple[bytes, bytes]]] = field(default_factory=list)
    body: bytes = b""
    reset: asyncio.Event = field(default_factory=asyncio.Event)
    asked: asyncio.Event = field(default_factory=asyncio.Event)


class Server(asyncio.Protocol):
    """Answers `/whole` with hello and `/large` with a MiB, begins an answer to `/stall`, is silent on
    `/silence`, resets `/reset`.
    """

    def __init__(self, seen: Seen) -> None:
        self.seen = seen
        self.state = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
        self.paths: dict[int, bytes] = {}

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.seen.connections += 1
        self.state.initiate_connection()
        self.flush()

    def flush(self) -> None:
        self.transport.write(self.state.data_to_send())

    def data_received(self, data: bytes) -> None:
        for event in self.state.receive_data(data):
            if isinstance(event, h2.events.RequestReceived):
                self.seen.heads.append(list(event.headers))
                self.paths[event.stream_id] = dict(event.headers)[b":path"]
            elif isinstance(event, h2.events.DataReceived):
                self.seen.body += event.data
                self.state.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, h2.events.StreamEnded):
                self.answer(event.stream_id)
            elif isinstance(event, h2.events.StreamReset):
                self.seen.reset.set()
        self.flush()

    def answer(self, stream: int) -> None:
        self.seen.asked.set()
        path = self.paths[stream]
        if path == b"/silence":
            return
        if path == b"/reset":
            self.state.reset_stream(stream)
            return
        self.state.send_headers(stream, [(b":status", b"200"), (b"x-one", b"1"), (b"content-type", b"a/b")])
        if path == b"/large":
            for left in range(63, -1, -1):
                self.state.send_data(stream, bytes(1 << 14), end_stream=not left)
            return
        self.state.send_data(stream, b"hel")
        if path == b"/whole":
            self.state.send_data(stream, b"lo", end_stream=True)


@asynccontextmanager
async def h2_server(tls: ssl.SSLContext) -> AsyncIterator[Seen]:
    """Serves on a port of 127.0.0.1."""
    seen = Seen()
    made: list[Server] = []

    def factory() -> Server:
        made.append(Server(seen))
        return made[-1]

    server = await asyncio.get_running_loop().create_server(factory, "127.0.0.1", 0, ssl=tls)
    seen.port = server.sockets[0].getsockname()[1]
    try:
        yield seen
    finally:
        server.close()
        for protocol in made:
            protocol.transport.abort()
        await server.wait_closed()
