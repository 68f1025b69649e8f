"""Requests off the wire, sans-IO: head, then a body by length or in chunks; nothing is forgiven."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, unquote

KEPT = 1 << 20  # a longer body is forgotten once it is answered; its size and digest stay


class Malformed(Exception):
    """Bytes that are no HTTP request."""


@dataclass(slots=True)
class Request:
    """One request exactly as it arrived; header names keep their case."""

    method: str
    target: str
    version: str
    headers: list[tuple[str, str]]
    body: bytearray = field(default_factory=bytearray)
    size: int = 0
    digest: Any = field(default_factory=hashlib.sha256)

    def header(self, name: str) -> str:
        """The values of a header joined by commas, "" where there is none."""
        return ",".join(value for key, value in self.headers if key.lower() == name)

    @property
    def path(self) -> str:
        """The decoded path without /v1 and Azure's prefixes."""
        path = unquote(self.target.partition("?")[0])
        for prefix in ("/openai/v1", "/openai", "/v1"):
            if path.startswith(prefix + "/"):
                path = path[len(prefix) :]
                break
        if path.startswith("/deployments/"):
            path = "/" + path.split("/", 3)[3] if path.count("/") > 2 else path
        return path

    @property
    def deployment(self) -> str:
        """Azure's deployment name, "" elsewhere."""
        parts = self.target.partition("?")[0].split("/")
        return unquote(parts[3]) if parts[1:3] == ["openai", "deployments"] else ""

    @property
    def query(self) -> dict[str, str]:
        """Query parameters, the last of each name."""
        return {name: values[-1] for name, values in parse_qs(self.target.partition("?")[2]).items()}

    def json(self) -> Any:
        """The body as JSON, None where it is none."""
        try:
            return json.loads(self.body)
        except ValueError:
            return None

    def take(self, data: bytes) -> None:
        """Add a piece of the body."""
        self.size += len(data)
        self.digest.update(data)
        self.body += data

    def forget(self) -> None:
        """Let go of a long body."""
        if self.size > KEPT:
            self.body = bytearray()


class Reader:
    """Cuts a connection's bytes into requests. `feed` gives those that became complete."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._request: Request | None = None
        self._left = 0  # bytes of the body, or of the current chunk, still to come
        self._state = "head"

    @property
    def current(self) -> Request | None:
        """The request whose head is in and whose body is not."""
        return self._request

    @property
    def rest(self) -> bytes:
        """Bytes that no request has claimed."""
        return bytes(self._data)

    def feed(self, data: bytes) -> list[Request]:
        """Take what came. Raises `Malformed`."""
        self._data += data
        done = []
        while self._step():
            if self._state == "done" and self._request:
                done.append(self._request)
                self._request, self._state = None, "head"
        return done

    def _step(self) -> bool:
        match self._state:
            case "head":
                return self._head()
            case "length":
                return self._body("done")
            case "size":
                return self._chunk_size()
            case "chunk":
                return self._body("chunk-end")
            case "chunk-end":
                return self._chunk_end()
            case "trailer":
                return self._trailer()
        return False

    def _line(self, what: str) -> bytes | None:
        end = self._data.find(b"\r\n")
        if end < 0:
            if len(self._data) > 65536:
                raise Malformed(f"{what} too long")
            return None
        line = bytes(self._data[:end])
        del self._data[: end + 2]
        return line

    def _head(self) -> bool:
        end = self._data.find(b"\r\n\r\n")
        if end < 0:
            return False
        lines = self._data[:end].decode("latin-1").split("\r\n")
        del self._data[: end + 4]
        parts = lines[0].split(" ")
        if len(parts) != 3 or not parts[2].startswith("HTTP/1."):
            raise Malformed(f"request line {lines[0]!r}")
        headers = []
        for line in lines[1:]:
            name, colon, value = line.partition(":")
            if not colon or not re.fullmatch(r"[!-~]+", name) or re.search("[\r\n\0]", value):
                raise Malformed(f"header line {line!r}")
            headers.append((name, value.strip(" \t")))
        self._request = Request(parts[0], parts[1], parts[2], headers)
        self._state = self._framing(self._request)
        return True

    def _framing(self, request: Request) -> str:
        lengths = [value for name, value in request.headers if name.lower() == "content-length"]
        coding = request.header("transfer-encoding").lower()
        if len(lengths) > 1 or (lengths and coding):
            raise Malformed("more than one framing")
        if coding:
            if coding != "chunked":
                raise Malformed(f"transfer coding {coding!r}")
            return "size"
        if lengths and not lengths[0].isdigit():
            raise Malformed(f"content-length {lengths[0]!r}")
        self._left = int(lengths[0]) if lengths else 0
        return "length" if self._left else "done"

    def _body(self, then: str) -> bool:
        if not self._data or not self._request:
            return False
        piece = bytes(self._data[: self._left])
        del self._data[: self._left]
        self._request.take(piece)
        self._left -= len(piece)
        if not self._left:
            self._state = then
        return True

    def _chunk_size(self) -> bool:
        line = self._line("chunk size")
        if line is None:
            return False
        size = line.partition(b";")[0]
        if not re.fullmatch(rb"[0-9A-Fa-f]{1,8}", size):
            raise Malformed(f"chunk size {line!r}")
        self._left = int(size, 16)
        self._state = "chunk" if self._left else "trailer"
        return True

    def _chunk_end(self) -> bool:
        line = self._line("chunk end")
        if line:
            raise Malformed(f"chunk end {line!r}")
        if line is not None:
            self._state = "size"
        return line is not None

    def _trailer(self) -> bool:
        line = self._line("trailer")
        if line == b"":
            self._state = "done"
        return line is not None
