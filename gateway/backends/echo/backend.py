"""The backend that asks nobody: it answers in OpenAI's shapes with what was said, and says what it is."""

from __future__ import annotations

import asyncio
import time
from typing import Any
from urllib.parse import unquote

from gateway.backends.echo import shapes
from gateway.core.call import Call
from gateway.core.codec import dumps
from gateway.core.errors import CallerError
from gateway.core.reply import Reply, Sink
from gateway.core.route import Target
from gateway.core.stream import StreamTap
from gateway.core.tap import ChatTap, ResponsesTap
from gateway.core.usage import from_openai
from gateway.settings.schema import BackendSettings

_JSON = (b"content-type", b"application/json")
_EVENTS = (b"content-type", b"text/event-stream; charset=utf-8")


class Pieces:
    """A `core.reply.Source` of pieces that are there already; other calls get their turn between them."""

    length = None

    def __init__(self, pieces: list[bytes]) -> None:
        self._pieces = pieces[::-1]
        self._going = asyncio.Event()
        self._going.set()
        self.done_at = 0.0

    async def begun(self) -> bool:
        """Whether there is any."""
        return bool(self._pieces)

    async def read(self) -> bytes:
        """The next piece, b"" at the end."""
        await asyncio.sleep(0)
        await self._going.wait()
        if self._pieces:
            return self._pieces.pop()
        self.done_at = time.monotonic()
        return b""

    async def pipe(self, sink: Sink) -> None:
        """Push every piece to the sink."""
        while piece := await self.read():
            sink.write(piece)

    def pause(self) -> None:
        """Wait until `resume`."""
        self._going.clear()

    def resume(self) -> None:
        """Go on."""
        self._going.set()

    def close(self) -> None:
        """No more."""
        self._pieces.clear()
        self._going.set()


class EchoBackend:
    """Implements `core.ports.Backend` without a network."""

    kind = "echo"

    def __init__(self, settings: BackendSettings) -> None:
        self.name = settings.name

    async def open(self) -> None:
        """Nothing to prepare."""

    def rekey(self, settings: BackendSettings) -> None:
        """It has no credentials."""

    async def close(self) -> None:
        """Nothing to close."""

    async def models(self) -> list[dict[str, Any]]:
        """One, to show what the list looks like; every name works."""
        return [shapes.model("echo")]

    def start(self, call: Call, target: Target) -> None:
        """Never: there is nobody to be waited for."""

    async def ask(self, call: Call, target: Target) -> Reply:
        """Answer at once."""
        call.sent = call.first_byte = time.monotonic()
        document = {**(call.document or {}), "model": target.model or call.model or "echo"}
        name, created = call.id.removeprefix("req_") or "echo", int(time.time())
        if call.stream:
            reply = _stream(call, document, name, created)
            if reply is not None:
                return reply
        made = _whole(call, document, name, created)
        usage = from_openai(made.get("usage"))
        if usage is not None:
            call.usage = usage
        return Reply(200, [_JSON], dumps(made))


def _stream(call: Call, document: shapes.Document, name: str, created: int) -> Reply | None:
    tap: StreamTap
    if call.endpoint in ("chat/completions", "completions"):
        pieces = shapes.chunks(document, name, created, call.endpoint == "chat/completions")
        options = document.get("stream_options")
        tap = ChatTap(hide_usage=not (isinstance(options, dict) and options.get("include_usage") is True))
    elif call.endpoint == "responses":
        pieces = shapes.response_events(document, name, created)
        tap = ResponsesTap()
    else:
        return None
    return Reply(200, [_EVENTS], source=Pieces(pieces), event_stream=True, tap=tap)


def _whole(call: Call, document: shapes.Document, name: str, created: int) -> shapes.Document:
    posted = call.method == "POST" and call.document is not None
    match call.path:
        case "/chat/completions" if posted:
            return shapes.chat(document, name, created)
        case "/completions" if posted:
            return shapes.completion(document, name, created)
        case "/responses" if posted:
            return shapes.response(document, name, created)
        case "/embeddings" if posted:
            return shapes.embeddings(document)
        case "/moderations" if posted:
            return shapes.moderation(document, name)
        case path if path.startswith("/models/") and call.method == "GET":
            return shapes.model(unquote(path[len("/models/") :]))
    raise CallerError(
        f"{shapes.NOTICE} It can't answer {call.method} {call.path[:128]}; it knows chat/completions, "
        "completions, responses, embeddings, moderations and models. Configure a backend for the rest.",
        status=404,
        code="caller_not_found",
    )
