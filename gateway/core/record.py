"""The record of a settled call: one JSON object, the same in the journal, the ledger, the log line.

The worker builds it once; the supervisor derives ledger row, log line and metrics from it, so
that a killed worker loses none of the three. Times are integer microseconds, money integer
micro-dollars, `ts` epoch milliseconds at the request's first byte.
"""

from __future__ import annotations

from typing import Any

from gateway.core.call import Call
from gateway.core.codec import dumps

FIELDS = (
    "id", "ts", "key", "key_name", "tenant", "team", "user", "client",
    "method", "endpoint", "path", "model", "alias", "backend", "target", "stream",
    "status", "outcome", "code", "tries",
    "input", "cached_input", "cache_write", "audio_input", "output", "reasoning", "audio_output",
    "usage_source", "cost_micros", "hold_tokens", "hold_micros",
    "queue_us", "connect_us", "first_byte_us", "first_token_us", "total_us", "overhead_us",
    "revision", "worker", "session", "tags", "trace", "reasons", "charges", "text",
)  # fmt: skip


def opened(call: Call, worker: int) -> bytes:
    """The open call's record: what its `abandoned` row will say if this process dies."""
    key = call.principal.key if call.principal else None
    hold = call.hold
    return dumps(
        {
            "id": call.id,
            "ts": int(call.wall * 1000),
            "key": key.id if key else "",
            "key_name": key.name if key else "",
            "tenant": key.tenant if key else "",
            "team": key.team if key else "",
            "user": key.user if key else "",
            "method": call.method,
            "endpoint": call.endpoint,
            "model": call.model[:128],
            "alias": call.alias,
            "backend": call.target.backend if call.target else "",
            "stream": call.stream,
            "hold_tokens": hold.tokens if hold else 0,
            "hold_micros": hold.micros if hold else 0,
            "revision": call.revision,
            "worker": worker,
        }
    )


def abandoned(record: dict[str, Any]) -> dict[str, Any]:
    """The row of a call whose process died: its hold, and nobody knows what was used."""
    return {**record, "outcome": "abandoned", "code": "gateway_worker_died", "usage_source": "unknown"}
