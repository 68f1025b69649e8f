"""A tap around a tap, for the rare provider that encodes an event stream although nobody asked it to."""

from __future__ import annotations

from collections.abc import Callable

from gateway.core.stream import StreamTap
from gateway.core.usage import Usage
from gateway.net.decode import Decoder

_MOST = 64 << 20  # bytes a stream may have in all: more than that is no text but an attack


class InflatingTap:
    """Decodes gzip or deflate, so that the stream can be read and goes on in plain."""

    def __init__(self, inner: StreamTap, encoding: str) -> None:
        self.inner = inner
        self._decoder = Decoder(encoding, _MOST)

    def watch(self, look: Callable[[int, Usage | None], None]) -> None:
        """See `core.reply.Tap`."""
        self.inner.watch(look)

    def keep_text(self) -> None:
        """See `core.reply.Tap`."""
        self.inner.keep_text()

    def feed(self, data: bytes) -> bytes:
        """Decode a piece. Raises `UpstreamError`."""
        plain = self._decoder.feed(data)
        return self.inner.feed(plain) if plain else b""

    def finish(self) -> bytes:
        """The stream has ended."""
        return self.inner.finish()

    @property
    def clean(self) -> bool:
        """See `core.reply.Tap`."""
        return self.inner.clean

    @property
    def usage(self) -> Usage | None:
        """The usage seen."""
        return self.inner.usage

    @property
    def first_token(self) -> float:
        """When the first content came."""
        return self.inner.first_token

    @property
    def text(self) -> bytes:
        """What was generated."""
        return self.inner.text

    @property
    def done(self) -> bool:
        """Whether it came to its end."""
        return self.inner.done

    @property
    def finished(self) -> bool:
        """Whether the model said that it has ended."""
        return self.inner.finished

    @property
    def error(self) -> bool:
        """Whether an error was told inside."""
        return self.inner.error
