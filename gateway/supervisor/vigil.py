"""Sees that a piece of work of the ledger takes its time, says so, and gives up what is hopeless."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from types import TracebackType

_SOON = 3.0  # seconds from which on it is said
_AGAIN = 1.0  # seconds between two looks


class Vigil:
    """A context for work that is done in another thread; may be entered again, but not twice at once.

    `troubled` is told for how long it has taken (seconds; 0.0 when it has ended well after all), `give_up`
    may end what it waits for.
    """

    def __init__(self, troubled: Callable[[float], None], give_up: Callable[[], None]) -> None:
        self._troubled = troubled
        self._give_up = give_up
        self._since = 0.0
        self._told = False
        self._timer: asyncio.TimerHandle | None = None

    def __enter__(self) -> None:
        self._since = time.monotonic()
        self._rest(_SOON)

    def _rest(self, pause: float) -> None:
        self._timer = asyncio.get_running_loop().call_later(pause, self._look)

    def _look(self) -> None:
        self._told = True
        self._troubled(time.monotonic() - self._since)
        self._give_up()
        self._rest(_AGAIN)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()
        told, self._told = self._told, False
        if told and kind is None:
            self._troubled(0.0)
