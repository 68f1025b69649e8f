"""Connections to one origin: reused newest first, bounded, each exchange under its deadlines."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections import deque
from time import monotonic
from typing import Any, Final

from gateway.core.errors import UpstreamError
from gateway.net.connection import Connection
from gateway.net.deadlines import overdue
from gateway.net.exchange import PooledExchange
from gateway.net.failure import (
    CONNECT_FAILED,
    CONNECT_TIMEOUT,
    OVERLOADED,
    TLS_FAILED,
    failure,
)
from gateway.net.lines import Lines
from gateway.net.outbound import Outbound
from gateway.net.port import Exchange, Transport
from gateway.settings.schema import Deadlines

__all__ = ["Exchange", "Pool", "Transport"]

KEEP: Final = 60.0  # seconds an idle connection is kept
QUEUE: Final = 1024  # calls that may wait for a connection


class Pool:
    """The `Transport` of one HTTP/1.1 origin.

    One timer serves all deadlines: while exchanges are under way it looks at each a few times a second, so a
    deadline is met late by at most `_grain` seconds and costs a call nothing. `connections` bounds what is
    open at once; a call beyond it waits its turn inside its connect deadline.
    """

    def __init__(
        self,
        name: str,
        host: str,
        port: int,
        timeout: Deadlines,
        *,
        connections: int = 1024,
        tls: ssl.SSLContext | None = None,
        keep: float = KEEP,
        lines: Lines | None = None,
    ) -> None:
        self.name = name
        self.lines = lines or Lines()
        self._host = host
        self._port = port
        self._tls = tls
        self._timeout = timeout
        self._limit = connections
        self._keep = keep
        self._grain = min(0.1, max(0.005, min(timeout.first, timeout.idle, timeout.total) / 10))
        self._idle: list[Connection] = []
        self._connections: set[Connection] = set()  # idle ones and those with an exchange
        self._waiting: deque[asyncio.Future[Connection | None]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self.open = 0  # connections open or being opened
        self.ticking = False  # the timer is set to look at active exchanges
        self._closed = False

    @property
    def counts(self) -> tuple[int, int, int]:
        """Connections with an exchange, idle ones, and calls waiting for one."""
        active = sum([connection.exchange is not None for connection in self._connections])
        return active, len(self._idle), len(self._waiting)

    def start(self, outbound: Outbound) -> PooledExchange | None:
        """See `net.port.Transport`."""
        idle = self._idle
        if not idle:
            return None
        started = monotonic()
        connection = idle.pop() if idle[-1].expires > started else self._reusable(started)
        return None if connection is None else self._sent(connection, outbound, started)

    async def send(self, outbound: Outbound) -> PooledExchange:
        """See `net.port.Transport`. A stale connection is replaced, and the request sent again, once."""
        exchange = self.start(outbound) or await self._fresh(outbound, monotonic())
        return await self.arrived(exchange, outbound)

    async def arrived(self, exchange: Exchange, outbound: Outbound) -> PooledExchange:
        """See `net.port.Transport`."""
        assert isinstance(exchange, PooledExchange), "it is one of `start`"
        await exchange.headed()
        if exchange.stale and not exchange.status:
            exchange = await self._fresh(outbound, exchange.started)
            await exchange.headed()
        if exchange.error is not None and not exchange.status:
            raise exchange.error
        return exchange

    async def _fresh(self, outbound: Outbound, started: float) -> PooledExchange:
        begun = monotonic()
        connection = await self._obtain()
        self._connections.add(connection)
        connect_time = monotonic() - begun
        exchange = self._sent(connection, outbound, started)
        exchange.connect_time = connect_time
        return exchange

    def _sent(self, connection: Connection, outbound: Outbound, started: float) -> PooledExchange:
        exchange = PooledExchange(connection, started, started + self._timeout.total)
        connection.ask(exchange, outbound)
        if not self.ticking:
            self._rearm()
        return exchange

    async def close(self) -> None:
        """Close idle connections; exchanges under way go on."""
        self._closed = True
        for connection in self._idle[:]:
            connection.cut()
        self._rearm()
        await asyncio.sleep(0)  # the event loop closes sockets on its next turn

    # what connections call

    def freed(self, connection: Connection, now: float) -> None:
        """Keep it, or hand it to the call that has waited longest."""
        keep = self._keep
        if connection.keep_for is not None:
            keep = min(keep, connection.keep_for * 0.8)  # not at the very moment when the peer closes
        connection.expires = now + keep
        if self._closed:
            connection.cut()
        elif not (self._waiting and self._serve(connection)):
            self._idle.append(connection)

    def dropped(self, connection: Connection) -> None:
        """It is being closed: nobody may use it."""
        self._connections.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)

    def lost(self, connection: Connection) -> None:
        """It is closed: its place is free."""
        if connection.placed:
            connection.placed = False
            self._vacate()

    # the clock

    def _rearm(self) -> None:
        """Set the timer: fine while exchanges are under way, else for the next idle connection's end."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self.ticking = any([connection.exchange is not None for connection in self._connections])
        if self.ticking:
            delay = self._grain
        elif self._idle:
            delay = max(self._grain, min(c.expires for c in self._idle) - monotonic())
        else:
            return
        self._timer = asyncio.get_running_loop().call_later(delay, self._sweep)

    def _sweep(self) -> None:
        now = monotonic()
        for connection in list(self._connections):
            error = overdue(connection, self._timeout, now)
            if error is not None:
                connection.cut(error)
        for connection in [c for c in self._idle if c.expires <= now]:
            connection.cut()
        self._rearm()

    # connections

    def _reusable(self, now: float) -> Connection | None:
        idle = self._idle
        while idle:
            connection = idle.pop()
            if connection.expires > now:
                return connection
            connection.cut()
        return None

    async def _obtain(self) -> Connection:
        """A new connection, or where all are taken the first one that is given back."""
        code, what = OVERLOADED, f"all of its {self._limit} connections are taken"
        try:
            async with asyncio.timeout(self._timeout.connect):
                while self.open >= self._limit:
                    handed = await self._turn()
                    if handed is None:
                        break  # a place, already counted
                    if not handed.gone:
                        return handed
                else:
                    self.open += 1
                code, what = CONNECT_TIMEOUT, f"no connection within {self._timeout.connect:g} s"
                return await self._dial()
        except TimeoutError:
            raise failure(code, self.name, what, sent=False) from None

    async def _turn(self) -> Connection | None:
        """Wait for a connection, or (None) for a place that is then this call's to fill."""
        if len(self._waiting) >= QUEUE:
            raise TimeoutError
        turn: asyncio.Future[Connection | None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            return await turn
        except BaseException:
            if turn in self._waiting:
                self._waiting.remove(turn)
            elif not turn.cancelled():  # it was served in the very moment in which it gave up
                self._pass_on(turn.result())
            raise

    def _pass_on(self, handed: Connection | None) -> None:
        if handed is None:
            self._vacate()
        elif not handed.gone:
            self.freed(handed, monotonic())

    def _serve(self, found: Connection | None) -> bool:
        """Give a connection or a place to the first in the queue who still wants it."""
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(found)
                return True
        return False

    def _vacate(self) -> None:
        if not self._serve(None):
            self.open -= 1

    async def _dial(self) -> Connection:
        """Connect in a place that has been counted; the place is given up when it fails."""
        connection = Connection(self)
        try:
            await asyncio.get_running_loop().create_connection(
                lambda: connection,
                self._host,
                self._port,
                ssl=self._tls,
                server_hostname=self._host if self._tls is not None else None,
            )
        except BaseException as error:
            connection.cut()
            self.lost(connection)
            if isinstance(error, OSError | UnicodeError) and not isinstance(error, TimeoutError):
                raise _explained(error, self.name) from error
            raise
        if connection.gone:
            raise failure(CONNECT_FAILED, self.name, "it closed the new connection at once", sent=False)
        return connection


def _explained(error: OSError | UnicodeError, name: str) -> UpstreamError:
    if isinstance(error, ssl.SSLCertVerificationError):
        why: Any = error.verify_message
        return failure(TLS_FAILED, name, f"its certificate is not good: {why}", sent=False)
    if isinstance(error, ssl.SSLError):
        why = getattr(error, "reason", None) or type(error).__name__  # not every error of OpenSSL has a name
        return failure(TLS_FAILED, name, f"no TLS with it: {why}", sent=False)
    if isinstance(error, ConnectionResetError | ConnectionAbortedError):
        return failure(TLS_FAILED, name, "it broke off the TLS handshake", sent=False)
    if isinstance(error, socket.gaierror):
        return failure(CONNECT_FAILED, name, "its host name has no address", sent=False)
    what = getattr(error, "strerror", None) or type(error).__name__
    return failure(CONNECT_FAILED, name, f"could not connect: {what}", sent=False)
