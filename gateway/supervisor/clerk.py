"""One thread for work that may block, done in order.

An executor with its futures and locks costs three times as much per piece (155 to 50 us), and the ledger has
some every tenth of a second.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Awaitable, Callable
from queue import SimpleQueue
from typing import Any, Protocol, TypeVar

T = TypeVar("T")


class InThread(Protocol):
    """`Clerk.do`, or whatever else runs blocking work in the one thread where its objects live."""

    def __call__(self, work: Callable[[], T], /) -> Awaitable[T]: ...


_Work = tuple[Callable[[], Any], "asyncio.Future[Any]", asyncio.AbstractEventLoop]


class Clerk:
    """Starts with the first piece of work; `close` ends it after what it has been given."""

    def __init__(self, name: str) -> None:
        self._desk: SimpleQueue[_Work | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._started = self._closed = False

    async def do(self, work: Callable[[], T]) -> T:
        """Have it done there. A caller that is cancelled meanwhile leaves it to be done all the same."""
        if self._closed:
            raise RuntimeError("nobody is there to do it any more")
        if not self._started:
            self._started = True
            self._thread.start()
        loop = asyncio.get_running_loop()
        done: asyncio.Future[T] = loop.create_future()
        self._desk.put((work, done, loop))
        return await done

    def _run(self) -> None:
        while (given := self._desk.get()) is not None:
            work, done, loop = given
            said: Any
            try:
                failed, said = False, work()
            except BaseException as error:
                failed, said = True, error
            with contextlib.suppress(RuntimeError):  # the loop was closed, nobody waits
                loop.call_soon_threadsafe(_tell, done, failed, said)
            del given, work, done, said  # keep nothing while there is nothing to do

    def close(self) -> None:
        """Wait for what it has been given."""
        self._closed = True
        self._desk.put(None)
        if self._started:
            self._thread.join()


def _tell(done: asyncio.Future[Any], failed: bool, said: Any) -> None:
    if done.cancelled():
        return
    if failed:
        done.set_exception(said)
    else:
        done.set_result(said)
