"""One request and all that is known about it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from gateway.core.group import Capture
from gateway.core.limit import Hold
from gateway.core.principal import Principal
from gateway.core.route import Plan, Target
from gateway.core.usage import NONE, Usage

Headers = list[tuple[bytes, bytes]]

# In a call's memo: the seconds that went by with upstreams before the try that is recorded was sent.
WAITED = "waited"


class Origin:
    """What many requests have in common: the same head but for its length. Pipelines remember here.

    `verdicts` maps a model to what the steady stages said about this head and that model, bounded.
    """

    __slots__ = ("verdicts",)

    def __init__(self) -> None:
        self.verdicts: dict[str, Any] = {}


_NOBODY_ASKED = Usage(source=NONE)  # replaced, never changed: all calls share it


def _nobody_asked() -> Usage:
    return _NOBODY_ASKED


# Slots: with more attributes than an instance's own table takes (30), each call's would be rebuilt as a
# dictionary on the way.
@dataclass(slots=True, eq=False, repr=False)
class Call:
    """One request on its way through the stages. Times are `time.monotonic()` seconds; 0.0 is "not yet".

    `path` is percent-encoded as it came, without the query and without a leading /v1;
    `endpoint` is the path without its slashes where the path is one the gateway knows
    ("chat/completions"), else "other". Header names are lower-case; content-length stays in the
    front. Calls with the same head share `headers`: do not change the list. `passed` is the wire
    block of those request headers that may go upstream ("name: value\r\n"…), hop-by-hop and ours removed.
    """

    method: str
    path: str
    endpoint: str
    headers: Headers
    body: bytes
    id: str = ""
    origin: Origin | None = None  # shared with other calls; read-only like `headers`
    query: bytes = b""
    passed: bytes = b""
    client: str = ""
    document: dict[str, Any] | None = None  # the body as JSON; only for JSON endpoints
    model: str = ""  # as the caller named it; "" where the endpoint has none
    stream: bool = False
    tags: tuple[str, ...] = ()
    session: str = ""
    trace: str = ""  # the W3C trace id, where the caller sent a valid one
    revision: str = ""
    # what the stages found out
    principal: Principal | None = None
    hold: Hold | None = None
    plan: Plan | None = None
    target: Target | None = None
    alias: str = ""  # the configured model name that matched
    tries: int = 0
    prompt_version: str = ""  # of the prompt that was filled in, "" where none was
    arm: str = ""  # of the rollout that chose the target, "" where none did
    capture: Capture | None = None  # its texts are to be kept
    usage: Usage = field(default_factory=_nobody_asked)
    cost: int = 0  # micro-dollars
    slot: int = -1  # the open-call slot that survives this process
    reasons: dict[str, str] = field(default_factory=dict)
    memo: dict[str, Any] = field(default_factory=dict)
    # how it ended
    status: int = 0
    outcome: str = ""  # ok refused upstream_error failed client_gone truncated abandoned
    code: str = ""  # the error code, "" when there was none
    # when
    wall: float = 0.0  # epoch seconds at `received`
    received: float = 0.0  # first byte of the request was read
    arrived: float = 0.0  # the whole request was there
    began: float = 0.0  # the first stage began
    sent: float = 0.0  # the request had been handed to the upstream socket
    connect_time: float = 0.0  # seconds spent connecting, 0.0 on a reused connection
    first_byte: float = 0.0  # first byte of the upstream's answer
    first_token: float = 0.0  # first content of a stream
    replied: float = 0.0  # the upstream's answer was complete

    def header(self, name: bytes) -> bytes | None:
        """The first value of a header (lower-case name), or None."""
        for key, value in self.headers:
            if key == name:
                return value
        return None
