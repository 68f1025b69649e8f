"""A provider of streams: a request for one gets N chunks at a set pace. Counts what it sent.

    python -m bench.stream_upstream --port 9000 --chunks 100 --pace 0.01

`GET /count` tells the chunks sent so far. Its own CPU is not part of any figure.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
from typing import Any

import uvloop

from bench.reference import reply

_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
    b"cache-control: no-cache\r\ntransfer-encoding: chunked\r\n\r\n"
)


def framed(data: bytes) -> bytes:
    """One HTTP chunk."""
    return b"%x\r\n%s\r\n" % (len(data), data)


def event(delta: dict[str, str], finish: str | None = None) -> bytes:
    """One chat completion chunk as a server-sent event."""
    document = {
        "id": "chatcmpl-bench0000000000000000000000",
        "object": "chat.completion.chunk",
        "created": 1730000000,
        "model": "gpt-4o-mini-2024-07-18",
        "service_tier": "default",
        "system_fingerprint": "fp_bench",
        "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}],
        "obfuscation": "f2Jk81",
    }
    return b"data: " + json.dumps(document, separators=(",", ":")).encode() + b"\n\n"


CHUNK = framed(event({"content": " token"}))
USAGE = (
    b'data: {"id":"chatcmpl-bench0000000000000000000000","object":"chat.completion.chunk",'
    b'"created":1730000000,"model":"gpt-4o-mini-2024-07-18","choices":[],"usage":{"prompt_tokens":150,"completion_tokens":100,'
    b'"total_tokens":250}}\n\n'
)
DONE = b"data: [DONE]\n\n"
_REPLY = reply().encode()
WHOLE = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (
    len(_REPLY),
    _REPLY,
)


class Provider(asyncio.Protocol):
    """One connection: a request, a paced stream, and the next."""

    chunks = 100
    pace = 0.01
    sent = 0
    open = 0

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._data = bytearray()
        self._left = 0
        self._usage = False
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def connection_lost(self, error: Exception | None) -> None:
        if self._timer:
            self._timer.cancel()
            Provider.open -= 1

    def data_received(self, data: bytes) -> None:
        self._data += data
        end = self._data.find(b"\r\n\r\n")
        if end < 0:
            return
        head = bytes(self._data[:end]).lower()
        length = int(head.partition(b"content-length:")[2].split(b"\r\n")[0] or b"0")
        if len(self._data) < end + 4 + length:
            return
        self._usage = b"include_usage" in self._data
        streamed = b'"stream":true' in self._data.replace(b" ", b"")
        del self._data[: end + 4 + length]
        if head.startswith(b"get "):
            self._count()
        elif streamed:
            self._begin()
        else:
            self._transport.write(WHOLE)

    def _count(self) -> None:
        body = json.dumps({"sent": Provider.sent, "open": Provider.open}).encode()
        self._transport.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body))

    def _begin(self) -> None:
        Provider.open += 1
        self._left = self.chunks
        self._due = self._loop.time() + self.pace
        self._transport.write(_HEAD)
        self._timer = self._loop.call_at(self._due, self._next)

    def _next(self) -> None:
        self._left -= 1
        Provider.sent += 1
        if self._left:
            self._transport.write(CHUNK)
            self._due += self.pace
            self._timer = self._loop.call_at(self._due, self._next)
            return
        tail = event({}, "stop") + (USAGE if self._usage else b"") + DONE
        self._transport.write(framed(tail) + b"0\r\n\r\n")
        self._timer = None
        Provider.open -= 1


async def serve(port: int) -> None:
    """Serve until SIGTERM."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    server = await loop.create_server(Provider, "127.0.0.1", port, backlog=4096)
    await stop.wait()
    server.close()


def main() -> None:
    """Read the options and serve."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--chunks", type=int, default=100)
    parser.add_argument("--pace", type=float, default=0.01, help="seconds between chunks")
    options = parser.parse_args()
    Provider.chunks, Provider.pace = options.chunks, options.pace
    uvloop.run(serve(options.port))


if __name__ == "__main__":
    main()
