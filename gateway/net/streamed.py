"""One answer of an upstream, as it comes in through httpx."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from math import inf
from time import monotonic
from typing import TYPE_CHECKING, Any, cast

import httpx

from gateway.net.failure import CLOSED, FIRST_BYTE_TIMEOUT, IDLE_TIMEOUT, TOTAL_TIMEOUT, failure
from gateway.net.multiplexed import flush
from gateway.net.translated import translated
from gateway.net.wire import end_to_end

if TYPE_CHECKING:
    from gateway.core.call import Headers
    from gateway.core.reply import Sink
    from gateway.net.proxied import Proxied


class StreamedExchange:
    """See `net.port.Exchange`. The body is read only when somebody asks for it, so nothing is held.

    `close` is a plain function but httpx wants awaiting: each read runs as a task that can be cancelled, and
    what is left to be said to the upstream is said by a task of the transport's.
    """

    def __init__(self, way: Proxied, started: float) -> None:
        self.started = started
        self.until = started + way.timeout.total
        self.status = 0
        self.headers: Headers = []
        self.length: int | None = None
        self.kind = self.coding = b""
        self.onward: bytes | None = None
        self.connect_time = self.sent_at = self.first_byte_at = self.done_at = 0.0
        self.stream: tuple[Any, Any] | None = None  # of HTTP/2: connection, request
        self._way = way
        self._response: httpx.Response | None = None
        self._pieces: AsyncIterator[bytes] = cast("AsyncIterator[bytes]", None)
        self._held: list[bytes] = []
        self._reading: asyncio.Task[bytes] | None = None
        self._running: asyncio.Future[None] | None = None  # while paused
        self._ended = False
        self._error: Exception | None = None

    def begin(self, response: httpx.Response) -> None:
        """The head is here. Raises `ValueError` where it has no status that an answer can have."""
        self.first_byte_at = monotonic()
        self._response = response
        self._pieces = aiter(cast("AsyncIterator[bytes]", response.stream))
        self.status = response.status_code
        if not 200 <= self.status <= 599:
            raise ValueError("no status of an answer (RFC 9110, 15)")
        raw = [(name.lower(), value) for name, value in response.headers.raw]
        self.headers = end_to_end(raw)
        said = dict(raw)
        length = said.get(b"content-length", b"")
        self.length = int(length) if length.isdigit() else None
        self.kind, self.coding = said.get(b"content-type", b""), said.get(b"content-encoding", b"")

    def then(self, told: Callable[[], None]) -> bool:
        """See `net.port.Exchange`: its head is here from the beginning."""
        return False

    async def begun(self) -> bool:
        """See `core.reply.Source`."""
        while not self._held and not self._ended:
            if data := await self._next(self.sent_at + self._way.timeout.first):
                self._held.append(data)
        if not self._held and self._error is not None:
            raise self._error
        return bool(self._held)

    async def read(self) -> bytes:
        """The next piece, b"" at the end."""
        if self._held:
            data = b"".join(self._held)
            self._held.clear()
            return data
        while not self._ended:
            data = await self._next()
            if data:
                return data
        if self._error is not None:
            raise self._error
        return b""

    async def pipe(self, sink: Sink) -> None:
        """Push every piece to the sink; an exception of the sink's ends it and is raised here."""
        try:
            while data := await self.read():
                sink.write(data)
                if self._running is not None:
                    await self._taken(self._running)
        except BaseException:
            self.close()
            raise

    async def _taken(self, running: asyncio.Future[None]) -> None:
        """Wait while what has come is not taken, until the time is over."""
        try:
            async with asyncio.timeout(self.until - monotonic()):
                await running
        except TimeoutError:
            self._give_up(TOTAL_TIMEOUT)
            assert self._error is not None
            raise self._error from None

    def held(self, limit: int) -> bytes | None:
        """See `net.port.Exchange`: nothing is read before somebody waits for it."""
        return None

    async def collect(self, limit: int) -> bytes | None:
        """The whole body, or None when it is longer than `limit` bytes."""
        if not self._ended and self.length is not None and self.length > limit:
            return None
        size = sum(map(len, self._held))
        while size <= limit and not self._ended:
            data = await self._next()
            self._held.append(data)
            size += len(data)
        if size > limit:
            return None
        return await self.read()

    def pause(self) -> None:
        """Stop reading from upstream."""
        if self._running is None and not self._ended:
            self._running = asyncio.get_running_loop().create_future()

    def resume(self) -> None:
        """Read on."""
        running, self._running = self._running, None
        if running is not None and not running.done():
            running.set_result(None)

    def close(self) -> None:
        """Give up; what was held is forgotten."""
        self._held.clear()
        if self._ended:
            return
        self._end(failure(CLOSED, self._way.name, "the exchange was closed on this side"))
        self._way.later(self._let_go(self._reading))
        if self._reading is not None:
            self._reading.cancel()
        self.resume()

    async def _next(self, first: float = inf) -> bytes:
        """One more piece under the deadlines, and until the monotonic time `first`; b"" at the end."""
        self._reading = asyncio.ensure_future(anext(self._pieces, b""))
        timeout, now = self._way.timeout, monotonic()
        idle, total = now + timeout.idle, self.until
        end = min(idle, total, first)
        try:
            async with asyncio.timeout(end - now):
                data = await self._reading
        except TimeoutError:
            late = IDLE_TIMEOUT if end == idle else TOTAL_TIMEOUT if end == total else FIRST_BYTE_TIMEOUT
            self._give_up(late)
        except asyncio.CancelledError:
            if self._error is None:  # not `close`: the waiting task itself was cancelled
                self.close()
                raise
        except Exception as error:
            self._end(translated(error, self._way.name, sent=True))
        else:
            if not data:
                await self._finish()
            return data
        finally:
            self._reading = None
        assert self._error is not None
        raise self._error

    async def _finish(self) -> None:
        self._end(None)
        if self._response is not None:
            spoil(self._response)
            await self._response.aclose()  # else httpcore never uses the connection again

    def _give_up(self, code: str) -> None:
        timeout = self._way.timeout
        what = f"not done within {timeout.total:g} s in all"
        if code == IDLE_TIMEOUT:
            what = f"sent nothing for {timeout.idle:g} s"
        elif code == FIRST_BYTE_TIMEOUT:
            what = f"no answer within {timeout.first:g} s"
        self._end(failure(code, self._way.name, what))
        self._way.later(self._let_go(None))

    def _end(self, error: Exception | None) -> None:
        self._ended = True
        self._error = error
        self.done_at = monotonic()
        self._way.ended(self)

    async def _let_go(self, reading: asyncio.Task[bytes] | None) -> None:
        """Cut the connection, or over HTTP/2, only its stream."""
        if reading is not None:
            await asyncio.wait([reading])
        if self._response is not None:
            await self._response.aclose()
        if self.stream is not None:
            await flush(*self.stream)


def spoil(response: httpx.Response) -> None:
    """Have httpcore close a connection on which more came than this answer: it would take that for the next
    one. Uses the insides of httpcore and the error state of h11.
    """
    state: Any = response.stream
    for inner in ("_httpcore_stream", "_stream", "_connection", "_h11_state"):
        state = getattr(state, inner, None)
    if state is not None and state.trailing_data[0]:
        state.send_failed()
