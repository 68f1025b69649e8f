"""Taps for the rare provider that encodes its answer although nobody asked it to."""

from __future__ import annotations

from collections.abc import Callable

from gateway.core.errors import UpstreamError
from gateway.core.stream import StreamTap
from gateway.core.tap import BodyTap
from gateway.core.usage import Usage
from gateway.net.decode import Decoder

_STEP = 16 * 1024
MOST = 64 << 20  # bytes a stream may have in all: more than that is no text but an attack


class InflatingTap:
    """Decodes gzip or deflate, so that the stream can be read and goes on in plain."""

    def __init__(self, inner: StreamTap, encoding: str) -> None:
        self.inner = inner
        self._decoder = Decoder(encoding, MOST)

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
    def size(self) -> int:
        """About how much that was, in bytes."""
        return self.inner.size

    @property
    def seen(self) -> bool:
        """Whether `text` is all of it."""
        return self.inner.seen

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


class UnpackingTap(BodyTap):
    """A long body in gzip or deflate: it goes on as it came; `most` bytes of it in plain are looked at."""

    __slots__ = ("_decoder", "_failed")

    def __init__(self, encoding: str, most: int = MOST) -> None:
        super().__init__()
        self._decoder: Decoder | None = Decoder(encoding, most)
        self._failed = False

    def feed(self, data: bytes) -> bytes:
        """Look into a piece, a little at a time: a few bytes may be many."""
        for start in range(0, len(data), _STEP):
            if self._decoder is None:
                break
            try:
                for plain in self._decoder.steps(data[start : start + _STEP]):
                    self._look(plain)
            except UpstreamError:
                self._decoder, self._failed = None, True
        return data

    @property
    def size(self) -> int:
        """Bytes in plain, as many as were seen; -1 where nothing was."""
        return self._passed if self._passed or not self._failed else -1
