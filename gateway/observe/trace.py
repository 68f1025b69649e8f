"""W3C trace context: a valid one is passed on as it came, anything else goes no further."""

from __future__ import annotations

import re
from collections.abc import Iterable

# version "-" trace-id "-" parent-id "-" flags, lower-case hex; version ff and all-zero ids are invalid, and
# only a version above 00 may have more behind another "-". Source: W3C Trace Context, 3.2.2.
_TRACEPARENT = re.compile(
    rb"(?!ff)(?:00|[0-9a-f]{2}(?=-.{52}(?:-|\Z)))-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}"
)
_STATE_LIMIT = 8192


def trace_id(traceparent: bytes) -> str:
    """The trace id of a valid `traceparent`, else ""."""
    found = _TRACEPARENT.match(traceparent)
    if found is None or (len(traceparent) > 55 and not _longer(traceparent)):
        return ""
    return found[1].decode()


def _longer(traceparent: bytes) -> bool:
    return traceparent[:2] != b"00" and traceparent[55:56] == b"-" and len(traceparent) <= 512


def context(headers: Iterable[tuple[bytes, bytes]]) -> tuple[str, bytes]:
    """Trace id and the wire block of `traceparent` and `tracestate` to send on; ("", b"") when there is none.

    Header names are lower-case. Two traceparents are as good as none; tracestate without a valid
    traceparent means nothing and is dropped with it (W3C Trace Context, 3.2 and 3.3).
    """
    parents, states = [], []
    for name, value in headers:
        if name == b"traceparent":
            parents.append(value)
        elif name == b"tracestate":
            states.append(value)
    if len(parents) != 1 or not (found := trace_id(parents[0])):
        return "", b""
    block = b"traceparent: " + parents[0] + b"\r\n"
    state = b",".join(states)
    if state and len(state) <= _STATE_LIMIT:
        block += b"tracestate: " + state + b"\r\n"
    return found, block


def forwarded(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """The block of `context` alone."""
    return context(headers)[1]
