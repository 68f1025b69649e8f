"""Everything a call can be refused for: a tree of errors, each with the side it blames.

    GatewayError
    ├── CallerError      caller_*    400 401 403 404 405 408 411 413 414 415 429 431
    ├── PolicyError      policy_*    403 429
    ├── UpstreamError    upstream_*  502 503 504
    └── FaultError       gateway_*   500 503

The body is OpenAI's error shape, {"error": {message, type, param, code, request_id}}; on the paths of
Anthropic's dialect it has what clients of that look for beside it (Anthropic API, "Errors").
"""

from __future__ import annotations

from gateway.core.codec import event

_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
}
_ANTHROPIC = {413: "request_too_large", 504: "timeout_error"}  # what it calls otherwise


class GatewayError(Exception):
    """A call ends here. `retry_after` is in seconds; `headers` go out with the answer."""

    status = 500
    code = "gateway_fault"
    outcome = "failed"

    def __init__(
        self,
        message: str,
        *,
        code: str = "",
        status: int = 0,
        param: str | None = None,
        retry_after: float | None = None,
        headers: tuple[tuple[bytes, bytes], ...] = (),
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.retry_after = retry_after
        self.headers = tuple(headers)
        if code:
            self.code = code
        if status:
            self.status = status

    @property
    def type(self) -> str:
        """OpenAI's `error.type` for the status."""
        if self.status >= 500:
            return "api_error"
        return _TYPES.get(self.status, "invalid_request_error")

    def document(self, request_id: str, path: str = "") -> dict[str, object]:
        """The answer's JSON document, in the shape of the dialect that `path` (without /v1) is of."""
        error: dict[str, object] = {
            "message": self.message,
            "type": self.type,
            "param": self.param,
            "code": self.code,
            "request_id": request_id,
        }
        if not _is_anthropic(path):
            return {"error": error}
        error["type"] = _ANTHROPIC.get(self.status, self.type)
        return {"type": "error", "error": error, "request_id": request_id}

    def event(self, request_id: str, path: str) -> bytes:
        """What ends a stream that can't go on, as its clients look for it: OpenAI's for `error` in the data,
        Anthropic's for the event's type (Streaming messages, "Error events").
        """
        return event(self.document(request_id, path), b"error" if _is_anthropic(path) else b"")


def _is_anthropic(path: str) -> bool:
    return path == "/messages" or path.startswith("/messages/")


class CallerError(GatewayError):
    """The caller sent something that can't be served as it is."""

    status = 400
    code = "caller_bad_request"
    outcome = "refused"


class PolicyError(GatewayError):
    """The operator's rules refuse the call."""

    status = 403
    code = "policy_denied"
    outcome = "refused"


class UpstreamError(GatewayError):
    """The provider failed. `sent` tells whether any byte of the request had left for it."""

    status = 502
    code = "upstream_failed"
    outcome = "upstream_error"

    def __init__(self, message: str, *, sent: bool = True, **rest: object) -> None:
        super().__init__(message, **rest)  # type: ignore[arg-type]
        self.sent = sent


class FaultError(GatewayError):
    """The gateway itself can't serve now."""

    status = 503
    code = "gateway_unavailable"
    outcome = "failed"


class LedgerError(Exception):
    """The ledger can't do what was asked; the message says why and what would be right."""
