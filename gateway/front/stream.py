"""The body of an answer that comes in pieces, on its way to the client's transport."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from gateway.core.call import Call
from gateway.core.errors import GatewayError
from gateway.core.reply import Reply, Source
from gateway.front.head import render
from gateway.net.failure import TOTAL_TIMEOUT, failure
from gateway.pipeline import Emitter, Pipeline

if TYPE_CHECKING:
    from gateway.front.connection import ClientConnection

LAST_CHUNK = b"0\r\n\r\n"


class Stream:
    """The sink that an upstream's pieces are pushed to: each goes through the tap and the stages that
    listen, and out, from inside the read callback. `close` is set where only the connection's end can
    tell the body's.
    """

    __slots__ = (
        "_call",
        "_emitter",
        "_head",
        "_lane",
        "_reply",
        "_tap",
        "chunked",
        "close",
        "started",
    )

    def __init__(
        self, lane: ClientConnection, call: Call, reply: Reply, pipeline: Pipeline, close: bool
    ) -> None:
        self._lane = lane
        self._call = call
        self._reply = reply
        self._tap = reply.tap
        self._emitter = Emitter(call, pipeline.emits, reply.event_stream) if pipeline.emits else None
        self.started = False  # the head has been given to the transport
        self.chunked = True
        self.close = close
        self._head = self._framed()

    def _framed(self) -> bytes:
        """Choose the framing (RFC 9112, 6); the head waits for the first piece or the loop's next turn."""
        length = getattr(self._reply.source, "length", None)
        framing = b"transfer-encoding: chunked\r\n"
        if length is not None and self._emitter is None and not self._reply.event_stream:
            self.chunked = False
            framing = b"content-length: %d\r\n" % length
        elif self._lane.minor == 0:
            self.chunked, self.close = False, True
            framing = b""
        if self.close:
            framing += b"connection: close\r\n"
        return render(self._call, self._reply, framing)

    async def run(self, waits: bool) -> None:
        """All but the end of the body. Raises `UpstreamError`. `waits`: a stage's `emit` does."""
        source = self._reply.source
        assert source is not None
        # The head goes out with the first piece when that is here already, else by itself.
        self._lane.loop.call_soon(self.flush)
        if self._emitter is not None and waits:
            await self._pull(source, self._emitter)
        else:
            await source.pipe(self)

    async def rest(self) -> bytes:
        """What tap and stages still held."""
        rest = self._tap.finish() if self._tap is not None else b""
        return rest if self._emitter is None else await self._emitter.finish_waiting(rest)

    def end(self, rest: bytes) -> None:
        """The last bytes."""
        self.flush()
        if not self.chunked:
            if rest:
                self._lane.transport.write(rest)
        elif rest:
            self._lane.transport.write(b"%x\r\n%b\r\n0\r\n\r\n" % (len(rest), rest))
        else:
            self._lane.transport.write(LAST_CHUNK)

    def break_off(self, error: GatewayError) -> None:
        """The stream can't go on: say so inside it where that is possible, else cut it visibly."""
        if not self._reply.event_stream:
            self._lane.transport.abort()
            return
        self.flush()
        mark = b"" if self._tap is None or self._tap.clean else b"\n\n"
        self.end(mark + error.event(self._call.id, self._call.path))

    def drop(self) -> None:
        """Forget the head: another answer takes its place."""
        self._head = b""

    def flush(self) -> None:
        """The head by itself, unless the client has gone meanwhile: a closed transport takes nothing."""
        if self._head:
            head, self._head = self._head, b""
            self.started = True
            if not self._lane.transport.is_closing():
                self._lane.transport.write(head)

    def write(self, data: bytes) -> None:
        """Take a piece from upstream: filter it and send it as one chunk."""
        if not self.chunked:
            self._write_plain(data)
            return
        if self._tap is not None:
            data = self._tap.feed(data)
        if self._emitter is not None:
            data = self._emitter.feed(data)
        if not data:
            return
        if self._head:
            head, self._head = self._head, b""
            self.started = True
            self._lane.transport.write(b"%b%x\r\n%b\r\n" % (head, len(data), data))
        else:
            self._lane.transport.write(b"%x\r\n%b\r\n" % (len(data), data))

    def _write_plain(self, data: bytes) -> None:
        """Without chunks: a known length, or an HTTP/1.0 client."""
        if self._tap is not None:
            data = self._tap.feed(data)
        if self._emitter is not None:
            data = self._emitter.feed(data)
        self.flush()
        self._lane.transport.write(data)

    async def _pull(self, source: Source, emitter: Emitter) -> None:
        """The pull form, for stages whose `emit` waits."""
        while piece := await source.read():
            if self._tap is not None:
                piece = self._tap.feed(piece)
            piece = await emitter.feed_waiting(piece) if piece else b""
            if piece:
                self.flush()
                framed = b"%x\r\n%b\r\n" % (len(piece), piece) if self.chunked else piece
                self._lane.transport.write(framed)
            if self._lane.flow.write_paused:
                await self._taken(getattr(source, "until", 0.0))

    async def _taken(self, until: float) -> None:
        """Wait while the client is slow, until the call's time is over (monotonic, 0.0: it has none)."""
        try:
            async with asyncio.timeout(until - time.monotonic() if until else None):
                await self._lane.drained()
        except TimeoutError:
            target = self._call.target
            name = target.backend if target is not None else "gateway"
            raise failure(TOTAL_TIMEOUT, name, "its answer was not taken in time") from None
