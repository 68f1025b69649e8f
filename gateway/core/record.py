"""The record of a settled call: one JSON object, the same in the journal, the ledger, the log line.

The worker builds it once; the supervisor derives ledger row, log line and metrics from it, so
that a killed worker loses none of the three. Times are integer microseconds, money integer
micro-dollars, `ts` epoch milliseconds at the request's first byte.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from gateway.core.call import WAITED, Call
from gateway.core.capture import document
from gateway.core.codec import dumps
from gateway.core.tokens import prompt_text, whole
from gateway.core.usage import ESTIMATED, KINDS, NONE, PROVIDER

FIELDS: Final = (
    "id", "ts", "key", "key_name", "tenant", "team", "user", "client",
    "method", "endpoint", "path", "model", "alias", "backend", "target", "stream",
    "status", "outcome", "code", "tries",
    "input", "cached_input", "cache_write", "audio_input", "output", "reasoning", "audio_output",
    "usage_source", "cost_micros", "hold_tokens", "hold_micros",
    "queue_us", "connect_us", "first_byte_us", "first_token_us", "total_us", "overhead_us",
    "revision", "worker", "session", "tags", "trace", "reasons", "prompt_version", "arm", "sealed",
)  # fmt: skip

Seal = Callable[[Mapping[str, Any]], str]  # see link/seal.py

_MOST_KNOWN: Final = 256


class _Known:
    """What the records of many calls have in common, as JSON without its closing brace.

    An object is `known + dumps(the rest)[1:]`: encoding thirty members anew for each call would cost
    more than all else that is done for its record. `usual` is `settled` and the usual ending.
    """

    __slots__ = ("opened", "settled", "usual")

    def __init__(self, call: Call, worker: int) -> None:
        key, target = call.principal.key if call.principal else None, call.target
        common: dict[str, Any] = {
            "method": call.method,
            "endpoint": call.endpoint,
            "model": call.model[:128],
            "alias": call.alias,
            "stream": call.stream,
            "revision": call.revision,
            "worker": worker,
        }
        if call.prompt_version:
            common["prompt_version"] = call.prompt_version
        if call.arm:
            common["arm"] = call.arm
        if key is not None:
            common["key"], common["key_name"] = key.id, key.name
            common["tenant"], common["team"], common["user"] = key.tenant, key.team, key.user
        if target is not None:
            common["backend"] = target.backend
        self.opened = _begun(common)
        if target is not None:
            common["target"] = (target.model or call.model)[:128]
        self.settled = _begun(common)
        self.usual = _begun({**common, "outcome": "ok", "code": "", "usage_source": PROVIDER, "tries": 1})


def _begun(members: dict[str, Any]) -> bytes:
    return dumps(members)[:-1] + b","


def _known(call: Call, worker: int) -> _Known:
    """Remembered with the principal, bounded: callers choose the model names."""
    principal, target, model = call.principal, call.target, call.model
    if principal is None or target is None or len(model) > 128:
        return _Known(call, worker)
    seen: dict[Any, _Known] | None = principal.memo.get("record")
    if seen is None:
        seen = principal.memo["record"] = {}
    name = (
        model, call.endpoint, call.method, call.stream, call.alias,
        target.backend, target.model, call.revision, worker, call.prompt_version, call.arm,
    )  # fmt: skip
    known = seen.get(name)
    if known is None:
        if len(seen) >= _MOST_KNOWN:
            seen.clear()
        known = seen[name] = _Known(call, worker)
    return known


def opened(call: Call, worker: int) -> bytes:
    """The open call's record: what its `abandoned` row will say if this process dies."""
    known = call.memo["record"] = _known(call, worker)
    record: dict[str, Any] = {"id": call.id, "ts": int(call.wall * 1000)}
    if (hold := call.hold) is not None:
        record["hold_tokens"], record["hold_micros"] = hold.tokens, hold.micros
    if call.tags or call.session:  # limits by tag count what a killed worker had under way too
        record["tags"], record["session"] = call.tags, call.session
    if call.trace:  # so that caller and provider can find the call
        record["trace"] = call.trace
    return known.opened + dumps(record)[1:]


