"""A request's head: strict HTTP/1.1 (RFC 9112), bytes in, a `Head` out. No sockets.

What is refused here never reaches an upstream: there is one reading of every message, and it is
the strict one. Anything two parsers could read differently is an error.
"""

from __future__ import annotations

import re
from typing import Final

from gateway.core import credential
from gateway.core.call import Headers, Origin
from gateway.core.errors import CallerError
from gateway.core.generations import Generations
from gateway.front import paths
from gateway.front.fields import FRAMING, HOST, LENGTH, MEMO, PASS, field
from gateway.observe import trace

MAX_TARGET: Final = 8192
MAX_FIELDS: Final = 128

CHUNKED: Final = -1

_LINE: Final = re.compile(rb"([A-Z][A-Z\-]{0,23}) (\S{1,%d}) HTTP/1\.([01])\Z" % MAX_TARGET)
# RFC 3986 characters of path and query, and nothing else; the path begins with one slash.
_TARGET: Final = re.compile(
    rb"(/[A-Za-z0-9\-._~!$&'()*+,;=:@/]*(?:%[0-9A-Fa-f]{2}[A-Za-z0-9\-._~!$&'()*+,;=:@/]*)*)"
    rb"(?:\?([A-Za-z0-9\-._~!$&'()*+,;=:@/?\[\]|{}%]*))?\Z"
)
# Empty and dot segments, also where a server decodes slashes and dots, or drops a segment's parameters.
_SLASH, _DOT = rb"(?:/|%2[fF])", rb"(?:\.|%2[eE])"
_DOTS: Final = re.compile(
    rb"%b%b{1,2}(?:%b|;|%%3[bB]|\Z)|%b{2}|%%2[fF]\.|%%00|%%5[cC]" % (_SLASH, _DOT, _SLASH, _SLASH)
)

# Where two of them stand, one server would take the first and another the last.
_SINGLE: Final = frozenset((b"content-type", b"authorization", b"x-api-key", b"api-key"))


class Head(Origin):
    """A request head that passed. `length` is the body's: bytes, or `CHUNKED`.

    `path` is without a leading /v1; `passed` the wire block of headers that may go upstream.
    """

    __slots__ = (
        "continues",
        "encoding",
        "endpoint",
        "headers",
        "keep_alive",
        "length",
        "method",
        "minor",
        "passed",
        "path",
        "query",
        "trace",
    )

    def __init__(self) -> None:
        super().__init__()
        self.method = ""
        self.path = ""
        self.query = b""
        self.endpoint = ""
        self.minor = 1
        self.headers: Headers = []
        self.passed = b""
        self.trace = ""  # the trace id of a valid traceparent
        self.length = 0
        self.keep_alive = True
        self.continues = False
        self.encoding = b""  # content-encoding, lower-case


def parse(data: bytes) -> Head:
    """A head without its final CRLFCRLF. Raises `CallerError`: 400, 405, 413, 414 or 431."""
    ends = data.count(b"\r\n")
    if data.count(b"\n") != ends or data.count(b"\r") != ends:
        raise _ragged(data)
    if ends >= MAX_FIELDS:
        raise CallerError(f"More than {MAX_FIELDS - 1} headers.", status=431, code="caller_headers_too_large")
    lines = data.split(b"\r\n")
    head = Head()
    line = lines[0]
    known = _targets.get(line)
    head.method, head.path, head.query, head.endpoint, head.minor = known or _request_line(line)
    headers: Headers = []
    passed: list[bytes] = []
    hosts, lengths, framing = 0, 0, None
    del lines[0]
    for line in lines:
        found = MEMO.get(line)
        if found is None:
            found = field(line, headers[-1][0] if headers else b"")
        pair, kind, wire, number = found
        if kind == LENGTH:
            lengths += 1
            head.length = number
            continue
        headers.append(pair)
        if kind == PASS:
            passed.append(wire)
        elif kind == HOST:
            hosts += 1
        elif kind == FRAMING:
            framing = [pair] if framing is None else [*framing, pair]
    head.headers = headers
    names = [name for name, _ in headers if name in _SINGLE]
    if len(names) > 1 and len(set(names)) < len(names):
        raise CallerError("content-type, authorization, x-api-key and api-key may each come once.")
    head.trace, context = trace.context(headers)
    head.passed = b"".join(passed) + context
    if hosts != 1 and (hosts or head.minor):
        raise CallerError("HTTP/1.1 needs exactly one host header.")
    if lengths > 1:
        raise CallerError("The header content-length came twice.")
    if head.minor == 0:
        head.keep_alive = False
    if framing is not None:
        _frame(head, framing, lengths)
    return head


# Heads that passed, by their bytes without the digits of content-length: a client's requests differ in
# nothing else. What is found here was parsed strictly once, and the digits are looked at each time.
_LONGEST_HEAD: Final = 4096
_MOST_HEADS: Final = 16 << 20  # bytes, twice: ten thousand callers' heads
_FIELD: Final = 250  # bytes that a header takes beside its text, about


def _weight(seen: bytes, head: Head) -> int:
    return 3 * len(seen) + _FIELD * len(head.headers)


_heads: Generations[bytes, Head] = Generations(_MOST_HEADS, _weight)
_LENGTH_ENDS: Final = b"ength: "


