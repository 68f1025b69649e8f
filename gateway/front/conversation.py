"""One call on one client connection: from the Call to the last byte of its answer."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from gateway.core.call import Call
from gateway.core.codec import event
from gateway.core.errors import FaultError, GatewayError, UpstreamError
from gateway.core.reply import Reply, Source, Tap
from gateway.front.head import BODYLESS, render
from gateway.pipeline import Emitter, Pipeline, refusal

if TYPE_CHECKING:
    from gateway.front.connection import ClientConnection

_COALESCE = 64 * 1024
LAST_CHUNK = b"0\r\n\r\n"


class Conversation:
    """Runs a call and writes its answer to the connection's transport.

    It is also the sink that an upstream's pieces are pushed to: each goes through the tap and the
    stages that listen, and out, from inside the read callback.
    """

    __slots__ = (
        "_close",
        "_emitter",
        "_ended",
        "_expired",
        "_head",
        "_lane",
        "_source",
        "_started",
        "_tap",
        "call",
        "pipeline",
        "task",
    )

    pipeline: Pipeline  # set when the call enters

    def __init__(self, lane: ClientConnection, call: Call, close: bool) -> None:
        self._lane = lane
        self.call = call
        self.task: asyncio.Task[None] | None = None
        self._close = close  # the connection ends with this answer
        self._head = b""
        self._tap: Tap | None = None
        self._emitter: Emitter | None = None
        self._source: Source | None = None
        self._started = False  # the head has been given to the transport
        self._expired = False
        self._ended = False

    async def run(self) -> None:
        """Answer the call, then settle it, whatever happens in between."""
        call = self.call
        call.began = time.monotonic()
        try:
            reply = await self.pipeline.answer(call)
            call.status = reply.status
            if reply.body is not None:
                self._whole(reply, reply.body)
            else:
                await self._stream(reply, self.pipeline)
        except asyncio.CancelledError:
            self._cancelled()
        finally:
            self._end()

    def _end(self) -> None:
        self._ended = True
        self.pipeline.settle(self.call)
        self._lane.finished(self, self._close)

    def cancel(self) -> None:
        """Stop: the client has gone, or `expire`. A task that has not begun would never reach `run`."""
        task = self.task
        if task is None or self._ended:
            return
        task.cancel()
        if not self.call.began:
            self._cancelled()
            self._end()

    def refuse(self, error: GatewayError) -> None:
        """End a call whose body was refused before the stages saw it."""
        self.respond(refusal(self.call, error))
        self._end()

    def close_after(self) -> None:
        """The connection ends with this answer."""
        self._close = True

    def respond(self, reply: Reply) -> None:
        """Write an answer that needs no pipeline (a request that was refused at the door)."""
        self.call.status = reply.status
        self._whole(reply, reply.body or b"")

    # -- whole answers

    def _whole(self, reply: Reply, body: bytes) -> None:
        framing = b"content-length: %d\r\n" % len(body)
        if reply.status in BODYLESS:
            framing = body = b""
        if self._close:
            framing += b"connection: close\r\n"
        elif self._lane.minor == 0:
            framing += b"connection: keep-alive\r\n"
        head = render(self.call, reply, framing)
        transport = self._lane.transport
        if len(body) <= _COALESCE:
            transport.write(head + body)
        else:
            transport.writelines((head, body))
        self._started = True
        if not self.call.outcome:
            self.call.outcome = "ok" if reply.status < 400 else "upstream_error"

    # -- streams

    async def _stream(self, reply: Reply, pipeline: Pipeline) -> None:
        source = reply.source
        assert source is not None
        self._source = source
        self._tap = reply.tap
        if pipeline.emits:
            self._emitter = Emitter(self.call, pipeline.emits, reply.event_stream)
        chunked = self._frame(reply)
        self._lane.writing(source)
        try:
            # The head goes out with the first piece when that is here already, else by itself.
            asyncio.get_running_loop().call_soon(self._flush_head)
            if pipeline.emits and pipeline.waits:
                await self._pull(source)
            else:
                await source.pipe(self if chunked else _Plain(self))
            await self._last(chunked)
        except UpstreamError as error:
            self._broken(reply, error, chunked)
        finally:
            source.close()
            self._lane.writing(None)

    def _frame(self, reply: Reply) -> bool:
        """Choose the framing and hold the head ready; tells whether the body is chunked."""
        length = getattr(reply.source, "length", None)
        close = b"connection: close\r\n" if self._close else b""
        changes = self._emitter is not None or reply.event_stream
        if length is not None and not changes:
            self._head = render(self.call, reply, b"content-length: %d\r\n" % length + close)
            return False
        if self._lane.minor == 0:
            self._close = True
            self._head = render(self.call, reply, b"connection: close\r\n")
            return False
        self._head = render(self.call, reply, b"transfer-encoding: chunked\r\n" + close)
        return True

    def _flush_head(self) -> None:
        if self._head:
            head, self._head = self._head, b""
            self._started = True
            self._lane.transport.write(head)

    def write(self, data: bytes) -> None:
        """Take a piece from upstream (sink): filter it and send it as one chunk."""
        if self._tap is not None:
            data = self._tap.feed(data)
        if self._emitter is not None:
            data = self._emitter.feed(data)
        if not data:
            return
        if self._head:
            head, self._head = self._head, b""
            self._started = True
            self._lane.transport.write(b"%b%x\r\n%b\r\n" % (head, len(data), data))
        else:
            self._lane.transport.write(b"%x\r\n%b\r\n" % (len(data), data))

    def write_plain(self, data: bytes) -> None:
        """The same without chunks: a known length, or an HTTP/1.0 client."""
        if self._tap is not None:
            data = self._tap.feed(data)
        if self._emitter is not None:
            data = self._emitter.feed(data)
        self._flush_head()
        self._lane.transport.write(data)

    async def _pull(self, source: Source) -> None:
        """The pull form, for stages whose `emit` waits."""
        emitter = self._emitter
        assert emitter is not None
        while piece := await source.read():
            if self._tap is not None:
                piece = self._tap.feed(piece)
            piece = await emitter.feed_waiting(piece) if piece else b""
            self._send(piece)
            await self._lane.drained()

    async def _last(self, chunked: bool) -> None:
        """What tap and stages still held, then the end of the body."""
        rest = self._tap.finish() if self._tap is not None else b""
        if self._emitter is not None:
            if rest:
                rest = await self._emitter.feed_waiting(rest)
            rest += await self._emitter.finish_waiting()
        self._flush_head()
        if not chunked:
            if rest:
                self._lane.transport.write(rest)
        elif rest:
            self._lane.transport.write(b"%x\r\n%b\r\n0\r\n\r\n" % (len(rest), rest))
        else:
            self._lane.transport.write(LAST_CHUNK)
        if not self.call.outcome:
            self.call.outcome = "ok" if self.call.status < 400 else "upstream_error"

    def _send(self, data: bytes) -> None:
        if data:
            self._flush_head()
            self._lane.transport.write(b"%x\r\n%b\r\n" % (len(data), data))

    # -- bad ends

    def _broken(self, reply: Reply, error: GatewayError, chunked: bool) -> None:
        """The stream can't go on: say so inside it where that is possible, else cut it visibly."""
        call = self.call
        call.outcome, call.code = "truncated", error.code
        self._close = True
        if not self._started and self._head:
            # Nothing has gone out: the client can still get a plain error.
            self._head = b""
            failed = refusal(call, error)
            call.status = failed.status
            self._whole(failed, failed.body or b"")
        elif reply.event_stream:
            tap = self._tap
            mark = b"" if tap is None or tap.clean else b"\n\n"
            data = mark + event(error.document(call.id))
            ending = b"%x\r\n%b\r\n0\r\n\r\n" % (len(data), data) if chunked else data
            self._lane.transport.write(ending)
        else:
            self._lane.transport.abort()

    def _cancelled(self) -> None:
        """The task was cancelled: the client has gone, or the drain deadline has come."""
        call = self.call
        if not self._expired:
            call.outcome, call.code = "client_gone", "caller_gone"
            call.status = call.status or 499
            self._close = True
            return
        error = FaultError("The gateway is shutting down.", code="gateway_draining", retry_after=1)
        if self._source is not None:
            event_stream = self._lane.minor == 1 and self._tap is not None
            self._broken(Reply(call.status, [], b"", event_stream=event_stream), error, event_stream)
            return
        self._close = True
        if not self._started:
            failed = refusal(call, error)
            call.status = failed.status
            self._whole(failed, failed.body or b"")

    def expire(self) -> None:
        """The drain deadline: end with a final error event, or a 503 where nothing was sent yet."""
        self._expired = True
        self.cancel()


class _Plain:
    """The conversation as a sink without chunked framing."""

    __slots__ = ("write",)

    def __init__(self, conversation: Conversation) -> None:
        self.write = conversation.write_plain
