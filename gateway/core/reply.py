"""What comes back: a status, headers, and either a whole body or a source of pieces."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any, Protocol

from gateway.core.call import Headers
from gateway.core.usage import Usage


class Sink(Protocol):
    """Where a source pushes its pieces."""

    def write(self, data: bytes) -> None:
        """Take one piece. Never waits: a sink that is full pauses the source instead."""


class Source(Protocol):
    """Body bytes still to come from upstream.

    Two ways to take them: `read` (pull) or `pipe` (push: pieces go to the sink from inside the
    read callback, with no task switch for each). Both, and `begun`, raise `UpstreamError` when the
    upstream dies, stalls past its deadline or breaks the protocol.
    """

    async def begun(self) -> bool:
        """Wait for the first piece, within the first byte's deadline; whether one came. It is kept."""

    async def read(self) -> bytes:
        """The next piece, b"" at the end."""

    async def pipe(self, sink: Sink) -> None:
        """Push every piece to the sink; returns after the last one."""

    def pause(self) -> None:
        """Stop reading from upstream until `resume` (back-pressure)."""

    def resume(self) -> None:
        """Read on."""

    def close(self) -> None:
        """Give up: the upstream connection is cut unless its message was complete. Idempotent."""


class Tap(Protocol):
    """Looks at a stream's bytes as they pass: usage, first token, and what to keep from the client."""

    def feed(self, data: bytes) -> bytes:
        """Take what came, give what goes on (often the same object)."""

    def finish(self) -> bytes:
        """The stream has ended: what was still held back."""

    def watch(self, look: Callable[[int, Usage | None], None]) -> None:
        """Have `look` told, every few KiB, how many bytes of text have come, and a usage stated so far.

        What it raises ends the stream. Usage that is stated so early may be of a part, or none: the text goes
        on being counted. To be called before the first piece; a tap that can't tell does not.
        """

    def keep_text(self) -> None:
        """Gather what is generated in any case, not only until usage has come; to have all, before the first
        piece.
        """

    @property
    def clean(self) -> bool:
        """Whether what has gone on so far ends at an event boundary."""


class Event:
    """One piece of a reply as stages see it: a whole server-sent event frame or a run of body bytes."""

    __slots__ = ("data",)

    def __init__(self, data: bytes) -> None:
        self.data = data


class Reply:
    """The answer to a call.

    `headers` are end-to-end ones only: framing (content-length, transfer-encoding, connection) is
    the front's business. Exactly one of `body` and `source` is set. `event_stream` tells whether
    the body is server-sent events, so that an error can still be told inside it. `wire` are the same
    headers in wire form ("name: value\\r\\n"…), where the backend has them ready; they hold until
    somebody asks for `headers`, which may then be changed.
    """

    __slots__ = ("_headers", "body", "event_stream", "source", "status", "tap", "wire")

    def __init__(
        self,
        status: int,
        headers: Headers,
        body: bytes | None = None,
        source: Source | None = None,
        event_stream: bool = False,
        tap: Tap | None = None,
        wire: bytes = b"",
    ) -> None:
        self.status = status
        self._headers = headers
        self.wire = wire
        self.body = body
        self.source = source
        self.event_stream = event_stream
        self.tap = tap

    @property
    def headers(self) -> Headers:
        """Pairs of lower-case name and value."""
        if self.wire:
            lines = self.wire.split(b"\r\n")
            self._headers = [
                (name, value) for name, _, value in (line.partition(b": ") for line in lines[:-1])
            ]
            self.wire = b""
        return self._headers

    @headers.setter
    def headers(self, headers: Headers) -> None:
        self._headers = headers
        self.wire = b""


class Coming:
    """An answer that was asked for and is on its way. Who has it calls `then`, awaits it, or calls `close`.

    Most answers are whole when there is news of them: with `then` and `now` they cost no task.
    """

    __slots__ = ()

    def then(self, told: Callable[[], None]) -> bool:
        """Have `told` called once, as soon as there is news, by who reads it. False: there is news now."""
        raise NotImplementedError

    def now(self) -> Reply | None:
        """The answer where it is whole and good, once; None, with nothing taken: it has to be awaited."""
        raise NotImplementedError

    def close(self) -> None:
        """Give up; nothing is told any more."""
        raise NotImplementedError

    def __await__(self) -> Generator[Any, Any, Reply]:
        raise NotImplementedError
