"""What all client connections of a worker share: call ids, calls under way, deadlines, body memory."""

from __future__ import annotations

import asyncio
import os
import time
from typing import Final, Protocol

from gateway.core.call import Call
from gateway.core.errors import FaultError
from gateway.front.request import Head
from gateway.front.turn import Turn
from gateway.live import Live
from gateway.pipeline import Pipeline
from gateway.settings.schema import Bounds

_LAST: Final = [f"{number:02x}" for number in range(256)]
_SWEEP: Final = 0.5  # seconds between two looks at the connections' deadlines


class Connection(Protocol):
    """A client connection as the sweep sees it: `deadline` is monotonic seconds, 0.0 for none."""

    deadline: float

    def overdue(self) -> None:
        """The deadline has passed."""


class Entrant(Protocol):
    """A call under way, of either lane."""

    pipeline: Pipeline

    def expire(self) -> None:
        """End now."""


class Intake:
    """Shared by every connection; one per worker. All methods are called on the event loop."""

    def __init__(self, live: Live, bounds: Bounds) -> None:
        self.live = live
        self.bounds = bounds
        self.turn = Turn()
        self._connections: set[Connection] = set()
        self._held = 0
        self._count = 0
        self._name = f"req_{os.urandom(8).hex()}"
        self._prefix = f"{self._name}{0:06x}"
        self._skew = time.time() - time.monotonic()
        self._sweeper: asyncio.TimerHandle | None = None

    # -- calls

    def call(self, head: Head, body: bytes, received: float) -> Call:
        """A Call for a request that is whole."""
        call = Call(head.method, head.path, head.endpoint, head.headers, body)
        call.passed = head.passed
        call.query = head.query
        call.origin = head
        call.trace = head.trace
        self.stamp(call, received)
        return call

    def stamp(self, call: Call, received: float) -> None:
        """Give a call its id, its times and the revision it runs on."""
        self._count = count = self._count + 1
        if not count & 255:
            self._prefix = f"{self._name}{count >> 8:06x}"
        call.id = self._prefix + _LAST[count & 255]
        call.received = received
        call.wall = received + self._skew
        call.arrived = time.monotonic()
        call.revision = self.live.pipeline.revision

    def enter(self, conversation: Entrant) -> None:
        """A call begins, on the pipeline that is current now."""
        live = self.live
        pipeline = conversation.pipeline = live.pipeline
        pipeline.inflight += 1
        live.running.add(conversation)

    def exit(self, conversation: Entrant) -> None:
        """It has ended."""
        self.live.running.discard(conversation)
        conversation.pipeline.leave()

    # -- connections

    def join(self, connection: Connection) -> None:
        """A client has connected."""
        self._connections.add(connection)
        self.live.connections = len(self._connections)
        if self._sweeper is None:
            self._sweeper = asyncio.get_running_loop().call_later(_SWEEP, self._sweep)

    def leave(self, connection: Connection) -> None:
        """It has gone."""
        self._connections.discard(connection)
        self.live.connections = len(self._connections)

    def _sweep(self) -> None:
        """One timer for all connections: a timer for each would cost more than the calls' parsing."""
        now = time.monotonic()
        self._skew = time.time() - now
        for connection in list(self._connections):
            if connection.deadline and connection.deadline < now:
                connection.overdue()
        loop = asyncio.get_running_loop()
        self._sweeper = loop.call_later(_SWEEP, self._sweep) if self._connections else None

    # -- memory

    def reserve(self, size: int) -> None:
        """Room for `size` bytes of a request body. Raises `FaultError` (503) when there is none."""
        if self._held + size > self.bounds.memory:
            raise FaultError(
                "Too many large request bodies are under way.", code="gateway_overloaded", retry_after=1
            )
        self._held += size

    def release(self, size: int) -> None:
        """Give it back."""
        self._held -= size
