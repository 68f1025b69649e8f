"""The listening socket: accepts connections fairly, boundedly, and hands each to its protocol."""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import ssl
from collections.abc import Callable
from typing import Any

log = logging.getLogger("penstock.door")

_NO_ROOM = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_HANDSHAKE = 10.0  # seconds for a TLS handshake


class Connections(set[Any]):
    """The open connections, as uvicorn's protocol keeps them; tells when one has gone."""

    def __init__(self, gone: Callable[[], None]) -> None:
        super().__init__()
        self._gone = gone

    def discard(self, connection: Any) -> None:
        """A connection has closed."""
        super().discard(connection)
        self._gone()


class Door:
    """Accepts one connection each time the socket is ready, so that workers on one socket share them.

    libuv's own loop accepts until the backlog is empty and leaves its siblings idle. With `bound`
    connections open it stops accepting until one closes.
    """

    def __init__(self, listener: socket.socket) -> None:
        listener.setblocking(False)
        self.connections = Connections(self._watch)
        self._listener = listener
        self._loop = asyncio.get_running_loop()
        self._protocol: Callable[[], asyncio.Protocol] = asyncio.Protocol
        self._tls: ssl.SSLContext | None = None
        self._bound = 0
        self._watching = False
        self._opening: set[asyncio.Task[None]] = set()

    def open(self, protocol: Callable[[], asyncio.Protocol], tls: ssl.SSLContext | None, bound: int) -> None:
        """Serve new connections like this from now on; those that are open stay as they are."""
        self._protocol, self._tls, self._bound = protocol, tls, bound
        self._watch()

    @property
    def count(self) -> int:
        """Connections open, those still in their handshake included."""
        return len(self.connections) + len(self._opening)

    def _watch(self) -> None:
        if not self._watching and self.count < self._bound:
            self._watching = True
            self._loop.add_reader(self._listener, self._accept)

    def _unwatch(self) -> None:
        if self._watching:
            self._watching = False
            self._loop.remove_reader(self._listener)

    def _accept(self) -> None:
        try:
            sock, _ = self._listener.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return  # another worker was faster, or the client has left
        except OSError as error:
            if error.errno not in _NO_ROOM:
                raise
            log.warning("no connection is accepted for a moment: %s", error.strerror)
            self._unwatch()
            self._loop.call_later(0.1, self._watch)
            return
        task = self._loop.create_task(self._welcome(sock))
        self._opening.add(task)
        task.add_done_callback(self._opened)
        if self.count >= self._bound:
            self._unwatch()

    def _opened(self, task: asyncio.Task[None]) -> None:
        self._opening.discard(task)
        self._watch()

    async def _welcome(self, sock: socket.socket) -> None:
        limit = _HANDSHAKE if self._tls else None
        try:
            sock.setblocking(False)
            await self._loop.connect_accepted_socket(
                self._protocol, sock, ssl=self._tls, ssl_handshake_timeout=limit
            )
        except OSError as error:  # TLS errors and time-outs are OSErrors too
            log.debug("a connection did not come about: %s", error)
            sock.close()

    def close(self) -> None:
        """Accept no more, and ask every connection to close after the answer it is giving."""
        self._bound = 0
        self._unwatch()
        self._listener.close()
        for connection in list(self.connections):
            connection.shutdown()

    def expire(self) -> None:
        """The drain time is over: wait for no request that is still on its way."""
        for connection in list(self.connections):
            connection.expire()

    async def emptied(self, seconds: float) -> bool:
        """Wait at most so long until every connection has closed; whether they have."""
        deadline = self._loop.time() + seconds
        while self.count and self._loop.time() < deadline:
            await asyncio.sleep(0.02)
        return not self.count
