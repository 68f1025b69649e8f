"""httpcore's network, with writes that a cancellation does not tear."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterable
from typing import Any

from httpcore import AnyIOBackend, AsyncNetworkBackend, AsyncNetworkStream

_LEFT = 5.0  # seconds that a write has to come to its end once its call has left


class Network(AsyncNetworkBackend):
    """How a pool of httpcore's connects."""

    def __init__(self) -> None:
        self._below = AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> AsyncNetworkStream:
        """See httpcore."""
        return Wire(await self._below.connect_tcp(host, port, timeout, local_address, socket_options))


class Wire(AsyncNetworkStream):
    """One connection. Each write runs as a task of its own, to its end, and in the order they came.

    The calls of an HTTP/2 connection share it: a write that ended in the middle, because its call was
    cancelled, would lose frames that httpcore counts as sent, or a TLS record, and with that break all.
    """

    def __init__(self, below: AsyncNetworkStream) -> None:
        self._below = below
        self._turn = asyncio.Lock()
        self._left: set[asyncio.Task[None]] = set()  # writes that nobody waits for any more

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """See httpcore."""
        return await self._below.read(max_bytes, timeout)

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """See httpcore."""
        if not buffer:
            return
        writing = asyncio.get_running_loop().create_task(self._write(buffer, timeout))
        try:
            await asyncio.wait([writing])
        except asyncio.CancelledError:
            task = asyncio.get_running_loop().create_task(self._leave(writing))
            self._left.add(task)
            task.add_done_callback(self._left.discard)
            raise
        writing.result()

    async def aclose(self) -> None:
        """See httpcore. Writes under way end with it."""
        await self._below.aclose()
        if self._left:
            await asyncio.wait(self._left)

    async def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> AsyncNetworkStream:
        """See httpcore."""
        return Wire(await self._below.start_tls(ssl_context, server_hostname, timeout))

    def get_extra_info(self, info: str) -> Any:
        """See httpcore."""
        return self._below.get_extra_info(info)

    async def _write(self, buffer: bytes, timeout: float | None) -> None:
        async with self._turn:
            await self._below.write(buffer, timeout)

    async def _leave(self, writing: asyncio.Task[None]) -> None:
        """See a write end that nobody waits for; a peer that takes nothing loses the connection."""
        done, _ = await asyncio.wait([writing], timeout=_LEFT)
        if not done:
            await self._below.aclose()
            await asyncio.wait([writing])
        writing.exception()
