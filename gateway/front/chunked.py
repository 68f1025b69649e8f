"""A chunked request body (RFC 9112, 7.1), strictly: bytes in, body bytes out. No sockets."""

from __future__ import annotations

import re

from gateway.core.errors import CallerError
from gateway.front.fields import field

# A size of at most eight digits, then extensions: names with a token or a quoted string behind "=".
_TOKEN = rb"[!#-'*+\-.0-9A-Z^-z|~]+"
_SIZE = re.compile(
    rb"([0-9A-Fa-f]{1,8})(?:[ \t]*;[ \t]*%b(?:=(?:%b|\"[^\"\x00-\x1f\x7f]*\"))?)*\Z" % (_TOKEN, _TOKEN)
)
_MAX_LINE = 256
_MAX_TRAILERS = 4096
_FORBIDDEN_TRAILERS = frozenset(
    (
        b"transfer-encoding",
        b"content-length",
        b"host",
        b"authorization",
        b"x-api-key",
        b"content-encoding",
        b"content-type",
        b"content-range",
        b"trailer",
        b"connection",
        b"expect",
        b"te",
        b"cookie",
    )
)

_LINE, _DATA, _DATA_END, _TRAILER = range(4)


class ChunkedBody:
    """Takes bytes until the body's end; `body` grows up to `limit`, beyond it: `CallerError` 413."""

    __slots__ = ("_held", "_left", "_state", "_trailers", "body", "done", "limit")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.body = bytearray()
        self.done = False
        self._state = _LINE
        self._left = 0
        self._held = b""
        self._trailers = 0

    def feed(self, data: bytes) -> bytes:
        """Take `data`; gives back what lies behind the body's end. Raises `CallerError`."""
        if self._held:
            data, self._held = self._held + data, b""
        at = 0
        while not self.done:
            if self._state == _DATA:
                piece = data[at : at + self._left]
                if len(self.body) + len(piece) > self.limit:
                    raise CallerError("The body is too large.", status=413, code="caller_body_too_large")
                self.body += piece
                at += len(piece)
                self._left -= len(piece)
                if self._left:
                    return b""
                self._state = _DATA_END
            elif self._state == _DATA_END:
                if len(data) - at < 2:
                    break
                if data[at : at + 2] != b"\r\n":
                    raise CallerError("A chunk must end with CRLF.")
                at += 2
                self._state = _LINE
            else:
                end = data.find(b"\n", at)
                if end < 0:
                    break
                self._line(data[at : end + 1])
                at = end + 1
        if self.done:
            return data[at:]
        self._held = data[at:]
        if len(self._held) > _MAX_LINE and self._state == _LINE:
            raise CallerError("A chunk's size line is too long.")
        if len(self._held) > _MAX_TRAILERS:
            raise CallerError("The trailers are too long.", status=431, code="caller_headers_too_large")
        return b""

    def _line(self, line: bytes) -> None:
        if not line.endswith(b"\r\n") or line.count(b"\r") != 1:
            raise CallerError("Lines must end with CRLF; a bare CR or LF is not accepted.")
        if self._state == _LINE:
            match = _SIZE.match(line[:-2]) if len(line) <= _MAX_LINE else None
            if match is None:
                raise CallerError("A chunk's size must be hexadecimal digits.")
            self._left = int(match.group(1), 16)
            self._state = _DATA if self._left else _TRAILER
        elif line == b"\r\n":
            self.done = True
        else:
            self._trailer(line)

    def _trailer(self, line: bytes) -> None:
        self._trailers += len(line)
        if self._trailers > _MAX_TRAILERS:
            raise CallerError("The trailers are too long.", status=431, code="caller_headers_too_large")
        if field(line[:-2]).pair[0] in _FORBIDDEN_TRAILERS:
            raise CallerError("This header must not come as a trailer.")
