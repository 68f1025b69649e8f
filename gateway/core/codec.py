"""JSON and server-sent events, bytes in and values out. The one door to orjson."""

from __future__ import annotations

import json
import re
from math import isinf
from typing import Any

import orjson

JSONError = orjson.JSONDecodeError


# Parse JSON strictly (no NaN, no lone surrogates, bounded depth). Raises `JSONError`. Bound as they are:
# a Python frame around each would cost more than a small document does.
loads = orjson.loads

# Compact UTF-8 JSON; dataclasses and datetimes included.
dumps = orjson.dumps

# A string, or a number outside of strings (RFC 8259, 6). A string that nobody ends goes to the end: to look
# for another one at each quote in it would take for ever. No possessive groups: see gh-106052.
_TOKEN = re.compile(
    rb'"[^"\\]*(?:\\.[^"\\]*)*(?:"|\\?\Z)|-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?', re.S
)
_FAR = 256 << 10  # bytes of a document that is read twice, slowly
_FARTHEST = b"1.7976931348623157e308"


def loads_far(data: bytes) -> Any:
    """As `loads`, and numbers that no double can hold (1e400), which are JSON too, become the largest it can.

    Not in documents beyond 256 KiB. Raises `JSONError`.
    """
    return loads(_TOKEN.sub(_within, data) if len(data) <= _FAR else data)


def _within(token: re.Match[bytes]) -> bytes:
    text = token.group()
    if text[:1] == b'"' or not isinf(float(text)):
        return text
    return b"-" + _FARTHEST if text[:1] == b"-" else _FARTHEST


def loads_loose(data: bytes) -> Any:
    """What many a server writes and takes for JSON: NaN, lone surrogates, a mark in front, bytes that are no
    UTF-8. For looking at what is passed on as it came. Raises `ValueError`.
    """
    try:
        return json.loads(data.decode("utf-8-sig", "replace"))
    except RecursionError:
        raise ValueError("nested too deeply") from None


def canonical(value: Any) -> bytes:
    """The one form of a JSON value that is hashed and compared: compact, members sorted, UTF-8."""
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)


def pretty(value: Any) -> str:
    """Indented JSON for people."""
    return orjson.dumps(value, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS).decode()


class FrameSplitter:
    """Cuts a byte stream into server-sent event frames, wherever the pieces were cut.

    A frame ends at a blank line; lines end with LF, CRLF or CR (WHATWG HTML, 9.2.5). Frames come
    out with their terminators, so that their concatenation is the input. `limit` bounds a frame:
    a longer one comes out in pieces.
    """

    __slots__ = ("_held", "limit")

    def __init__(self, limit: int = 1 << 20) -> None:
        self._held = b""
        self.limit = limit

    @property
    def held(self) -> bytes:
        """The bytes of a frame that has not ended yet."""
        return self._held

    def feed(self, data: bytes) -> list[bytes]:
        """All frames that `data` completes."""
        data = self._held + data if self._held else data
        frames: list[bytes] = []
        start = 0
        while True:
            end = frame_end(data, start)
            if end < 0:
                break
            frames.append(data[start:end])
            start = end
        rest = data[start:] if start else data
        if len(rest) > self.limit:
            frames.append(rest)
            rest = b""
        self._held = rest
        return frames

    def flush(self) -> bytes:
        """What is left of an unfinished frame; the splitter is empty afterwards."""
        rest, self._held = self._held, b""
        return rest


def frame_end(data: bytes, start: int = 0) -> int:
    """The index just past the first blank line at or after `start`, or -1.

    A lone CR at the very end may be half of a CRLF, so it does not end a frame yet.
    """
    best = data.find(b"\n\n", start)
    best = best + 2 if best >= 0 else -1
    if data.find(b"\r", start, best if best >= 0 else len(data)) < 0:
        return best
    for mark in (b"\r\n\r\n", b"\n\r\n", b"\r\r\n", b"\r\n\n", b"\n\r", b"\r\r"):
        at = data.find(mark, start)
        if at < 0:
            continue
        end = at + len(mark)
        if mark[-1:] == b"\r":
            if end == len(data):
                continue
            if data[end : end + 1] == b"\n":
                end += 1
        if best < 0 or end < best:
            best = end
    return best


def frame_data(frame: bytes) -> bytes:
    """The `data` of one frame: its data lines joined by LF (WHATWG HTML, 9.2.6)."""
    if frame.startswith(b"data: ") and frame.find(b"\n") >= len(frame) - 2 and b"\r" not in frame:
        return frame[6:].rstrip(b"\n")
    lines = frame.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
    found = []
    for line in lines:
        name, _, value = line.partition(b":")
        if name == b"data":
            found.append(value[1:] if value[:1] == b" " else value)
    return b"\n".join(found)


def event(document: Any, name: bytes = b"") -> bytes:
    """One server-sent event carrying a JSON document; `name` is its type, where clients look at that."""
    head = b"event: %b\ndata: " % name if name else b"data: "
    return head + orjson.dumps(document) + b"\n\n"