def settled(call: Call, worker: int, now: float, text: bytes, seal: Seal | None = None) -> bytes:
    """The settled call's record. `now` is when it ended (monotonic); what it has nothing of is left out.

    `text` is what was generated, as far as it is known. Texts go along only where the supervisor needs them,
    and only if there is a `seal`.
    """
    known: _Known | None = call.memo.get("record")
    if known is None or call.tries != 1:  # never opened, or another target than then
        known = _known(call, worker)
    usage, hold, sent = call.usage, call.hold, call.sent
    total = now - call.received
    upstream: float = call.memo.get(WAITED, 0.0)
    if sent:
        upstream += (call.replied or now) - sent + call.connect_time
    record: dict[str, Any] = {
        "id": call.id,
        "ts": int(call.wall * 1000),
        "client": call.client,
        "status": call.status,
        "queue_us": int((call.began - call.arrived) * 1e6) if call.began else 0,
        "total_us": int(total * 1e6),
        "overhead_us": int((total - upstream) * 1e6),
    }
    if hold is not None:
        record["hold_tokens"], record["hold_micros"] = hold.tokens, hold.micros
    if sent:
        record["connect_us"] = int(call.connect_time * 1e6)
    if call.first_byte:
        record["first_byte_us"] = int((call.first_byte - sent) * 1e6)
    source = usage.source
    if source != NONE:
        record["input"], record["output"], record["cost_micros"] = usage.input, usage.output, call.cost
        inside = usage.cached_input or usage.cache_write or usage.audio_input
        if inside or usage.reasoning or usage.audio_output:
            record.update([each for each in zip(KINDS, usage.counts(), strict=True) if each[1]])
    elif call.cost:  # a price per call
        record["cost_micros"] = call.cost
    begun = known.usual
    if source != PROVIDER or call.outcome != "ok" or call.code or call.tries != 1 or call.target is None:
        begun = known.settled
        record["outcome"], record["code"], record["usage_source"] = call.outcome, call.code, source
        if call.target is not None:
            record["tries"] = call.tries
    if call.first_token:
        record["first_token_us"] = int((call.first_token - call.received) * 1e6)
    if call.trace:
        record["trace"] = call.trace
    if call.reasons or call.tags or call.session or source == ESTIMATED or call.endpoint == "other":
        _rare(record, call)
    if source == ESTIMATED or call.capture is not None:
        record["sealed"] = seal(_texts(call, text)) if seal is not None else ""
    return begun + dumps(record)[1:]


def _rare(record: dict[str, Any], call: Call) -> None:
    """Members that most calls do not have."""
    if call.endpoint == "other":
        record["path"] = call.path[:256]
    if call.session:
        record["session"] = call.session
    if call.tags:
        record["tags"] = call.tags
    if call.reasons:
        record["reasons"] = call.reasons


def _texts(call: Call, text: bytes) -> dict[str, Any]:
    """What the supervisor counts (and keeps none of), and what a tenant wants to be kept."""
    texts: dict[str, Any] = {}
    if call.usage.source == ESTIMATED:
        texts["prompt"] = "" if "prompt_told" in call.memo else prompt_text(call.document)
        texts["text"] = text.decode("utf-8", "replace")
        size: int | None = call.memo.get("size")  # not all that was generated was seen
        texts["whole"] = call.outcome == "ok" and size is None and whole(call.document)
        if size is not None and size > len(text):
            texts["size"] = size
    if call.capture is not None:
        texts["capture"] = document(call, call.capture, call.memo.get("answer", b""), text)
    return texts


def abandoned(record: dict[str, Any]) -> dict[str, Any]:
    """The row of a call whose process died: its hold, and nobody knows what was used."""
    return {**record, "outcome": "abandoned", "code": "gateway_worker_died", "usage_source": "unknown"}
