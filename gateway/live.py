"""The running pipeline: swapped at a reload, left by the calls that began on it, drained at the end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from gateway.core.errors import FaultError
from gateway.pipeline import Pipeline


class Running(Protocol):
    """A call under way, as the front holds it."""

    def expire(self) -> None:
        """End now: a stream gets a final error event, a call without an answer a 503."""


class Live:
    """What the fronts ask for the current pipeline, and what knows all calls under way."""

    __slots__ = ("_retire", "connections", "draining", "pipeline", "refused", "running", "worker")

    def __init__(self, pipeline: Pipeline, worker: int = 0) -> None:
        self.pipeline = pipeline
        self.worker = worker
        self.running: set[Running] = set()
        self.connections = 0
        self.draining = False
        self.refused: dict[str, int] = {}  # protocol errors before there was a call, by code
        self._retire: Callable[[Pipeline], None] | None = None

    @property
    def calls(self) -> int:
        """Calls under way."""
        return len(self.running)

    def swap(self, pipeline: Pipeline, retire: Callable[[Pipeline], None] | None = None) -> None:
        """Put a new pipeline in; `retire(old)` is called once the last call on the old one has ended."""
        old, self.pipeline = self.pipeline, pipeline
        if retire is None:
            return
        if old.inflight == 0:
            retire(old)
        else:
            old.on_idle = lambda: retire(old)

    def expire(self) -> None:
        """End every call still under way."""
        for running in list(self.running):
            running.expire()

    def count_refused(self, code: str) -> None:
        """Note a request that was refused before it became a call."""
        self.refused[code] = self.refused.get(code, 0) + 1


def draining() -> FaultError:
    """What is said to those whose call is not over when the drain time is."""
    return FaultError("The gateway is shutting down.", code="gateway_draining", retry_after=1)
