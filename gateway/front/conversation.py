"""One call on one client connection: from the Call to the last byte of its answer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Coroutine
from typing import TYPE_CHECKING, Final

from gateway.core.call import Call
from gateway.core.errors import GatewayError
from gateway.core.reply import Coming, Reply
from gateway.front.head import BODYLESS, render
from gateway.front.stream import Stream
from gateway.live import draining
from gateway.pipeline import Pipeline, failure, refusal, told

if TYPE_CHECKING:
    from gateway.front.connection import ClientConnection

_COALESCE: Final = 64 * 1024


class Conversation:
    """Runs a call and writes its answer to the connection's transport."""

    __slots__ = (
        "_answer",
        "_close",
        "_ended",
        "_expired",
        "_lane",
        "_settled",
        "_started",
        "_stream",
        "_waiting",
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
        self._stream: Stream | None = None
        self._started = False  # the head of a whole answer has been given to the transport
        self._waiting: Reply | Awaitable[Reply] | None = None  # until it is here, or the task has begun
        self._answer: Reply | None = None  # read, and to be written
        self._expired = False
        self._ended = False
        self._settled = False

    # -- the steps that it takes with others, see `turn.py`: whether it goes on to the next one

    def admit(self) -> bool:
        """Ask the stages, all but the one that answers."""
        call = self.call
        call.began = time.monotonic()
        reply = self.pipeline.begin(call)
        if reply is None:
            return True
        self._given(reply)
        return False

    def ask(self) -> bool:
        """Ask the one that answers."""
        self._given(self.pipeline.ask(self.call))
        return False

    def _given(self, reply: Reply | Awaitable[Reply]) -> None:
        """Only a call that has to wait for more than its answer gets a task."""
        if type(reply) is Reply and reply.body is not None:
            self.call.status = reply.status
            self._whole(reply, reply.body)
            self._end()
        else:
            self._waiting = reply
            if not (isinstance(reply, Coming) and reply.then(self._told)):
                self.task = self._lane.loop.create_task(self._run(reply))

    def _told(self) -> None:
        """News of the answer, in the upstream's read callback."""
        self._lane.intake.turn.told(self)

    def read(self) -> bool:
        """Take the answer: it is whole, as most are, or gets a task."""
        coming = self._waiting
        if coming is None:
            return False  # it was given up since
        assert isinstance(coming, Coming)
        try:
            reply = coming.now()
        except Exception as error:
            reply = failure(self.call, error)
        if reply is None or reply.body is None:
            self.task = self._lane.loop.create_task(self._run(coming))
            return False
        self._waiting, self._answer = None, reply
        self.call.status = reply.status
        return True

    def book(self) -> bool:
        """Settle the call, which is at its end."""
        self._settle()
        return True

    def write(self) -> bool:
        """Send the answer that was read."""
        reply = self._answer
        assert reply is not None and reply.body is not None
        self._whole(reply, reply.body)
        self._end()
        return False

    def broken(self, error: Exception) -> None:
        """A step failed that never should: the call is settled all the same, and the client is cut off."""
        reply = failure(self.call, error)
        self._close = True
        self._give_up()  # what is told of the call from now on comes too late
        if not self._ended:
            self.call.status = reply.status
            self._end()
        self._lane.transport.abort()

    # -- with a task

    async def _run(self, waiting: Reply | Awaitable[Reply]) -> None:
        """Answer the call, then settle it, whatever happens in between."""
        self._waiting = None
        call = self.call
        try:
            try:
                reply = waiting if type(waiting) is Reply else await waiting  # type: ignore[misc]
            except Exception as error:
                reply = failure(call, error)
            call.status = reply.status
            if reply.body is not None:
                self._whole(reply, reply.body)
            else:
                await self._pieces(reply)
        except asyncio.CancelledError:
            self._cancelled()
        finally:
            self._end()

    def _settle(self) -> None:
        """Before the last byte goes out: what a client has seen answered is booked, whoever dies next."""
        if not self._settled:
            self._settled = True
            call = self.call
            if not call.outcome:
                call.outcome = "ok" if call.status < 400 else "upstream_error"
            self.pipeline.settle(call)

    def _end(self) -> None:
        self._ended = True
        self._settle()
        self._lane.finished(self, self._close)

    def refuse(self, error: GatewayError) -> None:
        """End a call whose body was refused before the stages saw it."""
        self._fail(error)
        self._end()

    def turn_away(self, error: GatewayError) -> None:
        """Answer a request that is no call: there is no pipeline to settle it with."""
        self._settled = True
        self._fail(error)

    def close_after(self) -> None:
        """The connection ends with this answer."""
        self._close = True

    # -- the answer

    def _whole(self, reply: Reply, body: bytes) -> None:
        lane = self._lane
        self._settle()  # first: what it cost stands in the head
        if reply.status in BODYLESS:
            framing = body = b""
        else:
            framing = b"content-length: %d\r\n" % len(body)
        if self._close:
            framing += b"connection: close\r\n"
        elif lane.minor == 0:
            framing += b"connection: keep-alive\r\n"
        self._started = True
        if len(body) <= _COALESCE:
            lane.transport.write(render(self.call, reply, framing, body))
        else:
            lane.transport.writelines((render(self.call, reply, framing), body))

    async def _pieces(self, reply: Reply) -> None:
        source, lane = reply.source, self._lane
        assert source is not None
        stream = self._stream = Stream(lane, self.call, reply, self.pipeline, self._close)
        self._close = stream.close
        lane.writing(source)
        try:
            await stream.run(self.pipeline.waits)
            rest = await stream.rest()
            self._settle()
            stream.end(rest)
        except Exception as error:  # the upstream broke, or a stage ends it or fails
            self._break_off(stream, told(self.call, error))
        finally:
            source.close()
            lane.writing(None)

    # -- bad ends

    def _fail(self, error: GatewayError) -> None:
        reply = refusal(self.call, error)
        self.call.status = reply.status
        self._whole(reply, reply.body or b"")

    def _break_off(self, stream: Stream, error: GatewayError) -> None:
        self._close = True
        if not stream.started:
            self._stream = None
            self.call.replied = time.monotonic()
            stream.drop()  # nothing has gone out: the client can still get a plain error
            self._fail(error)
            return
        self.call.outcome, self.call.code = "truncated", error.code
        self._settle()
        stream.break_off(error)

    def _cancelled(self) -> None:
        """The task was cancelled: the client has gone, or the drain deadline has come."""
        call = self.call
        self._close = True
        if not self._expired:
            call.outcome, call.code = "client_gone", "caller_gone"
            call.status = call.status or 499
            return
        error = draining()
        if self._stream is not None:
            self._break_off(self._stream, error)
        elif not self._started:
            self._fail(error)

    def cancel(self) -> None:
        """Stop: the client has gone, or `expire`. A task that has not begun would never settle the call."""
        self._lane.intake.turn.run()  # an answer that is here already is one, and a call that waits begins
        if self._ended:
            return
        if self.task is not None:
            self.task.cancel()
        if self._give_up():
            self._cancelled()
            self._end()

    def _give_up(self) -> bool:
        """Wait for no answer any more; whether one was waited for without a task at work."""
        waiting, self._waiting = self._waiting, None
        if isinstance(waiting, Coroutine | Coming):
            waiting.close()
        return waiting is not None

    def expire(self) -> None:
        """The drain deadline: end with a final error event, or a 503 where nothing was sent yet."""
        self._lane.intake.turn.run()
        self._expired = True
        self.cancel()