def recall(data: bytes, end: int) -> tuple[Head, int] | None:
    """A head (`data[:end]`) met before, and this one's body length; None: it has to be parsed."""
    cut = data.rfind(_LENGTH_ENDS, 0, end) + 7
    if cut < 7:
        return None
    stop = data.find(b"\r", cut, end + 1)
    seen = data[:cut] + data[stop:end]
    head = _heads.young.get(seen) or _heads.find(seen)
    digits = data[cut:stop]
    if head is None or not digits.isdigit() or len(digits) > 18:
        return None
    return head, int(digits)


def remember(data: bytes, end: int, head: Head) -> None:
    """Keep a head that `parse` passed, where `recall` can find it."""
    cut = data.rfind(_LENGTH_ENDS, 0, end) + 7
    line = data[:cut].rpartition(b"\r\n")[2].lower()
    if line != b"content-length: " or head.length < 0 or end > _LONGEST_HEAD or head.trace:
        return  # a traced head comes once
    _heads.keep(data[:cut] + data[data.find(b"\r", cut, end + 1) : end], head)


_targets: dict[bytes, tuple[str, str, bytes, str, int]] = {}


def _request_line(line: bytes) -> tuple[str, str, bytes, str, int]:
    """Method, path, query, endpoint, version; lines are few and repeat, so they are remembered."""
    known = _read_line(line)
    if len(_targets) >= 1024:
        _targets.clear()
    if len(line) < 256:
        _targets[line] = known
    return known


def _read_line(line: bytes) -> tuple[str, str, bytes, str, int]:
    if len(line) > MAX_TARGET + 40:
        raise CallerError("The request target is too long.", status=414, code="caller_uri_too_long")
    match = _LINE.match(line)
    if match is None:
        raise CallerError("The request line must be 'METHOD /path HTTP/1.1'.")
    method, target, minor = match.groups()
    if method in (b"CONNECT", b"TRACE"):
        raise CallerError("This method is not offered.", status=405, code="caller_method_not_allowed")
    parts = _TARGET.match(target)
    if parts is None:
        raise CallerError(
            "The request target must be a path such as /v1/chat/completions; write other characters as %XX."
        )
    path, query = parts.group(1), parts.group(2)
    if _DOTS.search(path):
        raise CallerError("The path must not hold empty or dot segments.")
    plain, endpoint = paths.place(path.decode("ascii"))
    paths.check(method.decode("ascii"), plain)
    return method.decode("ascii"), plain, query or b"", endpoint, int(minor)


def _frame(head: Head, fields: Headers, lengths: int) -> None:
    """Codings, connection and expectation; each may come once, but for connection."""
    seen: dict[bytes, bytes] = {}
    for name, value in fields:
        if name in seen:
            if name != b"connection":
                raise CallerError(f"The header {name.decode()} came twice.")
            seen[name] += b"," + value
        else:
            seen[name] = value
    coding = seen.get(b"transfer-encoding")
    if coding is not None:
        if lengths:
            raise CallerError("content-length and transfer-encoding must not come together.")
        if head.minor == 0 or coding.lower() != b"chunked":
            raise CallerError("The only transfer-encoding accepted is chunked, in HTTP/1.1.")
        head.length = CHUNKED
    if b"connection" in seen:
        _connection(head, seen[b"connection"].lower())
    expect = seen.get(b"expect")
    if expect is not None:
        if expect.lower() != b"100-continue":
            raise CallerError("The only expectation that can be met is 100-continue.")
        head.continues = head.minor == 1
    head.encoding = seen.get(b"content-encoding", b"").lower()


def _connection(head: Head, value: bytes) -> None:
    """Keep-alive, and the headers it names: those are hop-by-hop and stay here (RFC 9110, 7.6.1)."""
    tokens = {token.strip() for token in value.split(b",")}
    if b"close" in tokens:
        head.keep_alive = False
    elif head.minor == 0 and b"keep-alive" in tokens:
        head.keep_alive = True
    named = tokens - {b"close", b"keep-alive", b"", b"upgrade"}
    if named:
        kept = [line for line in head.passed.split(b"\r\n") if line.partition(b":")[0] not in named]
        head.passed = b"\r\n".join(kept)


def hopeless(data: bytes, limit: int) -> None:
    """Look at a head that has not ended, or is too long: raises where it can't become a good one."""
    if len(data) > limit:
        if b"\r\n" not in data[: MAX_TARGET + 40]:
            raise CallerError("The request target is too long.", status=414, code="caller_uri_too_long")
        line = data[data.rfind(b"\r\n", 0, limit) + 2 : limit]  # the one that is too much
        if credential.begins(line):
            raise credential.unknown()
        raise CallerError(
            f"The head is larger than {limit} bytes (server.bounds.headers).",
            status=431,
            code="caller_headers_too_large",
        )
    if data.count(b"\n") != data.count(b"\r\n"):
        raise _ragged(data)
    if not b"A" <= data[:1] <= b"Z" and data != b"\r":
        raise CallerError("The request line must be 'METHOD /path HTTP/1.1'.")


def _ragged(data: bytes) -> CallerError:
    """What is said to a bare CR or LF: within a credential, that it is none that is known."""
    ragged = [line for line in data.split(b"\r\n") if b"\r" in line or b"\n" in line]
    if ragged and all(map(credential.begins, ragged)):
        return credential.unknown()
    return CallerError("Lines must end with CRLF; a bare CR or LF is not accepted.")
