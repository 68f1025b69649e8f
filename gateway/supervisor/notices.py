"""Notices on their way: one log line and one count each, then to every listener that wants its kind.

Nothing waits for a listener. Each has a queue of its own; what does not fit, and what it could not pass on
after all tries, is dropped and counted.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from gateway.core.notice import KINDS, Listener, Notice, Unwanted

log = logging.getLogger("penstock.notices")

Count = Callable[..., None]  # (series, *labels): one more of it
Made = tuple[str, Listener, tuple[str, ...]]  # "module:Class", the listener, globs of kinds

QUEUE = 1000  # notices that wait for one listener
DEADLINE = 10.0  # seconds for one try
TRIES = 6
_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 60.0  # seconds between tries, doubled each time
_GRACE = 2.0  # seconds that a listener has for what waits when it is closed
_BURST, _SPAN = 200, 1.0  # notices at most in so many seconds: a flood of them helps nobody

_CALM = frozenset(("store.back", "config.accepted", "ledger.back", "secret.back"))


@dataclass(slots=True)
class _Ear:
    """One listener, what waits for it, and the task that gives it to it."""

    use: str
    listener: Listener
    kinds: tuple[str, ...]
    waiting: deque[Notice] = field(default_factory=deque)
    arrived: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None
    leaving: bool = False

    def wants(self, kind: str) -> bool:
        return any(fnmatchcase(kind, glob) for glob in self.kinds)


class Notices:
    """What the supervisor's parts call to tell of something. One loop owns it."""

    def __init__(
        self, count: Count, first_pause: float = _FIRST_PAUSE, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._count = count
        self._first_pause = first_pause
        self._clock = clock
        self._ears: list[_Ear] = []
        self._leaving: set[asyncio.Task[None]] = set()
        self._recent: deque[float] = deque(maxlen=_BURST)

    def tell(self, notice: Notice) -> None:
        """Note it and pass it on. Never blocks, never raises."""
        self._count("notices", notice.kind if notice.kind in KINDS else "other")
        now = self._clock()
        if len(self._recent) == _BURST and now - self._recent[0] < _SPAN:
            self._count("notices_dropped", "flood")
            return
        self._recent.append(now)
        level = logging.INFO if notice.kind in _CALM else logging.WARNING
        event = {"event": notice.kind, "subject": notice.subject, "detail": dict(notice.detail)}
        log.log(level, "%s: %s", KINDS.get(notice.kind, notice.kind), notice.subject, extra=event)
        for ear in self._ears:
            if ear.wants(notice.kind):
                self._queue(ear, notice)

    def happened(self, kind: str, subject: str, **detail: Any) -> None:
        """The same, now."""
        self.tell(Notice(kind, subject, detail, time.time_ns() // 1_000_000))

    def _queue(self, ear: _Ear, notice: Notice) -> None:
        if len(ear.waiting) >= QUEUE:
            self._count("notices_dropped", "queue")
            return
        ear.waiting.append(notice)
        ear.arrived.set()

    def listen(self, listeners: Sequence[Made]) -> None:
        """Tell these from now on, in place of those before; they get what waits for them, then they close."""
        for ear in self._ears:
            self._dismiss(ear)
        self._ears = [_Ear(use, listener, kinds) for use, listener, kinds in listeners]
        for ear in self._ears:
            ear.task = asyncio.create_task(self._serve(ear))

    def _dismiss(self, ear: _Ear) -> None:
        ear.leaving = True
        ear.arrived.set()
        task = asyncio.create_task(_ended(ear))
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)

    async def close(self) -> None:
        """Let all go; what waits has two seconds."""
        self.listen(())
        if self._leaving:
            await asyncio.wait(set(self._leaving))

    # -- one listener

    async def _serve(self, ear: _Ear) -> None:
        pause = self._first_pause
        while not await self._opened(ear) and not ear.leaving:
            await _rest(ear, pause)
            pause = min(pause * 2, _LONGEST_PAUSE)
        while ear.waiting or not ear.leaving:
            if not ear.waiting:
                ear.arrived.clear()
                await ear.arrived.wait()
                continue
            await self._deliver(ear, ear.waiting.popleft())

    async def _opened(self, ear: _Ear) -> bool:
        try:
            async with asyncio.timeout(DEADLINE):
                await ear.listener.open()
        except Exception as error:
            log.warning("the listener %s can't be opened: %s", ear.use, _told(error))
            return False
        return True

    async def _deliver(self, ear: _Ear, notice: Notice) -> None:
        pause = self._first_pause
        for left in reversed(range(TRIES)):
            try:
                async with asyncio.timeout(DEADLINE):
                    await ear.listener.hear(notice)
                return
            except Unwanted as error:
                why, left = str(error), 0
            except Exception as error:
                why = _told(error)
            if not left or ear.leaving:
                break
            await _rest(ear, pause)
            pause = min(pause * 2, _LONGEST_PAUSE)
        self._count("notices_dropped", "undelivered")
        log.warning("the listener %s did not take a notice of %s: %s", ear.use, notice.kind, why)


async def _rest(ear: _Ear, pause: float) -> None:
    """Wait, but not when the listener is to go."""
    end = asyncio.get_running_loop().time() + pause
    while not ear.leaving and (left := end - asyncio.get_running_loop().time()) > 0:
        ear.arrived.clear()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(ear.arrived.wait(), left)


async def _ended(ear: _Ear) -> None:
    """Give the task its grace, then close the listener."""
    assert ear.task is not None
    await asyncio.wait({ear.task}, timeout=_GRACE)
    ear.task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await ear.task
    try:
        async with asyncio.timeout(_GRACE):
            await ear.listener.close()
    except Exception as error:
        log.warning("the listener %s can't be closed: %s", ear.use, _told(error))


def _told(error: Exception) -> str:
    """A failure in few words. Its own text may quote what was sent, so only our `Unwanted` is cited."""
    return "it took too long" if isinstance(error, TimeoutError) else type(error).__name__


def kinds_of(options: Mapping[str, Any]) -> tuple[str, ...]:
    """The globs of a listener's option `kinds`. Raises `ValueError` for one that no kind matches."""
    wanted = options.get("kinds", ["*"])
    globs = (wanted,) if isinstance(wanted, str) else tuple(wanted)
    for glob in globs:
        if not isinstance(glob, str) or not any(fnmatchcase(kind, glob) for kind in KINDS):
            raise ValueError(f"kinds: {glob!r} matches no kind of notice; there are {', '.join(KINDS)}")
    return globs
