"""A server that answers as OPA's REST API does: POST /v1/data/PATH with {"input": …} → {"result": …}."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any, Self

Decide = Callable[[Any], Any]


class Undefined:
    """The document is undefined: OPA answers 200 without `result`."""


class OpaServer:
    """Decides by a function of the input; `raw` answers are sent as they are. Keeps what was asked."""

    def __init__(self, decide: Decide | None = None, raw: bytes | None = None, hold: bool = False) -> None:
        self.decide = decide or (lambda given: True)
        self.raw = raw
        self.status = 200
        self.inputs: list[Any] = []
        self.heads: list[str] = []
        self.released = asyncio.Event()
        if not hold:
            self.released.set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *error: object) -> None:
        self.released.set()
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1/data/penstock/allow"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            while head := await self._head(reader):
                length = int(head.lower().split("content-length: ")[1].split("\r\n")[0])
                asked = json.loads(await reader.readexactly(length))
                self.heads.append(head)
                self.inputs.append(asked["input"])
                await self.released.wait()
                writer.write(self._answer(asked["input"]))
                await writer.drain()
        finally:
            self._tasks.discard(task)
            writer.close()

    @staticmethod
    async def _head(reader: asyncio.StreamReader) -> str:
        try:
            return (await reader.readuntil(b"\r\n\r\n")).decode()
        except (asyncio.IncompleteReadError, ConnectionError):
            return ""

    def _answer(self, given: Any) -> bytes:
        body = self.raw
        if body is None:
            result = self.decide(given)
            body = json.dumps({} if result is Undefined else {"result": result}).encode()
        head = f"HTTP/1.1 {self.status} OK\r\ncontent-type: application/json\r\n"
        return f"{head}content-length: {len(body)}\r\n\r\n".encode() + body
