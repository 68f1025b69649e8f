"""From a backend's settings to its transport: addresses, TLS, and which way the bytes go out."""

from __future__ import annotations

import ssl
from functools import lru_cache
from pathlib import Path
from urllib.parse import urlsplit

from gateway.net.lines import Lines
from gateway.net.pool import Pool, Transport
from gateway.settings.schema import BackendSettings

_PORTS = {"http": 80, "https": 443}


def transport(settings: BackendSettings, lines: Lines | None = None) -> Transport:
    """The way to the origin of `base_url`. Raises `ValueError` when it names none, or `ca` can't be read.

    `lines` judges which headers of an answer go on (`Exchange.onward`).
    """
    scheme, host, port = origin(settings.base_url)
    if settings.proxy or settings.http2:
        from gateway.net.proxied import Proxied  # httpx is loaded only where somebody asked for it

        return Proxied(settings, (scheme, host, port), tls_context(settings.ca))
    return Pool(
        settings.name,
        host,
        port,
        settings.timeout,
        connections=settings.connections,
        tls=tls(settings.ca) if scheme == "https" else None,
        lines=lines,
    )


def origin(url: str) -> tuple[str, str, int]:
    """Scheme, host and port of a base URL. Raises `ValueError`."""
    parts = urlsplit(url)
    if parts.scheme not in _PORTS or not parts.hostname:
        raise ValueError(f"{url!r} is not a base URL: it must look like https://host[:port]/path")
    if parts.username is not None or parts.password is not None:
        raise ValueError("a base URL holds no user and password; use api_key")
    return parts.scheme, parts.hostname, parts.port or _PORTS[parts.scheme]


def tls(ca: str = "") -> ssl.SSLContext:
    """The context of the pools; built once for each state of the PEM file `ca`. Raises `ValueError`."""
    try:
        return _built(ca, Path(ca).stat().st_mtime_ns if ca else 0)
    except OSError as error:
        raise ValueError(f"ca = {ca!r} can't be read: {error.strerror}") from error


@lru_cache(maxsize=16)
def _built(ca: str, changed: int) -> ssl.SSLContext:
    context = tls_context(ca)
    context.set_alpn_protocols(["http/1.1"])
    return context


def tls_context(ca: str = "") -> ssl.SSLContext:
    """A verifying client context. Raises `ValueError` when `ca` is no PEM file of certificates."""
    context = ssl.create_default_context()
    if ca:
        try:
            context.load_verify_locations(cafile=ca)
        except OSError as error:  # ssl.SSLError is one too
            raise ValueError(f"ca = {ca!r} is not a PEM file of certificates: {error.strerror}") from error
    return context
