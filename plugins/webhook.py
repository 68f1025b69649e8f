"""Notices as signed POSTs, by the rules of Standard Webhooks: `[[plugins]] use = "plugins.webhook:Webhook"`.

Options: `url` (may be "env:NAME"), `kinds` (globs), `secret` ("env:NAME"; "whsec_…" is base64, anything else
is taken as it is), `headers` (a table). The address is the operator's own: it may be a private one.
Redirects are not followed.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from gateway.core.codec import dumps
from gateway.core.notice import Listener, Notice, Unwanted
from gateway.net.egress import transport
from gateway.net.outbound import Outbound
from gateway.net.port import Transport
from gateway.settings.schema import BackendSettings, Deadlines
from gateway.settings.secret import Secret

_OPTIONS = frozenset(("url", "kinds", "secret", "headers"))
_TIMES = Deadlines(connect=3.0, first=8.0, idle=3.0, total=9.0)
_AGAIN = frozenset((408, 409, 425, 429))  # of the 4xx, those that another try may mend
_MOST = 64 * 1024  # bytes of an answer that are read, so that the connection can be used again


class NotTaken(Exception):
    """The receiver could not take it now."""


class Webhook(Listener):
    """One address. Every notice is one POST, tried again by the supervisor while it fails."""

    def __init__(self, options: Any) -> None:
        unknown = set(options) - _OPTIONS
        if unknown:
            raise ValueError(f"unknown option {min(unknown)!r}; there are {', '.join(sorted(_OPTIONS))}")
        url = _text(options.get("url", ""))
        try:
            parts = urlsplit(url)
            known = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
        except ValueError:
            known = False
        if not known or not url.isascii() or not url.isprintable() or " " in url or "@" in parts.netloc:
            raise ValueError('url must be such as "https://host/path", without user and password in it')
        self._origin = f"{parts.scheme}://{parts.netloc}"
        self._target = ((parts.path or "/") + (f"?{parts.query}" if parts.query else "")).encode()
        self._key = _signing(_text(options.get("secret", "")))
        headers = {"host": parts.netloc, "content-type": "application/json", "user-agent": "penstock"}
        headers |= {name.lower(): _text(value) for name, value in _table(options.get("headers", {})).items()}
        self._fixed = b"".join(_line(name, value) for name, value in headers.items())
        self._own = secrets.token_hex(8)  # two replicas may tell of the same
        self._transport: Transport | None = None

    async def open(self) -> None:
        """Connections are made when they are needed."""
        self._transport = transport(
            BackendSettings("webhook", "openai", self._origin, timeout=_TIMES, connections=4)
        )

    async def hear(self, notice: Notice) -> None:
        """One POST. Raises `Unwanted` where the receiver will never take it."""
        assert self._transport is not None
        body = dumps(document(notice))
        told = hashlib.sha256(body + self._own.encode()).hexdigest()[:32]
        headers = signature(self._key, f"msg_{told}", int(time.time()), body)
        passed = b"".join(_line(name, value) for name, value in headers.items())
        exchange = await self._transport.send(Outbound(b"POST", self._target, self._fixed, passed, body))
        try:
            await exchange.collect(_MOST)
        finally:
            exchange.close()
        status = exchange.status
        if status >= 500 or status in _AGAIN:
            raise NotTaken(status)
        if status >= 300:
            raise Unwanted(f"it answered with status {status}")

    async def close(self) -> None:
        """Close idle connections."""
        if self._transport is not None:
            await self._transport.close()


def document(notice: Notice) -> dict[str, Any]:
    """The body: `type`, `timestamp` (ISO 8601, UTC) and `data`, with the notice's subject and figures."""
    seconds, millis = divmod(notice.ts_ms, 1000)
    stamp = f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{millis:03d}Z"
    return {
        "type": notice.kind,
        "timestamp": stamp,
        "data": {"subject": notice.subject, **notice.detail},
    }


def signature(key: bytes, id: str, seconds: int, body: bytes) -> dict[str, str]:
    """`webhook-id`, `webhook-timestamp` and, with a key, `webhook-signature` (HMAC-SHA256, base64)."""
    headers = {"webhook-id": id, "webhook-timestamp": str(seconds)}
    if key:
        mac = hmac.digest(key, f"{id}.{seconds}.".encode() + body, "sha256")
        headers["webhook-signature"] = f"v1,{base64.b64encode(mac).decode()}"
    return headers


def _signing(secret: str) -> bytes:
    """The bytes of a secret: base64 after `whsec_`. Raises `ValueError`, which does not quote it."""
    if not secret.startswith("whsec_"):
        return secret.encode()
    try:
        return base64.b64decode(secret.removeprefix("whsec_"), validate=True)
    except binascii.Error:
        raise ValueError("secret: what follows whsec_ is not base64") from None


def _text(value: Any) -> str:
    if isinstance(value, Secret):
        return value.reveal()
    if not isinstance(value, str):
        raise ValueError('url, secret and headers are strings, or "env:NAME"')
    return value


def _table(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise ValueError('headers must be a table: { authorization = "env:HOOK_TOKEN" }')
    return value


def _line(name: str, value: str) -> bytes:
    if not (name + value).isprintable() or not (name + value).isascii():
        raise ValueError(f"headers: {name!a} holds what no header may hold")
    return f"{name}: {value}\r\n".encode()
