"""The record: whatever the call was like, the JSON object that the ledger's columns are named after."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from gateway.core.call import Call
from gateway.core.hold import Hold
from gateway.core.principal import KeyEntry, Principal
from gateway.core.record import FIELDS, abandoned, opened, settled
from gateway.core.route import Target
from gateway.core.tokens import prompt_text, whole
from gateway.core.usage import KINDS, Usage

names = st.text(st.characters(codec="utf-8"), max_size=6) | st.sampled_from(['"', "%d", "\\", "é\n"])
counts = st.integers(0, 3)
moments = st.sampled_from([0.0, 100.25, 100.5, 101.0])
TRACE = "0af7651916cd43dd8448eb211c80319c"
PROMPT = {"messages": [{"role": "user", "content": "héllo"}]}

principals = [
    Principal(KeyEntry("key_1", "one", b"")),
    Principal(KeyEntry("key_2", 'two "%d"', b"", "acme", "team", "usér")),
]
targets = [Target("up"), Target("up", "m"), Target("away", "m" * 200)]


@st.composite
def calls(draw: st.DrawFn) -> Call:
    """Any call, at its end; principals are shared between calls, as they are in life."""
    method, endpoint = draw(st.sampled_from(["POST", "GET"])), draw(st.sampled_from(["embeddings", "other"]))
    call = Call(method, "/" + draw(names), endpoint, [], b"")
    call.id, call.client, call.wall, call.received = draw(names), draw(names), 1763689123.4567, 100.0
    call.arrived, call.began, call.sent = 100.125, draw(moments), draw(moments)
    call.first_byte, call.first_token, call.replied = draw(moments), draw(moments), draw(moments)
    call.connect_time = draw(moments)
    call.model, call.alias = draw(names | st.just("m" * 200)), draw(names)
    call.stream, call.revision = draw(st.booleans()), draw(st.sampled_from(["r1", "r2"]))
    call.principal, call.target = (draw(st.sampled_from([None, *each])) for each in (principals, targets))
    call.hold = draw(st.none() | st.builds(Hold, counts, counts))
    call.tries, call.status, call.cost = draw(counts), draw(st.sampled_from([200, 429])), draw(counts)
    call.outcome = draw(st.sampled_from(["ok", "failed"]))
    call.code = draw(st.sampled_from(["", "", "upstream_closed"]))
    sources = st.sampled_from(["provider", "provider", "estimated", "unknown", "none"])
    call.usage = Usage(*(draw(counts | st.just(0)) for _ in KINDS), draw(sources))
    call.reasons = draw(st.dictionaries(names, names, max_size=1))
    call.tags, call.session = tuple(draw(st.lists(names, max_size=2))), draw(names)
    call.trace, call.document = draw(st.sampled_from(["", TRACE])), draw(st.sampled_from([None, PROMPT]))
    return call


def begun(call: Call, worker: int) -> dict[str, Any]:
    """What both records say."""
    key, hold = call.principal.key if call.principal else None, call.hold
    return {
        "id": call.id,
        "ts": int(call.wall * 1000),
        **{name: getattr(key, name, "") for name in ("tenant", "team", "user")},
        "key": key.id if key else "",
        "key_name": key.name if key else "",
        **{name: getattr(call, name) for name in ("method", "endpoint", "alias", "stream", "revision")},
        "model": call.model[:128],
        "backend": call.target.backend if call.target else "",
        "hold_tokens": hold.tokens if hold else 0,
        "hold_micros": hold.micros if hold else 0,
        "worker": worker,
        "tags": list(call.tags),
        "session": call.session,
        "trace": call.trace,
    }


def ended(call: Call, worker: int, now: float, text: bytes) -> dict[str, Any]:
    """What the settled record says, empty and zero members too."""
    usage, target, estimated = call.usage, call.target, call.usage.source == "estimated"
    total = now - call.received
    upstream = (call.replied or now) - call.sent + call.connect_time if call.sent else 0.0
    stated = usage.source != "none"
    return {
        **begun(call, worker),
        **{name: getattr(call, name) for name in ("client", "status", "outcome", "code")},
        "reasons": call.reasons,
        "usage_source": usage.source,
        **{kind: count if stated else 0 for kind, count in zip(KINDS, usage.counts(), strict=True)},
        "cost_micros": call.cost,
        "target": (target.model or call.model)[:128] if target else "",
        "tries": call.tries if target else 0,
        "queue_us": int((call.began - call.arrived) * 1e6) if call.began else 0,
        "total_us": int(total * 1e6),
        "overhead_us": int((total - upstream) * 1e6),
        "connect_us": int(call.connect_time * 1e6) if call.sent else 0,
        "first_byte_us": int((call.first_byte - call.sent) * 1e6) if call.first_byte else 0,
        "first_token_us": int((call.first_token - call.received) * 1e6) if call.first_token else 0,
        "path": call.path[:256] if call.endpoint == "other" else "",
        "sealed": sealed(texts(call, text)) if estimated else "",
    }


def texts(call: Call, text: bytes) -> dict[str, Any]:
    """What the supervisor is to count, and whether that is all there was."""
    complete = call.outcome == "ok" and whole(call.document)
    return {"prompt": prompt_text(call.document), "text": text.decode(), "whole": complete}


def sealed(document: Any) -> str:
    """What no reader of a journal may see, for a test that has to."""
    return "sealed:" + json.dumps(document)


def full(record: bytes) -> dict[str, Any]:
    """The members of a record that are neither empty nor zero, each there once."""
    pairs = json.loads(record, object_pairs_hook=list)
    assert len(dict(pairs)) == len(pairs)
    members = {name: dict(value) if name == "reasons" else value for name, value in pairs}
    return filled(members)


def filled(members: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in members.items() if value not in ("", 0, [], {})}


@given(calls(), st.sampled_from([b"", b"text"]), st.booleans())
def test_a_record_says_of_any_call_what_is_to_be_said(call: Call, text: bytes, was_opened: bool) -> None:
    if was_opened:
        assert full(opened(call, 3)) == filled(begun(call, 3))
    record = settled(call, 3, 102.0, text, sealed)
    assert full(record) == filled(ended(call, 3, 102.0, text))
    assert set(json.loads(record)) <= set(FIELDS)


@given(calls())
def test_a_call_that_went_on_to_another_target_is_recorded_with_that_one(call: Call) -> None:
    call.target, call.tries = targets[0], 1
    opened(call, 0)
    call.target, call.tries = targets[1], 2
    assert full(settled(call, 0, 102.0, b"", sealed)) == filled(ended(call, 0, 102.0, b""))


def test_what_is_remembered_of_a_principals_calls_is_bounded() -> None:
    principal = Principal(KeyEntry("key_1", "one", b""))
    for number in range(600):
        call = Call("POST", "/embeddings", "embeddings", [], b"")
        call.principal, call.target, call.model = principal, Target("up"), f"m{number}"
        opened(call, 0)
    assert len(principal.memo["record"]) <= 256


def test_an_abandoned_call_keeps_its_hold() -> None:
    call = Call("POST", "/embeddings", "embeddings", [], b"")
    call.hold = Hold(7, 8)
    record = abandoned(json.loads(opened(call, 0)))
    assert (record["hold_tokens"], record["hold_micros"], record["outcome"]) == (7, 8, "abandoned")


def test_an_abandoned_call_keeps_the_tags_that_limits_count_it_by() -> None:
    call = Call("POST", "/embeddings", "embeddings", [], b"")
    call.tags, call.session = ("workflow:a", "x"), "s1"
    record = abandoned(json.loads(opened(call, 0)))
    assert (record["tags"], record["session"]) == (["workflow:a", "x"], "s1")


def test_an_abandoned_call_keeps_the_trace_by_which_others_know_it() -> None:
    call = Call("POST", "/embeddings", "embeddings", [], b"")
    call.trace = TRACE
    assert abandoned(json.loads(opened(call, 0)))["trace"] == TRACE
