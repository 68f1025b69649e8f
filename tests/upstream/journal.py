"""What arrived, on which connection, and how each answer ended. Times are `time.monotonic()` seconds."""

from __future__ import annotations

import base64
import time
from dataclasses import dataclass, field
from typing import Any

from tests.upstream.request import KEPT, Request


@dataclass(slots=True, eq=False)
class Entry:
    """One request and its answer."""

    number: int
    connection: int
    request: Request
    head_at: float
    complete_at: float = 0.0
    first_sent_at: float = 0.0
    finished_at: float = 0.0
    aborted_at: float = 0.0  # the client went while the answer was under way
    status: int = 0
    pieces: int = 0  # events or body pieces sent
    sent: int = 0  # bytes of the answer handed to the socket
    model: str = ""
    usage: dict[str, int] = field(default_factory=dict)

    def has(self, mark: str) -> bool:
        """Whether the request contains a mark."""
        request = self.request
        inside = mark in request.target or mark.encode() in request.body
        return inside or any(mark in value for _, value in request.headers)

    def document(self) -> dict[str, Any]:
        """As JSON."""
        request = self.request
        whole = len(request.body) == request.size <= KEPT
        return {
            "number": self.number,
            "connection": self.connection,
            "method": request.method,
            "target": request.target,
            "headers": request.headers,
            "body": base64.b64encode(request.body).decode() if whole else None,
            "size": request.size,
            "sha256": request.digest.hexdigest(),
            "head_at": self.head_at,
            "complete_at": self.complete_at,
            "first_sent_at": self.first_sent_at,
            "finished_at": self.finished_at,
            "aborted_at": self.aborted_at,
            "status": self.status,
            "pieces": self.pieces,
            "sent": self.sent,
            "model": self.model,
            "usage": self.usage,
        }


class Journal:
    """All entries since the last reset, in order of arrival."""

    def __init__(self) -> None:
        self.connections = 0
        self.reset()

    def reset(self) -> None:
        """Forget everything but the connection counter."""
        self.entries: list[Entry] = []
        self.malformed: list[dict[str, Any]] = []

    def open(self, connection: int, request: Request) -> Entry:
        """Note a request whose head has arrived."""
        entry = Entry(len(self.entries), connection, request, time.monotonic())
        self.entries.append(entry)
        return entry

    def refuse(self, connection: int, why: str, data: bytes) -> None:
        """Note bytes that were no request."""
        raw = base64.b64encode(data[:4096]).decode()
        self.malformed.append({"connection": connection, "why": why, "data": raw, "at": time.monotonic()})

    def document(self, mark: str = "") -> dict[str, Any]:
        """As JSON: the entries with `mark` somewhere in target, headers or body."""
        return {
            "connections": self.connections,
            "entries": [entry.document() for entry in self.entries if not mark or entry.has(mark)],
            "malformed": self.malformed,
        }

    def spend(self) -> dict[str, dict[str, int]]:
        """Per model: calls answered to the end, and their tokens by disjoint kind."""
        total: dict[str, dict[str, int]] = {}
        for entry in self.entries:
            if entry.finished_at and entry.usage and entry.status == 200:
                sums = total.setdefault(entry.model, {"calls": 0})
                sums["calls"] += 1
                for kind, count in entry.usage.items():
                    sums[kind] = sums.get(kind, 0) + count
        return total
