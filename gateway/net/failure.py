"""Every way an upstream can fail, as one error with its code and status."""

from __future__ import annotations

from gateway.core.errors import UpstreamError

CONNECT_FAILED = "upstream_connect_failed"
CONNECT_TIMEOUT = "upstream_connect_timeout"
FIRST_BYTE_TIMEOUT = "upstream_first_byte_timeout"
IDLE_TIMEOUT = "upstream_idle_timeout"
TOTAL_TIMEOUT = "upstream_total_timeout"
PROTOCOL_ERROR = "upstream_protocol_error"
CLOSED = "upstream_closed"
OVERLOADED = "upstream_overloaded"
TLS_FAILED = "upstream_tls_failed"

STATUS = {
    CONNECT_FAILED: 502,
    CONNECT_TIMEOUT: 504,
    FIRST_BYTE_TIMEOUT: 504,
    IDLE_TIMEOUT: 504,
    TOTAL_TIMEOUT: 504,
    PROTOCOL_ERROR: 502,
    CLOSED: 502,
    OVERLOADED: 503,
    TLS_FAILED: 502,
}


def failure(code: str, backend: str, what: str, *, sent: bool = True) -> UpstreamError:
    """The error of one failed try. `what` says what happened, and never holds an address or a secret."""
    retry_after = 1.0 if code == OVERLOADED else None
    message = f"backend {backend!r}: {what}"
    return UpstreamError(message, sent=sent, code=code, status=STATUS[code], retry_after=retry_after)
