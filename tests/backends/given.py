"""What the backends' tests begin with: an upstream that records and answers as it is told, and calls."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from gateway import registry
from gateway.core.call import Call
from gateway.core.ports import Backend
from gateway.core.reply import Reply
from gateway.settings.schema import BackendSettings, Deadlines
from gateway.settings.secret import Secret

KEY = "sk-provider-secret"
USAGE = {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18}
COMPLETION = {"id": "x", "choices": [{"index": 0, "message": {"content": "hi"}}], "usage": USAGE}


@dataclass
class Seen:
    """One request as it arrived."""

    method: str
    target: str
    headers: list[tuple[str, str]]
    body: bytes

    def header(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key == name]


Answer = Callable[[Seen], bytes]


def reply(status: int, body: bytes, *headers: str, kind: str = "application/json") -> bytes:
    lines = [f"HTTP/1.1 {status} X", f"content-type: {kind}", f"content-length: {len(body)}", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


def document(value: Any, *headers: str, status: int = 200) -> bytes:
    return reply(status, json.dumps(value).encode(), *headers)


def chunked(pieces: list[bytes], *headers: str, kind: str = "text/event-stream; charset=utf-8") -> bytes:
    head = "\r\n".join(
        ["HTTP/1.1 200 OK", f"content-type: {kind}", "transfer-encoding: chunked", *headers, "", ""]
    )
    return head.encode() + b"".join(b"%x\r\n%b\r\n" % (len(p), p) for p in pieces) + b"0\r\n\r\n"


class Upstream:
    """Answers each request with what `answer` gives, and remembers it."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.seen: list[Seen] = []
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
                method, target, _ = head[0].split(" ")
                headers = [
                    (n.lower(), v.strip()) for n, _, v in (line.partition(":") for line in head[1:] if line)
                ]
                length = int(dict(headers).get("content-length", 0))
                self.seen.append(Seen(method, target, headers, await reader.readexactly(length)))
                writer.write(self.answer(self.seen[-1]))
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()


@asynccontextmanager
async def upstream(answer: Answer) -> AsyncIterator[Upstream]:
    made = Upstream(answer)
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    made.port = server.sockets[0].getsockname()[1]
    async with server:
        yield made


@asynccontextmanager
async def backend(port: int, kind: str = "openai", path: str = "/v1", **rest: Any) -> AsyncIterator[Backend]:
    keys = rest.pop("keys", (KEY,))
    settings = BackendSettings(
        "up",
        kind,
        f"http://127.0.0.1:{port}{path}",
        tuple(Secret(key) for key in keys),
        rest.pop("timeout", Deadlines(connect=5, first=5, idle=5, total=10)),
        **rest,
    )
    made = registry.backend(settings)
    await made.open()
    try:
        yield made
    finally:
        await made.close()


def run(scenario: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(scenario, 30))


def call(
    path: str = "/chat/completions",
    value: Any = None,
    *,
    body: bytes = b"",
    method: str = "POST",
    endpoint: str = "",
    passed: bytes = b"content-type: application/json\r\n",
    query: bytes = b"",
) -> Call:
    made = Call(
        method, path, endpoint or path[1:], [], body or (json.dumps(value).encode() if value else b"")
    )
    made.document = value or (json.loads(body) if body[:1] == b"{" else None)
    if made.document is not None:
        made.model = made.document.get("model", "")
        made.stream = made.document.get("stream") is True
    made.passed, made.query, made.id = passed, query, "req_1"
    return made


class Basket:
    """A sink that keeps everything, through the reply's tap as the front does."""

    def __init__(self, tap: Any = None) -> None:
        self.data = b""
        self.tap = tap

    def write(self, data: bytes) -> None:
        self.data += self.tap.feed(data) if self.tap is not None else data


async def whole(answer: Reply) -> bytes:
    """The body as the client gets it."""
    if answer.body is not None:
        return answer.body
    assert answer.source is not None
    basket = Basket(answer.tap)
    await answer.source.pipe(basket)
    return basket.data + (answer.tap.finish() if answer.tap is not None else b"")
