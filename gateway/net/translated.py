"""What httpx raises, as the errors that the own client raises for the same reason."""

from __future__ import annotations

import ssl

import httpx

from gateway.core.errors import UpstreamError
from gateway.net.failure import (
    CLOSED,
    CONNECT_FAILED,
    CONNECT_TIMEOUT,
    FIRST_BYTE_TIMEOUT,
    OVERLOADED,
    PROTOCOL_ERROR,
    TLS_FAILED,
    failure,
)

# The first that fits; httpx's texts are not passed on, they may hold addresses.
_MEANINGS: tuple[tuple[type[Exception], str, str], ...] = (
    (httpx.PoolTimeout, OVERLOADED, "all of its connections are taken"),
    (httpx.ConnectTimeout, CONNECT_TIMEOUT, "no connection within its connect deadline"),
    (httpx.TimeoutException, FIRST_BYTE_TIMEOUT, "it did not take the request within its deadline"),
    (httpx.ConnectError, CONNECT_FAILED, "could not connect"),
    (httpx.ProxyError, CONNECT_FAILED, "its forward proxy refused"),
    (httpx.NetworkError, CLOSED, "the connection broke before its answer was complete"),
    (Exception, PROTOCOL_ERROR, "its response is not good HTTP"),
)
_ENDED = ("disconnected", "peer closed", "StreamReset", "ConnectionTerminated")


def translated(error: Exception, backend: str, sent: bool) -> UpstreamError:
    """The `UpstreamError` for what httpx raised."""
    if sent and isinstance(error, httpx.RemoteProtocolError) and any(w in str(error) for w in _ENDED):
        return failure(CLOSED, backend, "it closed the connection before its answer was complete")
    if isinstance(error, httpx.ConnectError) and _broken_tls(error):
        return failure(TLS_FAILED, backend, "no TLS with it, or its certificate is not good", sent=False)
    _, code, what = next(meaning for meaning in _MEANINGS if isinstance(error, meaning[0]))
    return failure(code, backend, what, sent=sent)


def _broken_tls(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, ssl.SSLError):
            return True
        error = error.__cause__ or error.__context__
    return False
