"""The least a proxy in Python costs: one asyncio protocol on each side, uvloop, httptools, no policy.

    python -m bench.bare PORT UPSTREAM_PORT

It is the floor that the gateway's figures are read against: no deadlines, no bounds, no errors, one path.
"""

from __future__ import annotations

import asyncio
import gc
import sys
from typing import Any

import httptools
import uvloop

_idle: list[Upstream] = []


class Message(asyncio.Protocol):
    """Collects one message after another; `whole` is called with each."""

    parser_type: Any

    def connection_made(self, transport: Any) -> None:
        """Ready for the first."""
        self.transport = transport
        self._begin()

    def _begin(self) -> None:
        self.parser = self.parser_type(self)
        self.url = b""
        self.fields: list[tuple[bytes, bytes]] = []
        self.pieces: list[bytes] = []
        self.done = False

    def on_url(self, url: bytes) -> None:
        """Of a request."""
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """One field."""
        if name.lower() != b"connection":
            self.fields.append((name, value))

    def on_body(self, data: bytes) -> None:
        """A piece."""
        self.pieces.append(data)

    def on_message_complete(self) -> None:
        """The end."""
        self.done = True

    def data_received(self, data: bytes) -> None:
        """Parse."""
        self.parser.feed_data(data)
        if self.done:
            head = b"".join([b"%b: %b\r\n" % field for field in self.fields])
            url, body = self.url, b"".join(self.pieces)
            self._begin()
            self.whole(url, head + b"\r\n" + body)

    def whole(self, url: bytes, rest: bytes) -> None:
        """A message is there."""
        raise NotImplementedError


class Upstream(Message):
    """A connection to the provider, idle or with one client's request."""

    parser_type = httptools.HttpResponseParser

    def ask(self, client: Client, request: bytes) -> None:
        """Send."""
        self.client = client
        self.transport.write(request)

    def whole(self, url: bytes, rest: bytes) -> None:
        """The answer goes to the client, the connection back to the others."""
        _idle.append(self)
        if not self.client.transport.is_closing():
            self.client.transport.write(b"HTTP/1.1 200 OK\r\n" + rest)

    def connection_lost(self, error: Exception | None) -> None:
        """Not to be used any more."""
        if self in _idle:
            _idle.remove(self)


class Client(Message):
    """A client's connection. `port` is the upstream's."""

    parser_type = httptools.HttpRequestParser
    port = 0

    def whole(self, url: bytes, rest: bytes) -> None:
        """The request goes to the provider."""
        request = b"POST " + url + b" HTTP/1.1\r\n" + rest
        if _idle:
            _idle.pop().ask(self, request)
        else:
            self.dialling = asyncio.ensure_future(self._dial(request))

    async def _dial(self, request: bytes) -> None:
        _, made = await asyncio.get_running_loop().create_connection(Upstream, "127.0.0.1", self.port)
        made.ask(self, request)


async def _serve(port: int, upstream: int) -> None:
    Client.port = upstream
    server = await asyncio.get_running_loop().create_server(Client, "127.0.0.1", port)
    gc.freeze()
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(_serve(int(sys.argv[1]), int(sys.argv[2])))
