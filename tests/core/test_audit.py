"""A chain that was touched says where; nothing secret is in it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.audit import CHECKPOINT, GENESIS, clean, digest_of, members, record_of, sealed, verify
from gateway.core.records import Actor, AuditRecord, Deed

Chain = list[AuditRecord]


def chain(length: int = 6, name: str = "r1") -> Chain:
    records: Chain = []
    for n in range(1, length + 1):
        deed = Deed(Actor("token", "admin"), GENESIS if n == 1 else "key.create", f"key/{n}", after={"n": n})
        records.append(sealed(deed, name, n, records[-1].hash if records else "", 1000 * n))
    return records


def faults(records: Chain, *heads: tuple[str, int, str]) -> list[str]:
    return [fault for state in verify(records, heads).values() for fault in state.faults]


def resealed(record: AuditRecord, **changed: Any) -> AuditRecord:
    record = replace(record, **changed)
    return replace(record, hash=digest_of(record))


def test_an_untouched_chain_is_whole() -> None:
    records = chain()
    assert faults(records, ("r1", 6, records[5].hash), ("r1", 3, records[2].hash)) == []
    state = verify(records)["r1"]
    assert (state.first, state.last, state.records, state.removed) == (1, 6, 6, 0)
    assert faults([*records, *chain(3, "r2")]) == []


def test_the_hash_can_be_checked_without_this_program() -> None:
    for record in chain():
        document = members(record)
        assert document.pop("hash") == record.hash
        text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        assert sha256(text.encode()).hexdigest() == record.hash
        assert record_of(members(record)) == record


TOUCHED: dict[str, tuple[Callable[[Chain], Chain], str]] = {
    "altered": (
        lambda c: [*c[:2], replace(c[2], target="key/x"), *c[3:]],
        "record 3 was altered: its hash does not fit what it says",
    ),
    "altered and sealed again": (
        lambda c: [*c[:2], resealed(c[2], target="key/x"), *c[3:]],
        "record 4 does not follow record 3: one of them was replaced",
    ),
    "one removed": (lambda c: [*c[:2], *c[3:]], "record 3 is missing: removed"),
    "several removed": (lambda c: [*c[:2], *c[4:]], "records 3 to 4 are missing: removed"),
    "two changed places": (
        lambda c: [c[0], replace(c[2], n=2), replace(c[1], n=3), *c[3:]],
        "record 2 was altered: its hash does not fit what it says",
    ),
    "out of order": (
        lambda c: [c[0], c[1], c[3], c[2], c[4], c[5]],
        "record 3 stands after record 4: it was put in or moved",
    ),
    "one twice": (lambda c: [*c[:3], *c[2:]], "record 3 stands after record 3: it was put in or moved"),
    "beginning cut off": (
        lambda c: c[2:],
        "records 1 to 2 are missing, and no checkpoint says that retention removed them",
    ),
    "end cut off": (lambda c: c[:4], "the chain ends with record 4, record 6 was noted: its end was cut off"),
    "all removed": (lambda c: [], "the chain has no records, record 6 was noted: its end was cut off"),
    "replaced as a whole": (
        lambda c: [resealed(c[0], action=GENESIS, ts_ms=1)],
        "the chain ends with record 1, record 6 was noted: its end was cut off",
    ),
}


@pytest.mark.parametrize("how", TOUCHED)
def test_a_chain_that_was_touched_says_where(how: str) -> None:
    touch, expected = TOUCHED[how]
    records = chain()
    assert expected in faults(touch(records), ("r1", 6, records[5].hash))


def test_a_chain_that_was_written_anew_has_not_the_hash_that_was_noted() -> None:
    records, fresh = chain(), chain(5)
    last = records[5]
    fresh.append(sealed(Deed(Actor("x"), "y", "z"), "r1", 6, fresh[4].hash, 1))
    assert faults(fresh, ("r1", 6, last.hash)) == [
        "record 6 has another hash than was noted: it was replaced"
    ]


def checkpointed(records: Chain, through: int, lie: dict[str, Any] | None = None) -> Chain:
    detail = {"through": through, "head": records[through - 1].hash} | (lie or {})
    deed = Deed(Actor("config"), CHECKPOINT, "chain/r1", detail=detail)
    return [*records[through:], sealed(deed, "r1", len(records) + 1, records[-1].hash, 9)]


def test_what_a_checkpoint_states_may_be_gone() -> None:
    records = chain()
    left = checkpointed(records, 3)
    assert faults(left, ("r1", 3, records[2].hash), ("r1", 2, records[1].hash)) == []
    assert verify(left)["r1"].removed == 3
    assert faults(left, ("r1", 3, "other")) == [
        "record 3 had another hash than was noted, before it was removed"
    ]


@pytest.mark.parametrize("lie", [{"through": 2}, {"head": "00"}])
def test_a_checkpoint_of_something_else_excuses_nothing(lie: dict[str, Any]) -> None:
    assert "no checkpoint says" in faults(checkpointed(chain(), 3, lie))[0]


@given(
    st.integers(0, 9), st.sampled_from(["actor", "action", "target", "after", "revision", "ts_ms", "hash"])
)
def test_no_single_change_goes_unseen(at: int, member: str) -> None:
    records = chain(10)
    changed: Any = {"x": 1} if member in ("actor", "after") else 7 if member == "ts_ms" else "x"
    records[at] = replace(records[at], **{member: changed})
    assert faults(records)


def test_the_number_of_faults_that_are_told_is_bounded() -> None:
    assert len(faults([replace(record, target="x") for record in chain(300)])) == 100


# ---------------------------------------------------------------------- what is kept of documents

JSONS = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 53), 1 << 53) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=20,
)


@given(st.dictionaries(st.text(max_size=8), JSONS, max_size=4))
def test_what_was_sealed_verifies_after_a_way_through_json(document: dict[str, Any]) -> None:
    record = sealed(Deed(Actor("token"), GENESIS, "x", after=document), "r1", 1, "", 5)
    assert clean(record.after) == record.after
    again = record_of(json.loads(json.dumps(members(record))))
    assert verify([again])["r1"].faults == []


@pytest.mark.parametrize(
    "name", ["key", "secret", "Password", "token", "api_key", "apikey", "authorization", "credential"]
)
def test_members_that_hold_secrets_are_masked_wherever_they_stand(name: str) -> None:
    assert "canary" not in repr(clean({"a": [{name: "canary"}, {name: ["canary"]}, {name: b"canary"}]}))


@pytest.mark.parametrize("text", ["sk-proj-canarycanarycanary", "x eyJhbGciOiJcanary.canarycanary.canary y"])
def test_texts_that_look_like_secrets_are_masked(text: str) -> None:
    assert "canary" not in clean({"note": text})["note"]


def test_digests_become_fingerprints_that_tell_two_apart() -> None:
    one, other = clean({"digest": "ab" * 32})["digest"], clean({"digest": "cd" * 32})["digest"]
    assert one == "sha256:abababab…" != other
    assert clean({"digest": one}) == {"digest": one} == clean({"digest": bytes.fromhex("ab" * 32)})


def test_documents_are_bounded() -> None:
    deep: dict[str, Any] = {}
    for _ in range(100):
        deep = {"x": deep}
    assert len(repr(clean(deep))) < 200
    assert len(clean("x" * 10_000)) == 2001
    record = sealed(Deed(Actor("t"), "a", "b", after={str(n): "x" * 1000 for n in range(900)}), "c", 1, "", 1)
    assert record.after is not None and "left_out" in record.after
    record = sealed(Deed(Actor("t"), "a", "b", after={"n": 1 << 80}), "c", 1, "", 1)
    assert record.after == {"unreadable": True}
