"""One answer of an upstream, as it comes in over a pooled connection."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from gateway.net.failure import CLOSED, failure

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.core.call import Headers
    from gateway.core.reply import Sink
    from gateway.net.connection import Connection

HIGH_WATER: Final = 64 * 1024  # bytes held for a reader before the upstream is no longer read
_NEVER: Final = 1 << 60  # bytes that no answer has
_DOCUMENT: Final = b"application/json"


class PooledExchange:
    """See `net.port.Exchange`. At most one task waits on it at a time.

    `wanted` is how many held bytes wake that task: the connection compares it with `size` after each read,
    so that the end of the message, the head or a long enough body each wake it once.
    """

    __slots__ = (
        "_full",
        "_paused",
        "coding",
        "connect_time",
        "connection",
        "done_at",
        "error",
        "first_byte_at",
        "headers",
        "high",
        "kind",
        "length",
        "onward",
        "pieces",
        "sent_at",
        "sink",
        "size",
        "stale",
        "started",
        "status",
        "told",
        "unbegun",
        "until",
        "waiter",
        "wanted",
    )

    headers: Headers  # once the head is here

    def __init__(self, connection: Connection, started: float, until: float) -> None:
        self.connection: Connection | None = connection  # until the message has ended
        self.started = started
        self.until = until
        self.pieces: list[bytes] = []  # held until somebody asks
        self.size = 0
        self.high = HIGH_WATER  # bytes it may hold before it is no longer read
        self.wanted = _NEVER
        self.status = 0
        self.kind = self.coding = b""
        self.onward: bytes | None = None
        self.length: int | None = None
        self.connect_time = self.sent_at = self.first_byte_at = self.done_at = 0.0
        self.error: Exception | None = None
        self.stale = False  # failed without harm: the request may be sent again
        self.sink: Sink | None = None
        self.waiter: asyncio.Future[None] | None = None
        self.told: Callable[[], None] | None = None  # in place of a waiter, see `then`
        self.unbegun = False  # the first body bytes are waited for, in the first byte's time
        self._full = False  # more is held than a reader takes
        self._paused = False  # somebody called `pause`

    # what the connection calls

    def overflow(self) -> None:
        """More is held than `high`: leave the rest to the kernel until somebody reads."""
        if not self._full:
            self._full = True
            self._flow()
        if self.told is not None:
            self._tell()

    def finish(self, now: float, error: Exception | None = None) -> None:
        """The last byte is here, or none will come any more."""
        self.connection = None
        self.done_at = now
        self.error = error
        told = self.told
        if told is not None:
            self.told = None
            told()
            return
        waiter = self.waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def wake(self) -> None:
        """Let the waiting task look."""
        self.wanted = _NEVER
        if self.told is not None:
            if self.kind != _DOCUMENT or (self.length or 0) > self.high:
                self._tell()
            return  # a document is worth nothing before its end
        waiter = self.waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def _tell(self) -> None:
        told, self.told = self.told, None
        assert told is not None
        told()

    # what the call uses, with or without a task

    def then(self, told: Callable[[], None]) -> bool:
        """See `net.port.Exchange`."""
        if self.status or self.done_at:
            return False
        self.told = told
        return True

    async def headed(self) -> None:
        """Until the head is here, or none will come."""
        if not self.status and not self.done_at:
            await self.wait(0)

    async def wait(self, wanted: int) -> None:
        """Until the end of the message, or until the head and `wanted` body bytes are here.

        When the waiting task is cancelled the connection is cut.
        """
        self.wanted = wanted
        self.waiter = waiter = asyncio.get_running_loop().create_future()
        try:
            await waiter
        except BaseException:
            self.close()
            raise

    def held(self, limit: int) -> bytes | None:
        """See `net.port.Exchange`."""
        if not self.done_at or self.error is not None or self.size > limit:
            return None
        if len(self.pieces) != 1:
            return self._drain()
        self.size = 0
        return self.pieces.pop()

    async def collect(self, limit: int) -> bytes | None:
        """The whole body, or None when it is longer than `limit` bytes."""
        if self.connection is not None:
            if self.length is not None and self.length > limit:
                return None
            self._water(max(limit, HIGH_WATER))
            if self.size <= limit:
                await self.wait(limit + 1)
            self._water(HIGH_WATER)
        if self.error is not None:
            raise self.error
        return self._drain() if self.size <= limit else None

    async def begun(self) -> bool:
        """See `core.reply.Source`."""
        if not self.size and self.connection is not None:
            self.unbegun = True
            await self.wait(1)
            self.unbegun = False
        if not self.size and self.error is not None:
            raise self.error
        return self.size > 0

    async def read(self) -> bytes:
        """The next piece, b"" at the end."""
        if not self.size and self.connection is not None:
            await self.wait(1)
        if self.size:
            return self._drain()
        if self.error is not None:
            raise self.error
        return b""

    async def pipe(self, sink: Sink) -> None:
        """Push every piece to the sink; an exception of the sink's ends it and is raised here."""
        if self.size:
            try:
                sink.write(self._drain())
            except BaseException:
                self.close()
                raise
        if self.connection is not None:
            self.sink = sink
            try:
                await self.wait(_NEVER)
            finally:
                self.sink = None  # it knows the exchange: no circle is left for the collector
        if self.error is not None:
            raise self.error

    def pause(self) -> None:
        """Stop reading from upstream."""
        self._paused = True
        self._flow()

    def resume(self) -> None:
        """Read on."""
        self._paused = False
        self._flow()

    def close(self) -> None:
        """Give up; what was held is forgotten, and nothing told."""
        self.told = None
        self.pieces.clear()
        self.size = 0
        connection = self.connection
        if connection is not None:
            connection.cut(failure(CLOSED, connection.backend, "the exchange was closed on this side"))

    def _drain(self) -> bytes:
        pieces = self.pieces
        data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        pieces.clear()
        self.size = 0
        if self._full:
            self._full = False
            self._flow()
        return data

    def _water(self, high: int) -> None:
        self.high = high
        self._full = self.size > high
        self._flow()

    def _flow(self) -> None:
        if self.connection is not None:
            self.connection.read_on(not (self._full or self._paused))
