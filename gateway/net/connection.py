"""One connection to an upstream: asyncio's protocol and the parser's target in one object."""

from __future__ import annotations

import asyncio
import fcntl
import struct
import termios
from time import monotonic
from typing import TYPE_CHECKING, Final, Protocol, cast

from gateway.net.failure import CLOSED, PROTOCOL_ERROR, failure
from gateway.net.outbound import JOINED
from gateway.net.wire import ResponseReader, WireError

if TYPE_CHECKING:
    from gateway.net.exchange import PooledExchange
    from gateway.net.lines import Lines
    from gateway.net.outbound import Outbound

# RFC 9110, 9.2.2: asking twice means the same as asking once.
IDEMPOTENT: Final = frozenset({b"GET", b"HEAD", b"OPTIONS", b"PUT", b"DELETE", b"TRACE"})


class Owner(Protocol):
    """Who is told what becomes of a connection."""

    name: str
    lines: Lines

    def freed(self, connection: Connection, now: float) -> None:
        """Its exchange has ended well, at this monotonic time, and it can carry another one."""

    def dropped(self, connection: Connection) -> None:
        """Its exchange has ended and it is being closed."""

    def lost(self, connection: Connection) -> None:
        """It is closed."""


class Connection(ResponseReader, asyncio.Protocol):
    """Carries one exchange at a time, and many one after another."""

    __slots__ = (
        "_method",
        "_owner",
        "_sent",
        "exchange",
        "expires",
        "gone",
        "placed",
        "quiet_since",
        "reading",
        "reused",
        "stirred",
        "transport",
    )

    def __init__(self, owner: Owner) -> None:
        super().__init__(owner.lines)
        self._owner = owner
        self._sent = 0
        self._method = b""
        self.exchange: PooledExchange | None = None
        self.expires = 0.0  # when idle: the monotonic time until which it may be used
        self.gone = False  # closed, or about to be
        self.placed = True  # the owner counts it as open
        self.quiet_since = 0.0
        self.reading = True
        self.reused = False
        self.stirred = False  # something came since the owner last looked
        self.transport = cast("asyncio.Transport", None)

    @property
    def backend(self) -> str:
        """The owner's name, for messages."""
        return self._owner.name

    # what the pool and the exchange call

    def ask(self, exchange: PooledExchange, outbound: Outbound) -> None:
        """Send the request of this exchange, which hears when the head is in and when it has ended."""
        self._method = method = outbound.method
        self.expect(method)
        self.exchange = exchange
        exchange.wanted = 0
        if len(outbound.body) < JOINED:
            wire = outbound.wire()
            self._sent = len(wire)
            self.transport.write(wire)
        else:
            head = outbound.head()
            self._sent = len(head) + len(outbound.body)
            self.transport.writelines((head, outbound.body))
        outbound.sent_at = exchange.sent_at = self.quiet_since = monotonic()

    def cut(self, error: Exception | None = None) -> None:
        """Close at once. An exchange under way ends with the error."""
        if self.gone:
            return
        self.gone = True
        if self.transport is not None:
            self.transport.abort()
        exchange, self.exchange = self.exchange, None
        self._owner.dropped(self)
        if exchange is not None:
            exchange.finish(monotonic(), error)

    def read_on(self, wanted: bool) -> None:
        """Read from the socket, or leave what comes in the kernel so that the peer must wait."""
        if wanted is not self.reading and not self.gone:
            self.reading = wanted
            self.quiet_since = monotonic()
            if wanted:
                self.transport.resume_reading()
            else:
                self.transport.pause_reading()

    # what the event loop calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Open, and after the TLS handshake where there is one."""
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Parse, hand the body on, and wake the waiting task at most once."""
        exchange = self.exchange
        if exchange is None:
            return self.cut()  # nobody asked
        self.stirred = True
        broken: Exception | None = None
        try:
            if self.headed or not self.look_up(data):
                self.receive(data)
        except WireError as wrong:
            broken = failure(PROTOCOL_ERROR, self.backend, str(wrong))
            if not self.pieces:
                return self.cut(broken)  # else what came before it is delivered first, as if read before it
        if not exchange.status:
            exchange.first_byte_at = exchange.first_byte_at or monotonic()
            if self.headed:
                exchange.status, exchange.headers, exchange.length = self.status, self.headers, self.length
                exchange.kind, exchange.coding, exchange.onward = self.kind, self.coding, self.onward
        pieces = self.pieces
        if pieces:
            data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
            pieces.clear()
            sink = exchange.sink
            if sink is None:
                exchange.pieces.append(data)
                exchange.size += len(data)
                if exchange.size > exchange.high:
                    exchange.overflow()
            else:
                try:
                    sink.write(data)
                except Exception as error:
                    return self.cut(error)
                if self.exchange is not exchange:
                    return  # it was closed by what the sink did
        if broken is not None:
            self.cut(broken)
        elif self.complete:
            self._end(exchange)
        elif exchange.size >= exchange.wanted and self.headed:
            exchange.wake()

    def eof_received(self) -> None:
        """The peer will send no more."""
        self._over(None)

    def connection_lost(self, error: Exception | None) -> None:
        """Closed, by either side."""
        self._over(error)
        self.gone = True
        self.release()
        self._owner.lost(self)

    def _end(self, exchange: PooledExchange) -> None:
        # An answer that came before the request had left: what is left of it can't be called back.
        if self.keep and not self.transport.get_write_buffer_size():
            if not self.reading:
                self.read_on(True)
            self.exchange = None
            self.reused = True
            now = monotonic()
            self._owner.freed(self, now)
            exchange.finish(now)  # last: what it is told may send the next request on this connection
        else:
            self.cut()

    def _over(self, error: Exception | None) -> None:
        exchange = self.exchange
        if exchange is None or (error is None and self.eof()):
            return self.cut()
        # A reset out of nowhere says nothing of what was read before it; one after the peer's FIN is EPIPE.
        lost = self._method in IDEMPOTENT or not (isinstance(error, ConnectionResetError) or self._touched())
        if lost and not exchange.first_byte_at and self.reused:
            exchange.stale = True
        what = "it closed the connection before its answer was complete"
        self.cut(failure(CLOSED, self.backend, what))

    def _touched(self) -> bool:
        """Whether a byte of the request may have been accepted by a peer that has closed.

        Bytes that its TCP has not acknowledged, its FIN included, never reached a process there: it had
        closed before they came. They are counted in this side's send queue (tcp(7), SIOCOUTQ), where the
        request is what was written last. Where it can't be known the answer is yes.
        """
        try:
            fd = self.transport.get_extra_info("socket").fileno()
            (queued,) = struct.unpack("i", fcntl.ioctl(fd, termios.TIOCOUTQ, b"\0\0\0\0"))
        except (OSError, AttributeError):
            return True
        return bool(queued + self.transport.get_write_buffer_size() < self._sent)
