"""A client connection's states, bounds, flow control and end; the lane adds what the bytes mean.

HEAD   collecting a head            ── complete ──► BODY (hot endpoints) or COLD (all others)
BODY   collecting a hot request's body  ─────────► BUSY
BUSY   a call is under way; what the client sends meanwhile is kept, bounded
COLD   uvicorn's own cycle runs the ASGI application; the lane feeds it this message's bytes only
SHUT   the connection is being closed; what still comes is dropped
"""

from __future__ import annotations

import asyncio
import time
from typing import Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from gateway.core.call import Call
from gateway.core.errors import CallerError, GatewayError
from gateway.core.reply import Source
from gateway.front.chunked import ChunkedBody
from gateway.front.conversation import Conversation
from gateway.front.intake import Intake
from gateway.front.request import Head
from gateway.settings.schema import Bounds

HEAD, BODY, BUSY, COLD, SHUT = range(5)

AHEAD: Final = 64 * 1024  # pipelined bytes kept while a call runs
_LINGER: Final = 2.0  # seconds a refused client may go on sending before it is cut


class ClientConnection(HttpToolsProtocol):
    """One client connection. `intake` and `bounds` are set by `lane.Lane`."""

    intake: Intake
    bounds: Bounds
    deadline = 0.0  # monotonic seconds; the intake's sweep looks at it
    minor = 1  # of the request's HTTP/1.x

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._held = b""
        self._head: Head | None = None
        self._parts: list[bytes] = []
        self._left = 0  # body bytes still to come, or CHUNKED
        self._reserved = 0
        self._chunks: ChunkedBody | None = None
        self._conversation: Conversation | None = None
        self._source: Source | None = None
        self._drain: asyncio.Future[None] | None = None
        self._received = 0.0
        self._closing = False
        self._answered = False  # the cold lane's answer is complete
        self._host = self.client[0] if self.client else "local"
        self._state = HEAD
        self.deadline = time.monotonic() + self.bounds.idle
        self.intake.join(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._state = SHUT
        self.intake.leave(self)
        self._release()
        if self._conversation is not None:
            self._conversation.cancel()
        if self._drain is not None and not self._drain.done():
            self._drain.set_result(None)
        super().connection_lost(exc)

    # -- between two requests

    def finished(self, conversation: Conversation, close: bool) -> None:
        """The call has ended and is settled: the connection takes the next request, or closes."""
        self.intake.exit(conversation)
        self._conversation = None
        if self._reserved:
            self._release()
        if self._state == SHUT or self.transport.is_closing():
            return
        if close or self._closing:
            self._linger()
        elif self._held:
            self._next()
        else:
            self._state = HEAD
            self.deadline = time.monotonic() + self.bounds.idle

    def _next(self) -> None:
        """Ready for the next request, which may be here already: then what comes now stands behind it."""
        self.deadline = time.monotonic() + self.bounds.idle
        if self._closing:
            self._linger()
        elif self._held:
            self._state = BUSY
            self.loop.call_soon(self._resume)
        else:
            self._state = HEAD

    def _resume(self) -> None:
        """Take up what was sent ahead."""
        if self._state == BUSY:
            self._state = HEAD
            held, self._held = self._held, b""
            if len(held) > AHEAD:
                self.transport.resume_reading()
            self.data_received(held)

    # -- bounds and bad ends

    def _reserve(self, size: int) -> bool:
        try:
            self.intake.reserve(size)
        except GatewayError as error:
            self._refuse(error)
            return False
        self._reserved += size
        return True

    def _release(self) -> None:
        if self._reserved:
            self.intake.release(self._reserved)
            self._reserved = 0

    def _refuse(self, error: GatewayError) -> None:
        """A request that is no call: answer, count, close. The upstream has seen nothing."""
        self.intake.live.count_refused(error.code)
        if self._state == COLD and not self._take_over():
            self.transport.abort()
            return
        call = Call("", "", "other", [], b"")
        self.intake.stamp(call, self._received)
        Conversation(self, call, True).turn_away(error)
        self._parts, self._chunks, self._held = [], None, b""
        self._release()
        self._linger()

    def _take_over(self) -> bool:
        """Take the answer out of uvicorn's hands; too late once it has begun to write one."""
        if self.cycle is None or self.cycle.response_complete:
            return True  # it has begun nothing with this request
        if self.cycle.response_started:
            return False
        self.cycle.disconnected = True
        self.cycle.waiting_for_100_continue = False
        self.cycle.message_event.set()
        return True

    def _linger(self) -> None:
        """Close, but let the client read the answer first: unread bytes would turn it into a reset."""
        self._state = SHUT
        self.deadline = time.monotonic() + _LINGER
        if self.transport.can_write_eof():
            self.transport.write_eof()
        else:
            self.transport.close()

    def overdue(self) -> None:
        """The deadline has passed (called by the intake's sweep)."""
        self.deadline = 0.0
        if self._state in (BODY, COLD) or (self._state == HEAD and self._held):
            late = "head" if self._state == HEAD else "body"
            self._refuse(
                CallerError(f"The request's {late} took too long.", status=408, code="caller_timeout")
            )
        else:
            self.transport.close()

    # -- flow control and shutdown

    def writing(self, source: Source | None) -> None:
        """The source that is paused while this client is slow; None at the stream's end."""
        self._source = source

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._source is not None:
            self._source.pause()

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._source is not None:
            self._source.resume()
        if self._drain is not None and not self._drain.done():
            self._drain.set_result(None)

    async def drained(self) -> None:
        """Wait while the client is slow."""
        if self.flow.write_paused:
            self._drain = self.loop.create_future()
            await self._drain

    def eof_received(self) -> None:
        """A client that ends its side has gone: the transport closes."""

    def shutdown(self) -> None:
        """Drain: close when idle, else after the answer under way."""
        self._closing = True
        if self._state == COLD:
            super().shutdown()
        elif self._conversation is not None:
            self._conversation.close_after()
        elif self._state == BUSY or (self._state == HEAD and not self._held):
            self.transport.close()
