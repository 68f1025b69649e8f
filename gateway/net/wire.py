"""Reads one HTTP/1.1 response after another from bytes; knows nothing of sockets.

RFC 9112 as llhttp reads it in its strict mode, which refuses bare CR and LF, obs-fold, control bytes,
malformed, duplicate and conflicting lengths and bad chunk sizes. Added here: bounds, transfer codings other
than chunked (refused), interim responses (skipped), HEAD, the end by EOF, bytes after the end (noticed), and
removal of the headers that belong to one connection only (RFC 9110, 7.6.1).

Most answers never come to the parser: where one read holds the whole head, and every line of it is ordinary
(see `lines`) with one content-length, the head is looked up and the body counted. Both ways tell the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, cast

from httptools import HttpParserError, HttpResponseParser

from gateway.net.lines import CODING, FRAMING, LENGTH, TIMEOUT, TYPE, Lines, timeout

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.core.call import Headers

HEAD_LIMIT: Final = 64 * 1024  # bytes of all heads of one answer, interim ones included
FIELD_LIMIT: Final = 1024  # header fields
ORDINARY: Final = 4 * 1024  # bytes of a head that is looked up: too few for FIELD_LIMIT fields

_PERSISTENCE: Final = (b"keep-alive", b"close")


class WireError(Exception):
    """The bytes are not an HTTP/1.1 response that can be trusted. The text is fit for callers."""


class ResponseReader:
    """Feed it bytes, then look: `headed`, `pieces`, `complete`.

    Before it is `headed` offer them to `look_up`, which may leave them; then, and from then on, to `receive`.
    `pieces` holds the body bytes of the last call; the user takes them out before the next one. It is
    the same list always, so that the parser appends to it without a Python frame for each chunk.
    `kind` and `coding` are the values of content-type and content-encoding, b"" where there is none; `onward`
    is what goes on of the head, in wire form, or None where nobody has put it together.
    """

    __slots__ = (
        "_bodiless",
        "_chunked",
        "_feed",
        "_left",
        "_lines",
        "_named",
        "_parser",
        "_spare",
        "coding",
        "complete",
        "headed",
        "headers",
        "keep",
        "keep_for",
        "kind",
        "length",
        "on_body",
        "onward",
        "pieces",
        "status",
    )

    def __init__(self, lines: Lines | None = None) -> None:
        self._lines = lines or Lines()
        self.pieces: list[bytes] = []
        self.on_body: Callable[[bytes], None] = self.pieces.append
        self.keep_for: float | None = None  # the peer's `Keep-Alive: timeout`, in seconds
        self._parser = HttpResponseParser(self)
        self._feed: Callable[[bytes], None] = self._parser.feed_data
        self.expect(b"")

    def expect(self, method: bytes) -> None:
        """Make ready for the answer to a request with this method."""
        self._bodiless = method == b"HEAD"
        self.status = 0
        self.headers: Headers = []
        self.length: int | None = None
        self.kind = self.coding = b""
        self.onward: bytes | None = None
        self.headed = False  # the final head is in
        self.complete = False  # the message has ended
        self.keep = False  # once complete: the connection may carry another message
        self._named: list[bytes] | None = None
        self._chunked = False
        self._spare = HEAD_LIMIT
        self._left = 0  # of a body that is counted here: what is still to come

    def receive(self, data: bytes) -> None:
        """Take what came. Raises `WireError`; after it, or once complete without `keep`, give up the peer."""
        if self._left:
            return self._count(data)
        try:
            if len(data) > self._spare and not self.headed:
                self._receive_head(data)
            else:
                self._feed(data)
        except HttpParserError as error:
            self.keep = False
            if not self.complete:
                raise _explained(error) from None
        if self.pieces:
            self._spare = HEAD_LIMIT
        else:
            self._spend(len(data))

    def look_up(self, data: bytes) -> bool:
        """Take the start of an ordinary answer; False, with nothing done, where it is another."""
        end = data.find(b"\r\n\r\n")
        # Only where nothing is spent yet has the parser seen nothing of this answer.
        if not 0 < end <= ORDINARY or self._spare != HEAD_LIMIT or self._bodiless:
            return False
        lines = data[:end].split(b"\r\n")
        memory = self._lines
        first = lines[0]
        status = memory.statuses.get(first) or memory.status(first)
        if not status:
            return False
        del lines[0]
        length, kind, coding, keep_for = -1, b"", b"", self.keep_for
        headers: Headers = []
        wires: list[bytes] = []
        known = memory.known
        for line in lines:
            told = known.get(line) or memory.learn(line)
            if told is None:
                return False
            pair, wire, special = told
            if pair is not None:
                headers.append(pair)
            if wire:
                wires.append(wire)
            if special is None:
                continue
            role, said = special
            if role == LENGTH:
                if length >= 0:
                    return False
                length = said
            elif role == TYPE:
                kind = said
            elif role == CODING:
                coding = said
            elif role == TIMEOUT:
                keep_for = said
        came = len(data) - end - 4
        if came > length:  # also where no length is given
            return False
        self.status, self.length, self.keep_for = status, length, keep_for
        self.headers, self.onward = headers, b"".join(wires)
        self.kind, self.coding = kind, coding
        self.headed = True
        if came:
            self.pieces.append(data[end + 4 :])
        self._left = left = length - came
        if not left:
            self.complete = self.keep = True
        return True

    def _count(self, data: bytes) -> None:
        """The next part of a body of known length."""
        left, came = self._left, len(data)
        if came < left:
            self._left = left - came
            self.pieces.append(data)
            return
        self._left = 0
        self.complete = self.keep = True
        if came > left:
            data, excess = data[:left], data[left:]
            self.keep = not excess.strip(b"\r\n")  # as the parser has it: blank lines may precede a message
        self.pieces.append(data)

    def _receive_head(self, data: bytes) -> None:
        """More than a head may have: what it may have first, so that it matters not how the bytes came."""
        spare, self._spare = self._spare, HEAD_LIMIT
        self._feed(data[:spare])
        if not self.headed:
            raise WireError(f"its response head is longer than {HEAD_LIMIT} bytes")
        self._feed(data[spare:])

    def _spend(self, count: int) -> None:
        """Heads, chunk framing and trailers: no end of them is refused."""
        self._spare -= count
        if self._spare < 0 and not self.complete:
            raise WireError(f"it sent more than {HEAD_LIMIT} bytes of chunk framing or trailers")

    def eof(self) -> bool:
        """The peer has closed: whether that was a proper end of the message."""
        if self.headed and self.length is None and not self._chunked:
            self.complete = True
        self.keep = False
        return self.complete

    def release(self) -> None:
        """Break the circle between reader and parser; nothing can be received any more."""
        self._feed = _deaf
        self._parser = cast("HttpResponseParser", None)

    # what the parser calls

    def on_message_begin(self) -> None:
        """A first byte of a message; after a complete one nobody asked for it."""
        if self.complete:
            raise WireError("it sent bytes after the end of its response")

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header field; trailer fields are dropped."""
        name = name.lower()
        if name in FRAMING:
            self._framing(name, value)
        elif not self.headed:
            self.headers.append((name, value))

    def _framing(self, name: bytes, value: bytes) -> None:
        if self.headed:
            return
        if name == b"content-length":
            self.length = int(value)
        elif name == b"connection":
            value = value.lower()
            if value not in _PERSISTENCE:
                self._named = (self._named or []) + [token.strip() for token in value.split(b",")]
        elif name == b"transfer-encoding":
            if self._chunked or value.strip().lower() != b"chunked":
                raise WireError("its transfer-encoding is not chunked alone")
            self._chunked = True
        elif name == b"keep-alive":
            self.keep_for = timeout(value)

    def on_headers_complete(self) -> None:
        """A head has ended; an interim one (1xx) is forgotten (RFC 9110, 15.2)."""
        status = self._parser.get_status_code()
        if not 200 <= status <= 599:
            return self._skip(status)
        if len(self.headers) > FIELD_LIMIT:
            raise WireError(f"its response has more than {FIELD_LIMIT} header fields")
        self.status = status
        self.headed = True
        if self._named is not None:
            self.headers = [field for field in self.headers if field[0] not in self._named]
        said = dict(self.headers)
        self.kind, self.coding = said.get(b"content-type", b""), said.get(b"content-encoding", b"")
        if self._bodiless:
            self.complete = True
            raise WireError("no body comes, which the parser can't know")

    def _skip(self, status: int) -> None:
        if not 100 <= status <= 199:
            raise WireError(f"its response has the status {status}, which is not between 100 and 599")
        if status == 101 or self.length is not None or self._chunked:
            raise WireError(f"it sent an interim response ({status}) that was not asked for or has a body")
        self.headers = []
        self._named = None

    def on_message_complete(self) -> None:
        """A message has ended."""
        if self.headed and not self.complete:
            self.keep = self._parser.should_keep_alive()
            self.complete = True


def end_to_end(fields: Headers) -> Headers:
    """The fields (lower-case names) that may go on: not hop-by-hop, not named by Connection, not framing."""
    named = {t.strip() for name, value in fields if name == b"connection" for t in value.lower().split(b",")}
    return [field for field in fields if field[0] not in FRAMING and field[0] not in named]


def _deaf(data: bytes) -> None:
    """Takes the place of a parser that has gone."""


def _explained(error: HttpParserError) -> WireError:
    cause = error.__context__
    if isinstance(cause, WireError):
        return cause
    return WireError(f"its response is not HTTP/1.1: {error}")
