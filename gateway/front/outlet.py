"""The way to the client under ASGI. Where nobody reads, a server waits there for ever; a call does not."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from gateway.core.call import Call
from gateway.core.errors import CallerError, GatewayError
from gateway.net.failure import TOTAL_TIMEOUT, failure

_LAST_WORDS = 2.0  # seconds a client has for the end of its answer when the time is over


class BrokenBody(Exception):
    """An answer broke off whose body has no way to say so, or which nobody takes: the server is to cut it."""


class Outlet:
    """Sends with a deadline. `until` is when the call's time is over (monotonic), 0.0 where its source has
    none: then each message has `patience` seconds. With `over` set, it is over now.
    """

    def __init__(
        self, send: Callable[[MutableMapping[str, Any]], Awaitable[None]], call: Call, patience: float
    ) -> None:
        self.until = 0.0
        self.over = False
        self._send = send
        self._call = call
        self._patience = patience

    async def say(self, message: MutableMapping[str, Any], least: float = 0.0) -> None:
        """Send one message. Raises `GatewayError` where it is not taken in time, but `least` seconds."""
        left = self.until - time.monotonic() if self.until else self._patience
        try:
            async with asyncio.timeout(max(0.0 if self.over else left, least)):
                await self._send(message)
        except TimeoutError:
            raise self._untaken() from None

    async def last(self, *messages: MutableMapping[str, Any]) -> None:
        """Send what ends an answer. Raises `BrokenBody`: no more can be said."""
        try:
            for message in messages:
                await self.say(message, _LAST_WORDS)
        except GatewayError as error:
            raise BrokenBody(error.code) from error

    def _untaken(self) -> GatewayError:
        target = self._call.target
        if target is None or not self.until:
            return CallerError("The answer was not taken in time.", status=408, code="caller_timeout")
        return failure(TOTAL_TIMEOUT, target.backend, "its answer was not taken in time")
