"""One request to an upstream, before it is wire bytes."""

from __future__ import annotations

from dataclasses import dataclass

# A body shorter than this is joined to the head, so that both leave in one buffer.
JOINED = 64 * 1024

_LENGTHLESS = frozenset({b"GET", b"HEAD", b"DELETE"})


@dataclass(slots=True)
class Outbound:
    """A request in pieces that are already in wire form; nothing here is checked or escaped again.

    `target` is in origin form. `fixed` is the backend's own header block (host, credentials) and `passed`
    the client's end-to-end headers, both "name: value\\r\\n"… and free of framing headers.
    """

    method: bytes
    target: bytes
    fixed: bytes
    passed: bytes = b""
    body: bytes = b""

    def head(self) -> bytes:
        """Request line, header fields and the blank line."""
        body = self.body
        if body or self.method not in _LENGTHLESS:
            return b"%b %b HTTP/1.1\r\n%b%bcontent-length: %d\r\n\r\n" % (
                self.method,
                self.target,
                self.fixed,
                self.passed,
                len(body),
            )
        return b"%b %b HTTP/1.1\r\n%b%b\r\n" % (self.method, self.target, self.fixed, self.passed)

    def wire(self) -> bytes:
        """The whole request as it goes out."""
        return self.head() + self.body
