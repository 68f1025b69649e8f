"""A bounded look inside encoded bodies; what is passed on stays encoded."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

from gateway.net.failure import PROTOCOL_ERROR, failure

_GZIP = 16 + zlib.MAX_WBITS
_STEP = 64 * 1024  # bytes of output asked for at a time


def decodable(encoding: str) -> bool:
    """Whether `Decoder` knows this content-encoding."""
    return encoding.strip().lower() in ("", "identity", "gzip", "x-gzip", "deflate")


class Decoder:
    """Undoes gzip or deflate (RFC 9110, 8.4.1) piece by piece.

    `limit` bounds the decoded bytes in all: one more, or bytes that are not what they claim to be, raise
    `UpstreamError` (upstream_protocol_error). Memory is bounded by one piece and its output.
    """

    def __init__(self, encoding: str, limit: int, backend: str = "") -> None:
        if not decodable(encoding):
            raise ValueError(f"no decoder for content-encoding {encoding!r}; gzip and deflate are known")
        self._kind = encoding.strip().lower().removeprefix("x-")
        self._left = limit
        self._limit = limit
        self._backend = backend
        self._inner = zlib.decompressobj(_GZIP) if self._kind == "gzip" else None

    def feed(self, data: bytes) -> bytes:
        """What this piece decodes to."""
        return b"".join(self.steps(data))

    def steps(self, data: bytes) -> Iterator[bytes]:
        """The same, a little at a time."""
        if self._kind in ("", "identity"):
            yield self._counted(data)
            return
        try:
            while data:
                inner = self._begun(data)
                piece = inner.decompress(data, min(_STEP, self._left + 1))
                yield self._counted(piece)
                data = inner.unused_data if inner.eof else inner.unconsumed_tail
                if not (piece or data):
                    break
        except zlib.error as error:
            raise failure(PROTOCOL_ERROR, self._backend, f"its body is not {self._kind}: {error}") from None

    def _begun(self, data: bytes) -> zlib._Decompress:
        """The decompressor for what comes next: gzip may have several members (RFC 1952, 2.2)."""
        inner = self._inner
        if inner is None:  # deflate: zlib's format, though some servers send it raw
            wrapped = data[0] & 0x0F == 8 and data[0] >> 4 <= 7
            inner = zlib.decompressobj(zlib.MAX_WBITS if wrapped else -zlib.MAX_WBITS)
        elif inner.eof:
            inner = zlib.decompressobj(_GZIP)
        self._inner = inner
        return inner

    def _counted(self, piece: bytes) -> bytes:
        self._left -= len(piece)
        if self._left < 0:
            raise failure(PROTOCOL_ERROR, self._backend, f"its body decodes to more than {self._limit} bytes")
        return piece
