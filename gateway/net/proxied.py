"""The way out through httpx: for backends behind a forward proxy, or that ask for HTTP/2."""

from __future__ import annotations

import asyncio
import ssl
from time import monotonic
from typing import TYPE_CHECKING, Any

import httpx

from gateway.net.failure import CONNECT_TIMEOUT, FIRST_BYTE_TIMEOUT, TOTAL_TIMEOUT, failure
from gateway.net.multiplexed import mend
from gateway.net.pool import KEEP
from gateway.net.streamed import StreamedExchange
from gateway.net.translated import translated
from gateway.net.written import Network

if TYPE_CHECKING:
    from gateway.net.outbound import Outbound
    from gateway.net.port import Exchange
    from gateway.settings.schema import BackendSettings


_EARLY = 0.01  # seconds: an event loop's clock has milliseconds and may ring before ours says so


class Proxied:
    """The `Transport` of one origin on httpx's connections.

    Only httpx's transport is used, not its client: no redirects, cookies, decoding or added headers.
    Deadlines mean what they mean for the pool, so httpx gets only those that belong to connecting.
    """

    def __init__(self, settings: BackendSettings, base: tuple[str, str, int], tls: ssl.SSLContext) -> None:
        self.name = settings.name
        self.timeout = settings.timeout
        self.under_way: set[StreamedExchange] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False
        self._scheme, self._host, self._port = base
        self._way = httpx.AsyncHTTPTransport(
            verify=tls,
            trust_env=False,
            http2=settings.http2,
            proxy=settings.proxy.reveal() if settings.proxy else None,
            limits=httpx.Limits(
                max_connections=settings.connections,
                max_keepalive_connections=settings.connections,
                keepalive_expiry=KEEP,
            ),
        )
        self._way._pool._network_backend = Network()  # httpx has no parameter for it

    async def send(self, outbound: Outbound) -> StreamedExchange:
        """See `net.port.Transport`."""
        exchange = StreamedExchange(self, monotonic())
        self.under_way.add(exchange)
        watch = _Watch(self, exchange)
        try:
            async with asyncio.timeout(self.timeout.total) as watch.clock:
                exchange.begin(await self._way.handle_async_request(self._request(outbound, watch)))
        except BaseException as error:
            outbound.sent_at = exchange.sent_at
            watch.abandon()
            exchange.close()
            self.ended(exchange)
            if isinstance(error, TimeoutError):
                raise self._late(exchange) from None
            if isinstance(error, Exception):
                raise translated(error, self.name, exchange.sent_at > 0) from error
            raise
        return exchange

    def start(self, outbound: Outbound) -> None:
        """Never at once: httpx waits for everything."""

    async def arrived(self, exchange: Exchange, outbound: Outbound) -> Exchange:
        """See `net.port.Transport`; nothing is ever started."""
        return exchange

    async def close(self) -> None:
        """Close idle connections; the last exchange under way closes the rest when it ends."""
        self._closed = True
        if not self.under_way:
            await self._way.aclose()
        while self._tasks:
            await asyncio.wait(self._tasks)

    def ended(self, exchange: StreamedExchange) -> None:
        """Told by an exchange that needs its connection no more."""
        self.under_way.discard(exchange)
        if self._closed and not self.under_way:
            self.later(self._way.aclose())

    def later(self, work: Any) -> None:
        """Run what only a task can do after a plain `close`."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def connection_of(self, request: object) -> Any:
        """The httpcore connection that carries this request, or None. Uses httpcore's insides."""
        pool: Any = getattr(self._way, "_pool", None)
        for entry in getattr(pool, "_requests", ()):
            if entry.request is request:
                return entry.connection
        return None

    def _late(self, exchange: StreamedExchange) -> Exception:
        timeout = self.timeout
        if monotonic() - exchange.started >= timeout.total - _EARLY:
            return failure(TOTAL_TIMEOUT, self.name, f"not done within {timeout.total:g} s in all")
        if not exchange.sent_at:
            what = f"no connection within {timeout.connect:g} s"
            return failure(CONNECT_TIMEOUT, self.name, what, sent=False)
        return failure(FIRST_BYTE_TIMEOUT, self.name, f"no answer within {timeout.first:g} s")

    def _request(self, outbound: Outbound, watch: _Watch) -> httpx.Request:
        lines = outbound.head().split(b"\r\n")[1:-2]
        headers = [(name, value.strip()) for name, _, value in (line.partition(b":") for line in lines)]
        connect = self.timeout.connect
        return httpx.Request(
            outbound.method.decode("ascii"),
            httpx.URL(scheme=self._scheme, host=self._host, port=self._port, raw_path=outbound.target),
            headers=headers,
            content=outbound.body or None,
            extensions={"timeout": {"connect": connect, "pool": connect}, "trace": watch},
        )


class _Watch:
    """httpcore's trace hook: tells when connecting began and when the request was handed to the socket."""

    def __init__(self, way: Proxied, exchange: StreamedExchange) -> None:
        self.clock = asyncio.Timeout(None)
        self._way = way
        self._exchange = exchange
        self._began = 0.0
        self._wire: Any = None  # the new TCP connection, until the request goes out on it

    async def __call__(self, event: str, info: dict[str, Any]) -> None:
        if event == "connection.connect_tcp.started":
            self._began = monotonic()
            self._within(self._way.timeout.connect)  # a forward proxy's answer and TLS included
        elif event == "connection.connect_tcp.complete":
            self._wire = info["return_value"]
        elif event.endswith(".send_request_headers.started") and info["request"].method != b"CONNECT":
            self._sending(info)

    def abandon(self) -> None:
        """Close what httpcore forgets when it is cancelled in a TLS handshake."""
        if self._wire is not None:
            self._way.later(self._wire.aclose())

    def _sending(self, info: dict[str, Any]) -> None:
        exchange, self._wire = self._exchange, None
        exchange.sent_at = monotonic()
        if self._began:
            exchange.connect_time = exchange.sent_at - self._began
        self._within(self._way.timeout.first)
        if "stream_id" in info:
            request = info["request"]
            connection = self._way.connection_of(request)
            mend(connection)
            exchange.stream = (connection, request)

    def _within(self, seconds: float) -> None:
        """The next step must be done in so much time, and in what is left in all."""
        left = self._way.timeout.total - (monotonic() - self._exchange.started)
        self.clock.reschedule(asyncio.get_running_loop().time() + min(seconds, left))
