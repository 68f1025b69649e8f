"""Changes to single members of a JSON object that leave every other byte as it was.

Parsing and writing a document again would lose what no parser keeps: the spelling of numbers
(1e400, 0.10, integers beyond 64 bits), the order of duplicate names, white space. The object must have
been parsed before: these functions rely on valid JSON (RFC 8259).
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from gateway.core.codec import dumps, loads

_STRING = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"'
_SPACE = rb"[ \t\r\n]*+"
# Inside the object: a member's name and colon, from after the opening brace or a comma.
_NAME = re.compile(rb"%b(%b)%b:%b" % (_SPACE, _STRING, _SPACE, _SPACE), re.DOTALL)
# A value that is no object or array, and what follows: a comma or the closing brace.
_PLAIN = re.compile(rb'(?:%b|[^,{}\[\]" \t\r\n]++)' % _STRING, re.DOTALL)
# No possessive quantifier stands on a group with alternatives: `re` got those wrong until 3.11.5 (gh-106052).
# From inside an object or array to the next bracket, over strings and everything else.
_BRACKET = re.compile(rb'(?:[^"{}\[\]]++|%b)*([{}\[\]])' % _STRING, re.DOTALL)
_NEXT = re.compile(rb"%b[,}]" % _SPACE)
# Between two elements of an array.
_SKIP = re.compile(rb"[ \t\r\n,]*+")


def spans(data: bytes, name: str) -> list[tuple[int, int]]:
    """Where the values of the top-level members of this (ASCII) name begin and end.

    There must be one: whoever parsed the object knows.
    """
    quick = _only(data, name)
    if quick is not None:
        return quick
    return [(start, end) for key, start, end in members(data) if _unquoted(key) == name]


def members(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Each top-level member: its name as spelled, with quotes, and its value's start and end."""
    at = data.index(b"{") + 1
    while (match := _NAME.match(data, at)) is not None:
        start = match.end()
        end = _value_end(data, start)
        yield match.group(1), start, end
        following = _NEXT.match(data, end)
        if following is None:
            raise ValueError("not a JSON object")
        at = following.end()


def replace(data: bytes, name: str, value: bytes) -> bytes:
    """The object with the value of each top-level member of this name replaced."""
    pieces: list[bytes] = []
    at = 0
    for start, end in spans(data, name):
        pieces += (data[at:start], value)
        at = end
    return b"".join((*pieces, data[at:])) if pieces else data


def append(data: bytes, name: str, value: bytes) -> bytes:
    """The object with one more member, at its end. It must not have the name yet."""
    end = data.rindex(b"}")
    before = data[:end].rstrip(b" \t\r\n")
    comma = b"" if before.endswith(b"{") else b","
    return b"%b%b%b:%b%b" % (data[:end], comma, dumps(name), value, data[end:])


def remove(data: bytes, name: str) -> bytes:
    """The object without its top-level members of this (ASCII) name."""
    begin = data.index(b"{") + 1
    kept = [
        b"".join((key, b":", data[start:end])) for key, start, end in members(data) if _unquoted(key) != name
    ]
    return b"%b%b}" % (data[:begin], b",".join(kept)) + data[data.rindex(b"}") + 1 :]


def elements(data: bytes, start: int) -> Iterator[tuple[int, int]]:
    """Where each element of the array that begins at `start` begins and ends."""
    at = _SKIP.match(data, start + 1).end()  # type: ignore[union-attr]  # it matches nothing at least
    while data[at] != 0x5D:  # "]"
        end = _value_end(data, at)
        yield at, end
        at = _SKIP.match(data, end).end()  # type: ignore[union-attr]


def begins(data: bytes, name: str) -> list[int]:
    """Where the values of the top-level members of this (ASCII) name begin. There must be one."""
    at = _sole(data, name)
    return [at] if at >= 0 else [start for start, _ in spans(data, name)]


def _only(data: bytes, name: str) -> list[tuple[int, int]] | None:
    at = _sole(data, name)
    return [(at, _value_end(data, at))] if at >= 0 else None


def _sole(data: bytes, name: str) -> int:
    """The usual case without a walk: the quoted name stands in the data once and could not be
    spelled otherwise, so that it must be the member that is known to be there; -1 where it is not so."""
    quoted = b'"%b"' % name.encode()
    at = data.find(quoted)
    if at < 0 or b"\\u00" in data or data.find(quoted, at + 1) >= 0:
        return -1
    match = _NAME.match(data, at)
    return match.end() if match is not None else -1


def _value_end(data: bytes, start: int) -> int:
    if data[start] not in b"{[":
        match = _PLAIN.match(data, start)
        if match is None:
            raise ValueError("not a JSON object")
        return match.end()
    at, depth = start + 1, 1
    while depth:
        match = _BRACKET.match(data, at)
        if match is None:
            raise ValueError("not a JSON object")
        at = match.end()
        depth += 1 if match.group(1) in b"{[" else -1
    return at


def _unquoted(key: bytes) -> str:
    return str(loads(key)) if b"\\" in key else key[1:-1].decode()
