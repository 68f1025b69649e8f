"""One request and all that is known about it."""

from __future__ import annotations

from typing import Any

from gateway.core.limit import Hold
from gateway.core.principal import Principal
from gateway.core.route import Plan, Target
from gateway.core.usage import NONE, Usage

Headers = list[tuple[bytes, bytes]]


class Call:
    """One request on its way through the stages. Times are `time.monotonic()` seconds; 0.0 is "not yet".

    `path` is percent-encoded as it came, without the query and without a leading /v1;
    `endpoint` is the path without its slashes where the path is one the gateway knows
    ("chat/completions"), else "other". Header names are lower-case. `passed` is the wire block of
    those request headers that may go upstream ("name: value\\r\\n"…), hop-by-hop and ours removed.
    """

    __slots__ = (
        "alias",
        "arrived",
        "began",
        "body",
        "client",
        "code",
        "connect_time",
        "cost",
        "document",
        "endpoint",
        "first_byte",
        "first_token",
        "headers",
        "hold",
        "id",
        "memo",
        "method",
        "model",
        "outcome",
        "passed",
        "path",
        "plan",
        "principal",
        "query",
        "reasons",
        "received",
        "replied",
        "revision",
        "sent",
        "session",
        "slot",
        "status",
        "stream",
        "tags",
        "target",
        "tries",
        "usage",
        "wall",
    )

    def __init__(self, method: str, path: str, endpoint: str, headers: Headers, body: bytes) -> None:
        self.method = method
        self.path = path
        self.endpoint = endpoint
        self.headers = headers
        self.body = body
        self.id = ""
        self.query = b""
        self.passed = b""
        self.client = ""
        self.document: dict[str, Any] | None = None  # the body as JSON; only for JSON endpoints
        self.model = ""  # as the caller named it; "" where the endpoint has none
        self.stream = False
        self.tags: tuple[str, ...] = ()
        self.session = ""
        self.revision = ""
        # what the stages found out
        self.principal: Principal | None = None
        self.hold: Hold | None = None
        self.plan: Plan | None = None
        self.target: Target | None = None
        self.alias = ""
        self.tries = 0
        self.usage = Usage(source=NONE)
        self.cost = 0  # micro-dollars
        self.reasons: dict[str, str] = {}
        self.memo: dict[str, Any] = {}
        self.slot = -1  # the open-call slot that survives this process
        # how it ended
        self.status = 0
        self.outcome = ""  # ok refused upstream_error failed client_gone truncated abandoned
        self.code = ""  # the error code, "" when there was none
        # when
        self.wall = 0.0  # epoch seconds at `received`
        self.received = 0.0  # first byte of the request was read
        self.arrived = 0.0  # the whole request was there
        self.began = 0.0  # the first stage began
        self.sent = 0.0  # the request had been handed to the upstream socket
        self.connect_time = 0.0  # seconds spent connecting, 0.0 on a reused connection
        self.first_byte = 0.0  # first byte of the upstream's answer
        self.first_token = 0.0  # first content of a stream
        self.replied = 0.0  # the upstream's answer was complete

    def header(self, name: bytes) -> bytes | None:
        """The first value of a header (lower-case name), or None."""
        for key, value in self.headers:
            if key == name:
                return value
        return None
