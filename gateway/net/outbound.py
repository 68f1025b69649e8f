"""One request to an upstream, before it is wire bytes."""

from __future__ import annotations

from typing import Final

# A body shorter than this is joined to the head, so that both leave in one buffer.
JOINED: Final = 64 * 1024

_LENGTHLESS: Final = frozenset({b"GET", b"HEAD", b"DELETE"})


class Outbound:
    """A request in pieces that are already in wire form; nothing here is checked or escaped again.

    `target` is in origin form. `fixed` is the backend's own header block (host, credentials) and `passed`
    the client's end-to-end headers, both "name: value\\r\\n"… and free of framing headers. `start` is the
    request line and `fixed` in one, where somebody has put them together before (`start_of`). `sent_at` is
    when it was last handed to a socket (monotonic), 0.0 before: also known where no answer ever came.
    """

    __slots__ = ("body", "fixed", "method", "passed", "sent_at", "start", "target")

    def __init__(
        self,
        method: bytes,
        target: bytes,
        fixed: bytes,
        passed: bytes = b"",
        body: bytes = b"",
        start: bytes = b"",
    ) -> None:
        self.method = method
        self.target = target
        self.fixed = fixed
        self.passed = passed
        self.body = body
        self.start = start
        self.sent_at = 0.0

    def head(self) -> bytes:
        """Request line, header fields and the blank line."""
        start = self.start or start_of(self.method, self.target, self.fixed)
        if self.body or self.method not in _LENGTHLESS:
            return b"%b%bcontent-length: %d\r\n\r\n" % (start, self.passed, len(self.body))
        return b"%b%b\r\n" % (start, self.passed)

    def wire(self) -> bytes:
        """The whole request as it goes out."""
        body = self.body
        if body and self.start:  # the usual case, put together at once
            return b"%b%bcontent-length: %d\r\n\r\n%b" % (self.start, self.passed, len(body), body)
        return self.head() + body


def start_of(method: bytes, target: bytes, fixed: bytes) -> bytes:
    """The part of a head that many requests have in common."""
    return b"%b %b HTTP/1.1\r\n%b" % (method, target, fixed)
