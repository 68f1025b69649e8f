"""Asking a provider over HTTP: the address, the headers, the body, and the answer as a Reply."""

from __future__ import annotations

import asyncio
import re
import time
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

from gateway.backends.base.answer import LINES, measure, passed_on
from gateway.backends.base.asked import WHOLE, Asked
from gateway.backends.base.body import renamed, with_usage
from gateway.backends.base.credentials import keyring, scrubber
from gateway.backends.base.inflate import InflatingTap
from gateway.backends.base.keyring import Credential
from gateway.backends.base.taps import body_tap, stream_tap
from gateway.core.call import WAITED, Call
from gateway.core.codec import JSONError, loads
from gateway.core.endpoints import COMPACT, GENERATING
from gateway.core.errors import UpstreamError
from gateway.core.reply import Reply
from gateway.core.route import Target
from gateway.net.egress import transport
from gateway.net.outbound import Outbound, start_of
from gateway.net.port import Exchange
from gateway.settings.schema import BackendSettings

SMALL: Final = 64 * 1024  # what is not JSON is held only when it is as short as this
LISTED: Final = 60.0  # seconds a list of models is good for
UNLISTED: Final = 5.0  # and its absence
PATIENCE: Final = 5.0  # seconds for a list of models
MAX_MODELS: Final = 10_000

_VERBS: Final = ("GET", "POST", "DELETE", "PUT", "PATCH", "HEAD", "OPTIONS")
_METHODS: Final = {name: name.encode() for name in _VERBS}
_REFUSED: Final = frozenset((401, 403, 429))
_EMPTY: Final = frozenset((204, 304))  # no body comes (RFC 9110, 6.4.1), so that it can't come in pieces


class Way(NamedTuple):
    """What the requests for one path and model have in common."""

    method: bytes
    target: bytes
    start: bytes
    makes: bool  # the call has something made, which is then paid for


