"""What goes back: a status, headers, and the pieces of the body in the order they are sent."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from tests.upstream.tokens import Tokens

CREATED = 1_730_000_000


@dataclass(slots=True)
class Answer:
    """An answer before any fault. Server-sent events have one piece for each event."""

    status: int = 200
    headers: list[tuple[str, str]] = field(default_factory=list)
    pieces: list[bytes] = field(default_factory=list)
    events: bool = False
    model: str = ""
    tokens: Tokens | None = None


def as_json(document: Any, status: int = 200, model: str = "", tokens: Tokens | None = None) -> Answer:
    """A JSON answer."""
    body = json.dumps(document, ensure_ascii=False).encode()
    return Answer(status, [("Content-Type", "application/json")], [body], model=model, tokens=tokens)


def binary(data: bytes, kind: str = "application/octet-stream") -> Answer:
    """Bytes as they are."""
    return Answer(200, [("Content-Type", kind)], [data])


def stream(events: list[bytes], model: str, tokens: Tokens | None) -> Answer:
    """A stream of server-sent events."""
    headers = [("Content-Type", "text/event-stream; charset=utf-8"), ("Cache-Control", "no-cache")]
    return Answer(200, headers, events, events=True, model=model, tokens=tokens)


def event(document: Any, name: str = "") -> bytes:
    """One event, with its type where the API gives one."""
    head = f"event: {name}\n" if name else ""
    return f"{head}data: {json.dumps(document, ensure_ascii=False, separators=(',', ':'))}\n\n".encode()


def error(status: int, message: str, code: str | None = None) -> Answer:
    """OpenAI's error shape."""
    kinds = {401: "authentication_error", 404: "invalid_request_error", 429: "rate_limit_exceeded"}
    kind = kinds.get(status, "invalid_request_error" if status < 500 else "server_error")
    return as_json({"error": {"message": message, "type": kind, "param": None, "code": code}}, status)
