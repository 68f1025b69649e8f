"""The server: connections, the journal, the control paths."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import time
from typing import Any

from tests.upstream import answer, api, delivery
from tests.upstream.answer import Answer
from tests.upstream.faults import Fault, Faults
from tests.upstream.journal import Entry, Journal
from tests.upstream.request import Malformed, Reader, Request
from tests.upstream.storage import Storage


class Provider:
    """What all connections share."""

    def __init__(self, key: str = "") -> None:
        self.key = key
        self.journal = Journal()
        self.faults = Faults()
        self.storage = Storage()

    def control(self, request: Request) -> Answer:
        """Answer /__journal, /__spend, /__reset, /__fault."""
        match request.method, request.target.partition("?")[0]:
            case "GET", "/__journal":
                return answer.as_json(self.journal.document(request.query.get("mark", "")))
            case "GET", "/__spend":
                return answer.as_json(self.journal.spend())
            case "POST", "/__reset":
                self.journal.reset()
                self.faults = Faults()
            case "PUT", "/__fault":
                try:
                    self.faults.add(json.loads(request.body))
                except (ValueError, KeyError) as fault:
                    return answer.error(400, str(fault))
            case "DELETE", "/__fault":
                self.faults = Faults()
            case _:
                return answer.error(404, "no such control")
        return answer.as_json({"ok": True})

    def admitted(self, request: Request) -> bool:
        """Whether the request brings the provider's key (always, where none is set)."""
        sent = request.header("authorization"), request.header("api-key")
        return not self.key or sent[0] == f"Bearer {self.key}" or sent[1] == self.key


class Connection(asyncio.Protocol):
    """One connection: requests are answered one after the other."""

    def __init__(self, provider: Provider) -> None:
        self._provider = provider
        self._reader = Reader()
        self._entry: Entry | None = None  # of the request that is arriving
        self._answering: Entry | None = None
        self._queue: asyncio.Queue[tuple[Request, Entry | None]] = asyncio.Queue()
        self._writable = asyncio.Event()
        self._writable.set()
        self._slow = 0.0
        self._early: Request | None = None

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._provider.journal.connections += 1
        self._number = self._provider.journal.connections
        self._task = asyncio.get_running_loop().create_task(self._work())

    def data_received(self, data: bytes) -> None:
        try:
            done = self._reader.feed(data)
        except Malformed as fault:
            self._provider.journal.refuse(self._number, str(fault), data)
            self._transport.write(
                b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
            )
            self._transport.close()
            return
        for request in done:
            self._complete(request)
        if self._reader.current and self._entry is None:
            self._begin(self._reader.current)
        if self._slow and self._reader.current:
            self._transport.pause_reading()
            asyncio.get_running_loop().call_later(self._slow, self._read_on)

    def _read_on(self) -> None:
        if not self._transport.is_closing():
            self._transport.resume_reading()

    def _begin(self, request: Request) -> None:
        """The head is in."""
        if request.target.startswith("/__"):
            return
        self._entry = self._provider.journal.open(self._number, request)
        if request.header("expect").lower() == "100-continue":
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        fault = self._fault(request, "")
        self._slow = fault.slow_read
        if fault.early:
            self._early = request
            self._queue.put_nowait((request, self._entry))

    def _complete(self, request: Request) -> None:
        """The body is in."""
        if self._entry is None:
            self._begin(request)
        entry, self._entry = self._entry, None
        if entry:
            entry.complete_at = time.monotonic()
        if request is self._early:
            self._early = None
            return
        self._queue.put_nowait((request, entry))

    def _fault(self, request: Request, model: str) -> Fault:
        return self._provider.faults.find(model, request.target, request.header("x-mock-fault"))

    async def _work(self) -> None:
        reuse = True
        while reuse:
            request, entry = await self._queue.get()
            try:
                reuse = await self._answer(request, entry)
            except delivery.Cut as cut:
                self._cut(str(cut))
                return
        self._transport.close()

    async def _answer(self, request: Request, entry: Entry | None) -> bool:
        if entry is None:
            return await delivery.send(self._provider.control(request), Fault(), self._write, lambda: None)
        self._answering = entry
        try:
            entry.model = api.model_of(request)
            fault = self._fault(request, entry.model)
            reply = self._reply(request, fault)
        except Exception as error:
            fault, reply = Fault(), answer.error(500, f"the mock failed: {error!r}", "mock_bug")
        entry.status = reply.status
        entry.usage = reply.tokens.kinds() if reply.tokens else {}

        def noted() -> None:
            entry.pieces += 1

        reuse = await delivery.send(reply, fault, self._write, noted)
        entry.finished_at = time.monotonic()
        self._answering = None
        request.forget()
        return reuse and "close" not in request.header("connection").lower()

    def _reply(self, request: Request, fault: Fault) -> Answer:
        if not self._provider.admitted(request):
            return answer.error(401, "Incorrect API key provided.", "invalid_api_key")
        return api.reply(request, fault, self._provider.storage)

    async def _write(self, data: bytes) -> None:
        if self._answering:
            self._answering.first_sent_at = self._answering.first_sent_at or time.monotonic()
            self._answering.sent += len(data)
        self._transport.write(data)
        await self._writable.wait()

    def _cut(self, how: str) -> None:
        """End the connection ourselves, in the middle of an answer."""
        self._answering = None
        if how == "rst":
            linger = struct.pack("ii", 1, 0)
            self._transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            self._transport.abort()
        else:
            self._transport.close()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def eof_received(self) -> None:
        self._aborted()

    def connection_lost(self, error: Exception | None) -> None:
        self._aborted()
        self._task.cancel()

    def _aborted(self) -> None:
        """The client has gone: note it where an answer or a body was under way."""
        for entry in (self._answering, self._entry):
            if entry and not entry.aborted_at:
                entry.aborted_at = time.monotonic()


async def start(provider: Provider, port: int = 0, unix: str = "", tls: Any = None) -> asyncio.Server:
    """Listen on a loopback port, or on a Unix socket."""
    loop = asyncio.get_running_loop()
    if unix:
        return await loop.create_unix_server(lambda: Connection(provider), unix, ssl=tls)
    return await loop.create_server(lambda: Connection(provider), "127.0.0.1", port, backlog=4096, ssl=tls)
