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


class Call:
    """One request on its way through the stages. Times are `time.monotonic()` seconds; 0.0 is "not yet".

    `path` is percent-encoded as it came, without the query and without a leading /v1;
    `endpoint` is the path without its slashes where the path is one the gateway knows
    ("chat/completions"), else "other". Header names are lower-case; content-length stays in the
    front. Calls with the same head share `headers`: do not change the list. `passed` is the wire
    block of those request headers that may go upstream ("name: value\r\n"…), hop-by-hop and ours removed.
    """

    # Defaults stand on the class: a call sets only what it has, which is less work per request than
    # slots that must all be filled.
    id = ""
    origin: Origin | None = None  # shared with other calls; read-only like `headers`
    query = b""
    passed = b""
    client = ""
    document: dict[str, Any] | None = None  # the body as JSON; only for JSON endpoints
    model = ""  # as the caller named it; "" where the endpoint has none
    stream = False
    tags: tuple[str, ...] = ()
    session = ""
    trace = ""  # the W3C trace id, where the caller sent a valid one
    revision = ""
    # what the stages found out
    principal: Principal | None = None
    hold: Hold | None = None
    plan: Plan | None = None
    target: Target | None = None
    alias = ""  # the configured model name that matched
    tries = 0
    prompt_version = ""  # of the prompt that was filled in, "" where none was
    arm = ""  # of the rollout that chose the target, "" where none did
    capture: Capture | None = None  # its texts are to be kept
    usage = Usage(source=NONE)  # replaced, never changed: this one is shared
    cost = 0  # micro-dollars
    slot = -1  # the open-call slot that survives this process
    # how it ended
    status = 0
    outcome = ""  # ok refused upstream_error failed client_gone truncated abandoned
    code = ""  # the error code, "" when there was none
    # when
    wall = 0.0  # epoch seconds at `received`
    received = 0.0  # first byte of the request was read
    arrived = 0.0  # the whole request was there
    began = 0.0  # the first stage began
    sent = 0.0  # the request had been handed to the upstream socket
    connect_time = 0.0  # seconds spent connecting, 0.0 on a reused connection
    first_byte = 0.0  # first byte of the upstream's answer
    first_token = 0.0  # first content of a stream
    replied = 0.0  # the upstream's answer was complete

    def __init__(self, method: str, path: str, endpoint: str, headers: Headers, body: bytes) -> None:
        self.method = method
        self.path = path
        self.endpoint = endpoint
        self.headers = headers
        self.body = body
        self.reasons: dict[str, str] = {}
        self.memo: dict[str, Any] = {}

    def header(self, name: bytes) -> bytes | None:
        """The first value of a header (lower-case name), or None."""
        for key, value in self.headers:
            if key == name:
                return value
        return None
