"""Plain sockets: bytes out, bytes in, and leaving at a chosen moment."""

from __future__ import annotations

import json
import socket
import time
from typing import Any
from urllib.parse import urlsplit


def request(document: Any, key: str, **headers: str) -> bytes:
    """A chat completion request as wire bytes. Header names have _ for -."""
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    lines = [
        "POST /v1/chat/completions HTTP/1.1",
        "Host: test",
        f"Authorization: Bearer {key}",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
        *(f"{name.replace('_', '-')}: {value}" for name, value in headers.items()),
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


class Conversation:
    """One connection."""

    def __init__(self, url: str, timeout: float = 20.0) -> None:
        parts = urlsplit(url)
        assert parts.hostname and parts.port
        self._socket = socket.create_connection((parts.hostname, parts.port), timeout)
        self.received = b""

    def send(self, data: bytes) -> None:
        """Send everything."""
        self._socket.sendall(data)

    def until(self, mark: bytes, times: int = 1) -> bytes:
        """Read until `mark` has been seen so often; everything received so far."""
        while self.received.count(mark) < times:
            if not (piece := self._socket.recv(65536)):
                raise AssertionError(f"closed before {mark!r}: {self.received[-500:]!r}")
            self.received += piece
        return self.received

    def rest(self) -> bytes:
        """Read until the other side closes; everything received."""
        try:
            while piece := self._socket.recv(65536):
                self.received += piece
        except ConnectionResetError:
            pass
        return self.received

    def rest_of_stream(self) -> bytes:
        """The events received until the answer ends or the connection does; without the coding."""
        while not self.received.endswith(b"0\r\n\r\n"):
            try:
                piece = self._socket.recv(65536)
            except ConnectionResetError:
                break
            if not piece:
                break
            self.received += piece
        try:
            return body(self.received)
        except (ValueError, AssertionError):
            return b""

    def leave(self) -> float:
        """Close; when (monotonic)."""
        self._socket.close()
        return time.monotonic()

    def __enter__(self) -> Conversation:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()


def body(answer: bytes) -> bytes:
    """The body of one whole answer, its transfer coding undone; raises where it is cut short."""
    head, _, rest = answer.partition(b"\r\n\r\n")
    while head.startswith(b"HTTP/1.1 1"):  # interim answers come before the final one
        head, _, rest = rest.partition(b"\r\n\r\n")
    if b"transfer-encoding: chunked" not in head.lower():
        return rest
    pieces: list[bytes] = []
    while True:
        size, _, rest = rest.partition(b"\r\n")
        length = int(size, 16)
        if not length:
            return b"".join(pieces)
        pieces.append(rest[:length])
        assert rest[length : length + 2] == b"\r\n"
        rest = rest[length + 2 :]
