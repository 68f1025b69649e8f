"""A tap around a tap, for the rare provider that encodes an event stream although nobody asked it to."""

from __future__ import annotations

import zlib

from gateway.core.errors import UpstreamError
from gateway.core.stream import StreamTap
from gateway.core.usage import Usage

_MOST = 1 << 20  # bytes that one piece may become: more than that is no text stream but an attack


class InflatingTap:
    """Decodes gzip or deflate, so that the stream can be read and goes on in plain."""

    def __init__(self, inner: StreamTap, encoding: bytes) -> None:
        self.inner = inner
        self._inflater = zlib.decompressobj(15 if encoding == b"deflate" else 31)

    def feed(self, data: bytes) -> bytes:
        """Decode a piece. Raises `UpstreamError`."""
        try:
            plain = self._inflater.decompress(data, _MOST)
        except zlib.error:
            raise _broken("is not in the encoding it claims") from None
        if self._inflater.unconsumed_tail:
            raise _broken("grows beyond all measure when decoded")
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


def _broken(what: str) -> UpstreamError:
    return UpstreamError(f"The answer's stream {what}.", code="upstream_protocol_error")
