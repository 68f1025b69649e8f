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
from gateway.front.flow import Flow
from gateway.front.intake import Intake
from gateway.front.request import Head
from gateway.front.scope import REFUSED
from gateway.live import draining
from gateway.settings.schema import Bounds

HEAD, BODY, BUSY, COLD, SHUT = range(5)

AHEAD: Final = 64 * 1024  # pipelined bytes kept while a call runs; with more nothing is read
LINGER: Final = 2.0  # seconds a refused client may go on sending before it is cut
_STALL: Final = 10.0  # seconds in which a client has to read something of what is left for it


class ClientConnection(HttpToolsProtocol):
    """One client connection. `intake` and `bounds` are set by `lane.Lane`."""

    intake: Intake
    bounds: Bounds
    deadline = 0.0  # monotonic seconds; the intake's sweep looks at it
    minor = 1  # of the request's HTTP/1.x

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.flow = self._flow = Flow(transport)
        self._held = b""
        self._ahead = 0  # bytes reserved for what is held beyond `AHEAD`
        self._full = False  # the client does not read what was written
        self._unread = 0  # bytes it had not read when the connection began to close
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
        self._held = b""
        self._let_in()
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
        elif self._held or self._full:
            self._next()
        else:
            self._state = HEAD
            self.deadline = time.monotonic() + self.bounds.idle

    def _next(self) -> None:
        """Ready for the next request, which may be here already: then what comes now stands behind it.

        A client that leaves answers unread gets no more of them.
        """
        self.deadline = time.monotonic() + self.bounds.idle
        if self._closing:
            self._linger()
        elif self._held or self._full:
            self._state = BUSY
            self.loop.call_soon(self._resume)
        else:
            self._state = HEAD

    def _resume(self) -> None:
        """Take up what was sent ahead."""
        if self._state == BUSY and self._conversation is None and not self._full:
            self._state = HEAD
            held, self._held = self._held, b""
            if held:
                self.data_received(held)
            self._let_in()

    def _keep_out(self) -> None:
        """More has been sent ahead than is kept: read no more until that is taken up."""
        try:
            self.intake.reserve(len(self._held))
        except GatewayError:
            self._held = b""  # no room: what was sent ahead may be sent again (RFC 9112, 9.3.2)
            self.shutdown()
            return
        self._ahead = len(self._held)
        self._flow.hold()

    def _let_in(self) -> None:
        """Read on, when little enough is left of what was sent ahead."""
        if self._ahead and len(self._held) <= AHEAD:
            self.intake.release(self._ahead)
            self._ahead = 0
            if not self.transport.is_closing():
                self._flow.let_go()

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
        scope: dict[str, object] = self.cycle.scope  # type: ignore[assignment]
        scope[REFUSED] = True
        self.cycle.disconnected = True
        self.cycle.waiting_for_100_continue = False
        self.cycle.message_event.set()
        return True

    def _linger(self) -> None:
        """Close, but let the client read the answer first: unread bytes would turn it into a reset."""
        self._state, self._held = SHUT, b""
        self._let_in()
        self._unread = self.transport.get_write_buffer_size()
        self.deadline = time.monotonic() + (_STALL if self._unread and not self._closing else LINGER)
        if self.transport.can_write_eof():
            self.transport.write_eof()
        else:
            self.transport.close()

    def _ebb(self) -> None:
        """The connection ends when the client has read what was written; one that reads no more is cut."""
        unread = self.transport.get_write_buffer_size()
        if unread and 0 < self._unread <= unread:
            self.transport.abort()
            return
        self._unread = unread
        self.deadline = time.monotonic() + _STALL if unread else 0.0
        if not self.transport.is_closing():
            self.transport.close()

    def overdue(self) -> None:
        """The deadline has passed (called by the intake's sweep)."""
        self.deadline = 0.0
        if self.transport.is_closing() or self._state == SHUT:
            self._ebb()
        elif self._state == COLD and not self._left:
            self.deadline = time.monotonic() + LINGER  # the call has its own; look whether it has closed
        elif self._state in (BODY, COLD) or (self._state == HEAD and self._held):
            late = "head" if self._state == HEAD else "body"
            self._refuse(
                CallerError(f"The request's {late} took too long.", status=408, code="caller_timeout")
            )
        else:
            self._ebb()

    def expire(self) -> None:
        """The drain time is over: a request that is not whole by now is waited for no longer."""
        if self._state == BODY or (self._state == HEAD and self._held):
            self._refuse(draining())

    # -- flow control and shutdown

    def writing(self, source: Source | None) -> None:
        """The source that is paused while this client is slow; None at the stream's end."""
        self._source = source

    def pause_writing(self) -> None:
        super().pause_writing()
        self._full = True
        if self._source is not None:
            self._source.pause()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._full = False
        if self._source is not None:
            self._source.resume()
        if self._drain is not None and not self._drain.done():
            self._drain.set_result(None)
        if self._state == BUSY and self._conversation is None:
            self.loop.call_soon(self._resume)

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
            self._ebb()
