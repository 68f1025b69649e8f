"""One request and all that is known about it."""

from __future__ import annotations

from typing import Any, Final

from gateway.core.group import Capture
from gateway.core.hold import Hold
from gateway.core.principal import Principal
from gateway.core.route import Plan, Target
from gateway.core.usage import NONE, Usage

Headers = list[tuple[bytes, bytes]]

# In a call's memo: the seconds that went by with upstreams before the try that is recorded was sent.
WAITED: Final = "waited"


class Origin:
    """What many requests have in common: the same head but for its length. Pipelines remember here.

    `verdicts` maps a model to what the steady stages said about this head and that model, bounded.
    """

    __slots__ = ("verdicts",)

    def __init__(self) -> None:
        self.verdicts: dict[str, Any] = {}


_NOBODY_ASKED: Final = Usage(source=NONE)  # replaced, never changed: all calls share it

_MEMBERS: Final = (
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


class Call:
    """One request on its way through the stages. Times are `time.monotonic()` seconds; 0.0 is "not yet".

    `path` is percent-encoded as it came, without the query and without a leading /v1;
    `endpoint` is the path without its slashes where the path is one the gateway knows
    ("chat/completions"), else "other". Header names are lower-case; content-length stays in the
    front. Calls with the same head share `headers`: do not change the list. `passed` is the wire
    block of those request headers that may go upstream ("name: value\r\n"…), hop-by-hop and ours removed.
    """

    __slots__ = _MEMBERS

    def __init__(self, method: str, path: str, endpoint: str, headers: Headers, body: bytes) -> None:
        self.method = method
        self.path = path
        self.endpoint = endpoint
        self.headers = headers
        self.body = body
        self.id = ""
        self.origin: Origin | None = None  # shared with other calls; read-only like `headers`
        self.query = b""
        self.passed = b""
        self.client = ""
        self.document: dict[str, Any] | None = None  # the body as JSON; only for JSON endpoints
        self.model = ""  # as the caller named it; "" where the endpoint has none
        self.stream = False
        self.tags: tuple[str, ...] = ()
        self.session = ""
        self.trace = ""  # the W3C trace id, where the caller sent a valid one
        self.revision = ""
        # what the stages found out
        self.principal: Principal | None = None
        self.hold: Hold | None = None
        self.plan: Plan | None = None
        self.target: Target | None = None
        self.alias = ""  # the configured model name that matched
        self.tries = 0
        self.prompt_version = ""  # of the prompt that was filled in, "" where none was
        self.arm = ""  # of the rollout that chose the target, "" where none did
        self.capture: Capture | None = None  # its texts are to be kept
        self.usage = _NOBODY_ASKED
        self.cost = 0  # micro-dollars
        self.slot = -1  # the open-call slot that survives this process
        self.reasons: dict[str, str] = {}
        self.memo: dict[str, Any] = {}
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

    def __copy__(self) -> Call:
        twin = Call(self.method, self.path, self.endpoint, self.headers, self.body)
        for name in _MEMBERS:
            setattr(twin, name, getattr(self, name))
        return twin

    def header(self, name: bytes) -> bytes | None:
        """The first value of a header (lower-case name), or None."""
        for key, value in self.headers:
            if key == name:
                return value
        return None