class HttpBackend:
    """Implements `core.ports.Backend`. A kind says where its paths are and which header has the key.

    Where a call goes, and with which credential, is decided by the settings alone.
    """

    kind = "http"

    def __init__(self, settings: BackendSettings) -> None:
        self.name = settings.name
        self.settings = settings
        parts = urlsplit(settings.base_url)
        self.prefix = parts.path.rstrip("/")
        self._keyring = keyring(settings, self.credential)
        self._own = _pattern(name for name, _ in settings.headers + settings.secret_headers)
        self._scrub = scrubber(settings)
        self._stream_usage = settings.stream_usage
        self._transport = transport(settings, LINES)
        self._listing: asyncio.Task[list[dict[str, Any]]] | None = None
        self._listed_until = 0.0

    # -- what kinds say

    def place(self, path: str, query: bytes, model: str) -> bytes:
        """The request target (RFC 9112, 3.2.1) of a path of the API, for a model."""
        return _joined(self.prefix + path, query)

    def credential(self, key: str) -> tuple[str, str]:
        """The header that carries a key."""
        return "authorization", f"Bearer {key}"

    def body(self, call: Call, target: Target) -> bytes:
        """The body as this target gets it, but for usage. Not asked where the caller named the same model."""
        return renamed(call, target)

    # -- the port

    async def open(self) -> None:
        """Connections are made when they are needed."""

    async def close(self) -> None:
        """Close idle connections; calls under way go on."""
        if self._listing is not None:
            self._listing.cancel()
        await self._transport.close()

    async def ask(self, call: Call, target: Target) -> Reply:
        """See `core.ports.Backend.ask`."""
        asked = self._asked(call, target)
        call.sent = 0.0
        try:
            asked.exchange = await self._transport.send(asked.outbound)
        except BaseException:
            call.sent = asked.outbound.sent_at  # a provider that has the prompt may charge for it
            raise
        return await self._answered(asked)

    def start(self, call: Call, target: Target) -> Asked | None:
        """See `core.ports.Backend.start`."""
        asked = self._asked(call, target)
        exchange = self._transport.start(asked.outbound)
        if exchange is None:
            return None
        asked.exchange = exchange
        call.sent = exchange.sent_at  # known also where nobody waits for the answer
        return asked

    async def models(self) -> list[dict[str, Any]]:
        """What the provider lists, remembered for a minute; one request at a time."""
        listing = self._listing
        if listing is None or (listing.done() and time.monotonic() >= self._listed_until):
            listing = self._listing = asyncio.create_task(self._list())
            listing.add_done_callback(lambda task: task.cancelled() or task.exception())
        return await asyncio.shield(listing)

    def rekey(self, settings: BackendSettings) -> None:
        """Other credentials from now on, on the same connections. Nothing else in the settings may differ.

        Those before are still taken out of answers: calls made with them are under way.
        """
        before, self.settings = self.settings, settings
        self._keyring = keyring(settings, self.credential)
        self._scrub = scrubber(settings, before)

    # -- the request

    def _asked(self, call: Call, target: Target) -> Asked:
        credential = self._keyring.only or self._keyring.pick()
        body, model = call.body, target.model
        if model and body and model != call.model:
            body = self.body(call, target)
        hide = False
        if call.stream and self._stream_usage:
            body, hide = with_usage(call, body)
        passed = call.passed if self._own is None else self._own.sub(b"", call.passed)
        way = None if call.query else credential.ways.get((call.method, call.path, model or call.model))
        method, place, start, makes = way or self._way(call, model or call.model, credential)
        outbound = Outbound(method, place, credential.block, passed, body, start)
        return Asked(self, call, outbound, credential, model or call.model, makes, hide)

    async def _again(self, asked: Asked, exchange: Exchange) -> Exchange:
        """A key was refused: it rests, and the call goes out with each other one. The last answer stands.

        What a provider refuses in this way it has not begun.
        """
        call, outbound, model = asked.call, asked.outbound, asked.model
        ring, tried = self._keyring, [asked.credential]
        while exchange.status in _REFUSED:
            ring.refused(tried[-1], exchange.status, dict(exchange.headers).get(b"retry-after"))
            other = ring.other(tried)
            if other is None:
                break
            tried.append(other)
            call.memo[WAITED] = call.memo.get(WAITED, 0.0) + time.monotonic() - exchange.sent_at
            exchange.held(SMALL)
            exchange.close()
            outbound.start = self._way(call, model, other).start
            outbound.fixed = other.block
            exchange = await self._transport.send(outbound)
        return exchange

    def _way(self, call: Call, model: str, credential: Credential) -> Way:
        """Put together, and remembered where there can't be too many of them."""
        method = _METHODS.get(call.method) or call.method.encode()
        place = self.place(call.path, call.query, model)
        way = Way(method, place, start_of(method, place, credential.block), _makes(call))
        if not call.query and call.endpoint != "other" and len(model) <= 128:
            if len(credential.ways) >= 1024:
                credential.ways.clear()
            credential.ways[call.method, call.path, model] = way
        return way

    # -- the answer

    async def answered(self, asked: Asked) -> Reply:
        """The answer to it, whatever it is."""
        asked.exchange = await self._transport.arrived(asked.exchange, asked.outbound)
        return await self._answered(asked)

    async def _answered(self, asked: Asked) -> Reply:
        call, exchange = asked.call, asked.exchange
        if exchange.status in _REFUSED:
            exchange = await self._again(asked, exchange)
        call.connect_time = exchange.connect_time
        call.sent = exchange.sent_at
        call.first_byte = exchange.first_byte_at
        whole = (
            exchange.held(WHOLE) if exchange.kind == b"application/json" and call.method != "HEAD" else None
        )
        if whole is not None:
            return self.document(call, exchange, whole, asked.makes)
        return await self._reply(call, exchange, asked.makes, asked.hide)

    def document(self, call: Call, exchange: Exchange, whole: bytes, makes: bool) -> Reply:
        """The usual answer: a whole document that is there already."""
        if makes and exchange.status < 400:
            measure(call, whole, exchange.coding)
        wire = exchange.onward
        if wire is None:
            return Reply(exchange.status, self._headers(exchange), self._scrub(whole))
        return Reply(exchange.status, [], self._scrub(whole), None, False, None, self._scrub(wire))

    async def _reply(self, call: Call, exchange: Exchange, makes: bool, hide: bool) -> Reply:
        """Any other answer."""
        status, kind, coding, wire = exchange.status, exchange.kind.lower(), exchange.coding, exchange.onward
        headers = self._headers(exchange) if wire is None else []
        reply = Reply(status, headers, source=exchange, wire=self._scrub(wire or b""))
        if call.method == "HEAD":
            return reply  # its length is that of the body which does not come
        if kind.startswith(b"text/event-stream") and status not in _EMPTY:
            tap = stream_tap(call, coding, hide, self._scrub)
            if isinstance(tap, InflatingTap):
                reply.headers = [field for field in reply.headers if field[0] != b"content-encoding"]
            reply.event_stream = True
            # What is fetched again was paid for when it was made: nobody looks for its usage.
            reply.tap = tap if call.method == "POST" else None
            return reply
        document = kind == b"application/json" or kind.startswith(b"application/json;")
        generated = makes and status < 300 and call.endpoint in GENERATING  # whatever its kind says
        if not (document or exchange.done_at or status in _EMPTY or (exchange.length or WHOLE) <= SMALL):
            reply.tap = body_tap(coding) if generated else None
            return reply
        body = await exchange.collect(WHOLE)
        if body is None:
            reply.tap = body_tap(coding) if makes else None
            return reply
        if (document or generated or body[:1] == b"{") and status < 400 and makes:
            measure(call, body, coding)  # some servers call their documents text, or nothing at all
        reply.source, reply.body = None, self._scrub(body)
        return reply

    def _headers(self, exchange: Exchange) -> list[tuple[bytes, bytes]]:
        """Those that go on, without what a provider may say back of the credentials."""
        return [(name, self._scrub(value)) for name, value in passed_on(exchange.headers)]

    # -- the list of models

    async def _list(self) -> list[dict[str, Any]]:
        self._listed_until = time.monotonic() + PATIENCE + UNLISTED
        try:
            async with asyncio.timeout(PATIENCE):
                models = await self._asked_for_models()
        except TimeoutError:
            raise self._no_list("it took too long", "upstream_total_timeout", 504) from None
        self._listed_until = time.monotonic() + LISTED
        return models

    async def _asked_for_models(self) -> list[dict[str, Any]]:
        block = self._keyring.pick().block
        exchange = await self._transport.send(Outbound(b"GET", self.place("/models", b"", ""), block))
        try:
            body = await exchange.collect(WHOLE)
        finally:
            exchange.close()
        if exchange.status != 200 or body is None:
            raise self._no_list(f"it answered with status {exchange.status}", "upstream_error_status", 502)
        try:
            data = loads(body)["data"]
            return [model for model in data[:MAX_MODELS] if isinstance(model["id"], str)]
        except (JSONError, LookupError, TypeError):
            raise self._no_list("its answer is no list", "upstream_protocol_error", 502) from None

    def _no_list(self, why: str, code: str, status: int) -> UpstreamError:
        return UpstreamError(
            f"backend {self.name!r} does not list its models: {why}", code=code, status=status
        )


def _makes(call: Call) -> bool:
    """Whether the call has something made: reading or cancelling what was made before costs nothing."""
    made_at = call.path[1:]
    whole = made_at == call.endpoint or call.endpoint == "other" or made_at == COMPACT
    return whole and call.method == "POST"


def _pattern(names: Any) -> re.Pattern[bytes] | None:
    """Finds the lines of these headers in a wire block."""
    found = b"|".join(re.escape(name.lower().encode()) for name in names)
    return re.compile(rb"(?m)^(?:%b):[^\n]*\n" % found) if found else None


def _joined(path: str, query: bytes) -> bytes:
    return path.encode("ascii") + (b"?" + query if query else b"")
