"""The record of a settled call: one JSON object, the same in the journal, the ledger, the log line.

The worker builds it once; the supervisor derives ledger row, log line and metrics from it, so
that a killed worker loses none of the three. Times are integer microseconds, money integer
micro-dollars, `ts` epoch milliseconds at the request's first byte.
"""

from __future__ import annotations

from typing import Any

from gateway.core.call import Call
from gateway.core.codec import dumps
from gateway.core.usage import KINDS, Usage

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


def settled(call: Call, worker: int, now: float, text: bytes) -> bytes:
    """The settled call's record. `now` is when it ended (monotonic); empty and zero fields are left out."""
    usage, target, hold = call.usage, call.target, call.hold
    total = now - call.received
    upstream = (call.replied or now) - call.sent if call.sent else 0.0
    record: dict[str, Any] = {
        "id": call.id,
        "ts": int(call.wall * 1000),
        "method": call.method,
        "endpoint": call.endpoint,
        "client": call.client,
        "model": call.model[:128],
        "alias": call.alias,
        "stream": call.stream,
        "status": call.status,
        "outcome": call.outcome,
        "code": call.code,
        "usage_source": usage.source,
        "queue_us": int((call.began - call.arrived) * 1e6) if call.began else 0,
        "total_us": int(total * 1e6),
        "overhead_us": int((total - upstream) * 1e6),
        "revision": call.revision,
        "worker": worker,
    }
    if call.principal is not None:
        key = call.principal.key
        record["key"], record["key_name"] = key.id, key.name
        record["tenant"], record["team"], record["user"] = key.tenant, key.team, key.user
    if target is not None:
        record["backend"] = target.backend
        record["target"] = (target.model or call.model)[:128]
        record["tries"] = call.tries
    if usage.source != "none":
        record["input"], record["output"] = usage.input, usage.output
        record["cost_micros"] = call.cost
        _rare_kinds(record, usage)
    if hold is not None:
        record["hold_tokens"], record["hold_micros"] = hold.tokens, hold.micros
    if call.sent:
        record["connect_us"] = int(call.connect_time * 1e6)
    if call.first_byte:
        record["first_byte_us"] = int((call.first_byte - call.sent) * 1e6)
    if call.first_token:
        record["first_token_us"] = int((call.first_token - call.received) * 1e6)
    _rare(record, call, text)
    return dumps(record)


def _rare_kinds(record: dict[str, Any], usage: Usage) -> None:
    if usage.input_total != usage.input or usage.output_total != usage.output:
        for kind, count in zip(KINDS, usage.counts(), strict=True):
            if count:
                record[kind] = count


def _rare(record: dict[str, Any], call: Call, text: bytes) -> None:
    """Fields that most calls do not have."""
    if call.endpoint == "other":
        record["path"] = call.path[:256]
    if call.session:
        record["session"] = call.session
    if call.tags:
        record["tags"] = call.tags
    if call.reasons:
        record["reasons"] = call.reasons
    trace = call.header(b"traceparent")
    if trace is not None and len(trace) == 55:
        record["trace"] = trace[3:35].decode("ascii", "replace")
    if text:
        record["text"] = text.decode("utf-8", "replace")


def abandoned(record: dict[str, Any]) -> dict[str, Any]:
    """The row of a call whose process died: its hold, and nobody knows what was used."""
    return {**record, "outcome": "abandoned", "code": "gateway_worker_died", "usage_source": "unknown"}
