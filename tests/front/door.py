"""A lane on a real socket with one stage behind it: what the strictness tests knock at."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import uvicorn
from uvicorn.server import ServerState

from gateway.core.call import Call
from gateway.core.ports import Stage
from gateway.core.reply import Reply
from gateway.front import asgi, lane
from gateway.live import Live
from gateway.pipeline import Pipeline
from gateway.settings.schema import Bounds

JSON = (b"content-type", b"application/json")


class Recorder(Stage):
    """Answers every call with `answer(call)` and keeps what arrived and what was settled."""

    def __init__(self, answer: Callable[[Call], Any] | None = None) -> None:
        self.calls: list[Call] = []
        self.settled: list[Call] = []
        self._answer = answer or (lambda call: Reply(200, [JSON], b'{"ok":true}'))

    def admit(self, call: Call) -> Any:  # type: ignore[override]
        self.calls.append(call)
        return self._answer(call)

    def settle(self, call: Call) -> None:  # type: ignore[override]
        self.settled.append(call)


class Wire(asyncio.Transport):
    """A transport on nothing: what a test hands over arrives just when it says, what is written is kept."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.unread = 0  # bytes that the client leaves in the write buffer
        self.reading = True
        self.ended = self.aborted = False

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        self.written += bytes(data)

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.ended = True

    def close(self) -> None:
        self.ended = True

    def abort(self) -> None:
        self.ended = self.aborted = True

    def is_closing(self) -> bool:
        return self.ended

    def get_write_buffer_size(self) -> int:
        return self.unread

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True


class Door:
    """The open port, the stage behind it, and a client for raw bytes."""

    def __init__(self, port: int, live: Live, seen: Recorder, make: Callable[[], lane.LaneProtocol]) -> None:
        self.port, self.live, self.seen, self._make = port, live, seen, make

    def connect(self, transport: asyncio.Transport) -> lane.LaneProtocol:
        """A connection on a transport of the test's own."""
        connection = self._make()
        connection.connection_made(transport)
        return connection

    async def raw(self, data: bytes, *, eof: bool = False, wait: float = 30.0) -> bytes:
        """Send bytes on a new connection; everything that comes back until the server closes or `wait`."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write(data)
            if eof:
                writer.write_eof()
            got = bytearray()
            try:
                async with asyncio.timeout(wait):
                    while piece := await reader.read(65536):
                        got += piece
            except (TimeoutError, ConnectionResetError):
                pass
            return bytes(got)
        finally:
            writer.close()
            try:
                await writer.wait_closed()
            except OSError:
                pass

    async def ask(self, request: bytes) -> tuple[int, dict[bytes, bytes], bytes]:
        """One request with `connection: close` in it; status, headers, body as they stand on the wire."""
        got = await self.raw(request)
        head, _, body = got.partition(b"\r\n\r\n")
        lines = head.split(b"\r\n")
        headers = dict(line.split(b": ", 1) for line in lines[1:])
        return int(lines[0].split(b" ")[1]), headers, body


@asynccontextmanager
async def door(
    answer: Callable[[Call], Any] | None = None,
    stages: tuple[Stage, ...] = (),
    **bounds: Any,
) -> AsyncIterator[Door]:
    """A listening lane (with the ASGI application as its cold side) on a free loopback port."""
    seen = Recorder(answer)
    live = Live(Pipeline([*stages, seen], "test"))
    limits = Bounds(**bounds)
    config = uvicorn.Config(asgi.build(live, limits), lifespan="off", log_config=None, access_log=False)
    config.load()
    kind = lane.Lane(live, limits)
    state = ServerState()
    loop = asyncio.get_running_loop()

    def make() -> lane.LaneProtocol:
        return kind(config=config, server_state=state, app_state={})

    server = await loop.create_server(make, "127.0.0.1", 0)
    try:
        yield Door(server.sockets[0].getsockname()[1], live, seen, make)
    finally:
        server.close()
        for connection in list(state.connections):
            connection.transport.abort()
        for task in list(state.tasks):
            task.cancel()
        await asyncio.sleep(0)
        await server.wait_closed()


def post(body: bytes, path: bytes = b"/v1/chat/completions", extra: bytes = b"") -> bytes:
    """A well-formed request that asks for the connection to be closed."""
    return (
        b"POST %b HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\n%bContent-Type: application/json\r\n"
        b"Content-Length: %d\r\n\r\n%b" % (path, extra, len(body), body)
    )
