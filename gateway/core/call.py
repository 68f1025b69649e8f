"""One request and all that is known about it."""

from __future__ import annotations

from typing import Any

from gateway.core.group import Capture
from gateway.core.limit import Hold
from gateway.core.principal import Principal
from gateway.core.route import Plan, Target
from gateway.core.usage import NONE, Usage

Headers = list[tuple[bytes, bytes]]


class Origin:
    """What many requests have in common: the same head but for its length. Pipelines remember here.

    `verdicts` maps a model to what the steady stages said about this head and that model, bounded.
    """

    __slots__ = ("verdicts",)

    def __init__(self) -> None:
        self.verdicts: dict[str, Any] = {}


_NOBODY_ASKED = Usage(source=NONE)  # replaced, never changed: all calls share it


class Call:
    """One request on its way through the stages. Times are `time.monotonic()` seconds; 0.0 is "not yet".

    `path` is percent-encoded as it came, without the query and without a leading /v1;
    `endpoint` is the path without its slashes where the path is one the gateway knows
    ("chat/completions"), else "other". Header names are lower-case; content-length stays in the
    front. Calls with the same head share `headers`: do not change the list. `passed` is the wire
    block of those request headers that may go upstream ("name: value\r\n"…), hop-by-hop and ours removed.
    """

    # All of them slots: with more attributes than an instance's own table takes (30), each call's would be
    # rebuilt as a dictionary on the way.
    __slots__ = (
        "alias",
        "arm",
        "arrived",
        "began",
        "body",
        "capture",
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
        "origin",
        "outcome",
        "passed",
        "path",
        "plan",
        "principal",
        "prompt_version",
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
        "trace",
        "tries",
        "usage",
        "wall",
    )

    id: str
    origin: Origin | None  # shared with other calls; read-only like `headers`
    query: bytes
    passed: bytes
    client: str
    document: dict[str, Any] | None  # the body as JSON; only for JSON endpoints
    model: str  # as the caller named it; "" where the endpoint has none
    stream: bool
    tags: tuple[str, ...]
    session: str
    trace: str  # the W3C trace id, where the caller sent a valid one
    revision: str
    # what the stages found out
    principal: Principal | None
    hold: Hold | None
    plan: Plan | None
    target: Target | None
    alias: str  # the configured model name that matched
    tries: int
    prompt_version: str  # of the prompt that was filled in, "" where none was
    arm: str  # of the rollout that chose the target, "" where none did
    capture: Capture | None  # its texts are to be kept
    usage: Usage
    cost: int  # micro-dollars
    slot: int  # the open-call slot that survives this process
    # how it ended
    status: int
    outcome: str  # ok refused upstream_error failed client_gone truncated abandoned
    code: str  # the error code, "" when there was none
    # when
    wall: float  # epoch seconds at `received`
    received: float  # first byte of the request was read
    arrived: float  # the whole request was there
    began: float  # the first stage began
    sent: float  # the request had been handed to the upstream socket
    connect_time: float  # seconds spent connecting, 0.0 on a reused connection
    first_byte: float  # first byte of the upstream's answer
    first_token: float  # first content of a stream
    replied: float  # the upstream's answer was complete

    def __init__(self, method: str, path: str, endpoint: str, headers: Headers, body: bytes) -> None:
        self.method = method
        self.path = path
        self.endpoint = endpoint
        self.headers = headers
        self.body = body
        self.reasons: dict[str, str] = {}
        self.memo: dict[str, Any] = {}
        self.id = self.client = self.model = self.session = self.trace = self.revision = self.alias = ""
        self.prompt_version = self.arm = self.outcome = self.code = ""
        self.origin = self.document = self.principal = self.hold = self.plan = self.target = None
        self.capture = None
        self.query = self.passed = b""
        self.stream = False
        self.tags = ()
        self.tries = self.cost = self.status = 0
        self.usage = _NOBODY_ASKED
        self.slot = -1
        self.wall = self.received = self.arrived = self.began = self.sent = self.connect_time = 0.0
        self.first_byte = self.first_token = self.replied = 0.0

    def header(self, name: bytes) -> bytes | None:
        """The first value of a header (lower-case name), or None."""
        for key, value in self.headers:
            if key == name:
                return value
        return None
