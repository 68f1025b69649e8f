"""How an answer goes out: framing, pace, and everything a fault does to it."""

from __future__ import annotations

import asyncio
import json
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from itertools import count

from tests.upstream import answer
from tests.upstream.answer import Answer
from tests.upstream.faults import Fault

REASONS = {200: "OK", 400: "Bad Request", 401: "Unauthorized", 404: "Not Found", 429: "Too Many Requests"}
INFORMATIONAL = (
    b"HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </style.css>; rel=preload\r\n\r\n"
)
GARBAGE = b"\x00\xffthis is not HTTP\r\n\r\n" + bytes(range(256))


class Cut(Exception):
    """The connection must be cut here: "fin" or "rst"."""


Write = Callable[[bytes], Awaitable[None]]


async def send(reply: Answer, fault: Fault, write: Write, noted: Callable[[], None]) -> bool:
    """Send an answer; `noted` is called after each piece. True: the connection may be used again."""
    if fault.delay:
        await asyncio.sleep(fault.delay)
    if fault.close_first:
        raise Cut(fault.how)
    if fault.garbage:
        await write(GARBAGE)
        raise Cut("fin")
    pieces = _pieces(reply, fault)
    framing = fault.framing or ("chunked" if reply.events or fault.endless else "length")
    if framing == "length":
        pieces = [b"".join(pieces)]
    if fault.informational:
        await write(INFORMATIONAL)
    await write(_head(reply, fault, framing, sum(map(len, pieces))))
    await _body(pieces, fault, framing, write, noted)
    if framing == "chunked":
        await write(b"0\r\n\r\n")
    return framing != "close" and not (fault.hang_up or fault.http10)


async def _body(
    pieces: list[bytes], fault: Fault, framing: str, write: Write, noted: Callable[[], None]
) -> None:
    compressor = zlib.compressobj(wbits=31) if fault.gzip and framing != "length" else None
    sent = 0
    async for piece in _paced(pieces, fault):
        await _cut_at(sent, fault, write)
        if compressor:
            piece = compressor.compress(piece) + compressor.flush(zlib.Z_SYNC_FLUSH)
        for part in [piece[i : i + 1] for i in range(len(piece))] if fault.split else [piece]:
            await write(b"%x\r\n%s\r\n" % (len(part), part) if framing == "chunked" and part else part)
            if fault.split:
                await asyncio.sleep(0)
        sent += 1
        noted()
    await _cut_at(sent, fault, write)
    if compressor and (tail := compressor.flush()):
        await write(b"%x\r\n%s\r\n" % (len(tail), tail) if framing == "chunked" else tail)


async def _cut_at(sent: int, fault: Fault, write: Write) -> None:
    """What happens once `sent` pieces are out."""
    if sent in (fault.die_after, fault.garbage_after):
        await asyncio.sleep(0.05)  # what was written gets there before
    if sent == fault.die_after:
        raise Cut(fault.how)
    if sent == fault.stall_after:
        await asyncio.Event().wait()
    if sent == fault.garbage_after:
        await write(GARBAGE)
        raise Cut("fin")


async def _paced(pieces: list[bytes], fault: Fault) -> AsyncIterator[bytes]:
    first = True
    endless = (pieces[min(1, len(pieces) - 1)] for _ in count())
    for piece in endless if fault.endless else pieces:
        if fault.interval and not first:
            await asyncio.sleep(fault.interval)
        first = False
        yield piece


def _head(reply: Answer, fault: Fault, framing: str, length: int) -> bytes:
    version = "1.0" if fault.http10 else "1.1"
    lines = [f"HTTP/{version} {reply.status} {REASONS.get(reply.status, 'Status')}"]
    headers = [*reply.headers, ("x-request-id", "req_mock"), ("openai-processing-ms", "7")]
    if fault.gzip:
        headers.append(("Content-Encoding", "gzip"))
    if framing == "length":
        headers.append(("Content-Length", str(length + fault.bad_length)))
    elif framing == "chunked":
        headers.append(("Transfer-Encoding", "chunked"))
    else:
        headers.append(("Connection", "close"))
    lines += [f"{name}: {value}" for name, value in headers]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def _pieces(reply: Answer, fault: Fault) -> list[bytes]:
    """The body's pieces with everything a fault does to their bytes."""
    if fault.big:
        return [b"x" * min(65536, fault.big - start) for start in range(0, fault.big, 65536)]
    pieces = [_without_usage(one, reply.events) for one in reply.pieces] if fault.no_usage else reply.pieces
    if not reply.events:
        whole = b"".join(pieces)
        return [zlib.compress(whole, wbits=31)] if fault.gzip else [whole]
    return _events([one for one in pieces if one], fault)


def _events(events: list[bytes], fault: Fault) -> list[bytes]:
    if fault.no_done:
        events = [one for one in events if b"[DONE]" not in one]
    if fault.long_line:
        filler = "y" * fault.long_line
        chunk = {"id": "long", "object": "chat.completion.chunk", "created": 1, "model": "m"}
        delta = {"index": 0, "delta": {"content": filler}, "finish_reason": None}
        events = [events[0], answer.event({**chunk, "choices": [delta]}), *events[1:]]
    if fault.error_after >= 0:
        told = {"error": {"message": "mock failure", "type": "server_error", "param": None, "code": None}}
        events = [*events[: fault.error_after], answer.event(told)]
    if fault.comments:
        events = [b": keep-alive\n\n" + one for one in events]
    if fault.newline != "lf":
        mark = b"\r\n" if fault.newline == "crlf" else b"\r"
        events = [one.replace(b"\n", mark) for one in events]
    if fault.bom:
        events[0] = b"\xef\xbb\xbf" + events[0]
    if fault.no_final_newline:
        events[-1] = events[-1].rstrip(b"\r\n")
    return events


def _without_usage(piece: bytes, events: bool) -> bytes:
    """A piece that says nothing of usage; an event that says nothing else becomes empty."""
    if not events:
        document = json.loads(piece)
        document.pop("usage", None)
        return json.dumps(document).encode()
    head, _, data = piece.rpartition(b"data: ")
    if b'"usage"' not in data:
        return piece
    document = json.loads(data)
    if document.pop("usage", None) and document.get("choices") == []:
        return b""
    if "message" in document:
        document["message"].pop("usage")
    if "response" in document:
        document["response"]["usage"] = None
    return head + answer.event(document)
