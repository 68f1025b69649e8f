"""Messages between replicas: listens, and listens again when the connection was lost."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from typing import Any

from redis.exceptions import RedisError

from gateway.stores.redis.client import CONNECT, Lost, Store

_SILENCE = 5.0  # seconds without a message after which a sign of life is asked for
_PAUSES = (0.1, 0.2, 0.4, 1.0)  # seconds before connecting again


class Channel:
    """Calls `hear(channel, data)` for each message, and `joined` each time it begins to listen.

    What was published while it did not listen is lost: `joined` is the time to look for it elsewhere.
    Both must not fail; they are called in the event loop's own thread.
    """

    def __init__(
        self,
        store: Store,
        names: Sequence[str],
        hear: Callable[[str, bytes], None],
        joined: Callable[[], None] = lambda: None,
    ) -> None:
        self._store = store
        self._names = {store.named(name): name for name in names}
        self._hear = hear
        self._joined = joined
        self._task: asyncio.Task[None] | None = None

    def open(self) -> None:
        """Begin; returns at once."""
        self._task = asyncio.create_task(self._listen())

    async def close(self) -> None:
        """Listen no more."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _listen(self) -> None:
        failures = 0
        while True:
            heard = False
            try:
                async with contextlib.AsyncExitStack() as stack:
                    listening = await self._subscribed(stack)
                    heard = True
                    await self._follow(listening)
            except (RedisError, OSError, TimeoutError, Lost):
                failures = 0 if heard else failures + 1
            await asyncio.sleep(_PAUSES[min(failures, len(_PAUSES) - 1)])

    async def _subscribed(self, stack: contextlib.AsyncExitStack) -> Any:
        listening = await self._store.listening(stack)
        async with asyncio.timeout(CONNECT):
            await listening.subscribe(*self._names)
        self._joined()
        return listening

    async def _follow(self, listening: Any) -> None:
        asked = False
        while True:
            message = await listening.get_message(timeout=_SILENCE)
            if message is None:
                if asked:
                    raise TimeoutError
                asked = True
                await listening.ping()
                continue
            asked = False
            if message["type"] == "message":
                self._hear(self._names[message["channel"].decode()], message["data"])
