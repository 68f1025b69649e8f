"""What every store of records does: entities, the audit, revisions, answers. One suite for all of them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from gateway.core.audit import CHECKPOINT, GENESIS, verify
from gateway.core.errors import LedgerError
from gateway.core.records import (
    KEY,
    TENANT,
    Actor,
    Answered,
    AuditRecord,
    Change,
    Conflict,
    Deed,
    Entity,
    KeptRevision,
    merged,
)
from gateway.core.refusal import ACTION, EACH, GROUPS, MORE, OTHERS
from gateway.stores.base import records as clock
from gateway.stores.base.chain import MINUTE_MS
from gateway.stores.sqlite import SqliteLedger
from tests.contract.given import KINDS, Ledger, Store, made

ADMIN = Actor("token", "admin", "admin", ("admin",), "10.0.0.9")
DAY_MS = 86_400_000
NOON = 1_767_268_800_000  # 2026-01-01T12:00:00Z


@pytest.fixture(params=KINDS)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    with made(request.param, tmp_path, request) as store:
        yield store


@pytest.fixture
def records(store: Store) -> Ledger:
    return store.open("r1")


@pytest.fixture
def at(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Sets the clock of the stores."""

    def set_to(ms: int) -> None:
        monkeypatch.setattr(clock, "now_ms", lambda: ms)

    set_to(NOON)
    return set_to


def deed(action: str = "tenant.update", target: str = "tenant/acme", **more: Any) -> Deed:
    return Deed(ADMIN, action, target, **more)


def change(id: str, document: dict[str, Any] | None, expect: int | None = None, **more: Any) -> Change:
    kind = more.pop("kind", TENANT)
    return Change(kind, id, document, deed(target=f"{kind}/{id}", after=document), expect, **more)


def whole(records: Ledger) -> list[AuditRecord]:
    """All audit records, after a look whether the chains are unbroken up to their heads."""
    found = list(records.audit())
    heads = [(chain, n, hash) for chain, (n, hash) in records.chains().items()]
    assert [state.faults for state in verify(found, heads).values() if state.faults] == []
    return found


# ---------------------------------------------------------------------- entities


def test_versions_count_changes_and_the_stamp_moves_with_each(records: Ledger) -> None:
    start = records.stamp()
    first = records.change(change("acme", {"name": "acme"}, 0))
    second = records.change(change("acme", {"name": "acme", "tags": ["x"]}, 1))
    other = records.change(change("umbrella", {"name": "umbrella"}))
    assert (first.version, second.version, other.version) == (1, 2, 1)
    assert start < first.stamp < second.stamp < other.stamp == records.stamp()
    assert records.entities(TENANT) == [second, other]
    assert records.entity(TENANT, "acme") == second
    assert records.since(first.stamp) == [second, other]
    assert records.since(other.stamp) == []


def test_pages_go_by_id(records: Ledger) -> None:
    for name in ("c", "a", "d", "b"):
        records.change(change(name, {"name": name}))
    assert [entity.id for entity in records.entities(TENANT, most=2)] == ["a", "b"]
    assert [entity.id for entity in records.entities(TENANT, after="b", most=5)] == ["c", "d"]
    assert records.entities("raise") == []


@pytest.mark.parametrize("expect", [0, 1, 3])
def test_a_change_of_another_version_is_a_conflict_and_leaves_no_trace(records: Ledger, expect: int) -> None:
    records.change(change("acme", {"v": 1}))
    now = records.change(change("acme", {"v": 2}))
    heads = records.chains()
    with pytest.raises(Conflict, match=f"is at version 2, not at version {expect}") as caught:
        records.change(change("acme", {"v": 3}, expect, remember=("k", Answered("f", 200, b"", 1 << 60))))
    assert caught.value.current == now
    assert (records.entity(TENANT, "acme"), records.chains(), records.stamp()) == (now, heads, now.stamp)
    assert records.answered("k") is None


def test_what_does_not_exist_is_a_conflict_too(records: Ledger) -> None:
    with pytest.raises(Conflict, match="does not exist, not at version 1"):
        records.change(change("acme", {}, 1))
    with pytest.raises(Conflict, match="does not exist"):
        records.change(change("acme", None))


def test_a_deleted_one_keeps_its_document_and_can_be_made_again(records: Ledger) -> None:
    records.change(change("acme", {"name": "acme"}))
    gone = records.change(change("acme", None, 1))
    assert (gone.version, gone.deleted, gone.document) == (2, True, {"name": "acme"})
    assert records.entities(TENANT) == []
    assert records.entities(TENANT, deleted=True) == [gone] == records.since(gone.stamp - 1)
    again = records.change(change("acme", {"name": "acme"}, 0))
    assert (again.version, again.deleted) == (3, False)


def test_a_deleted_key_never_comes_back(records: Ledger) -> None:
    records.change(change("key_1", {"name": "ci", "digest": "aa"}, kind=KEY))
    records.change(change("key_1", None, kind=KEY))
    with pytest.raises(Conflict, match="never comes back"):
        records.change(change("key_1", {"name": "ci", "digest": "aa"}, 0, kind=KEY))


@pytest.mark.parametrize("member", ["name", "digest", "email"])
def test_a_unique_member_is_taken_once_among_those_that_live(records: Ledger, member: str) -> None:
    def make(id: str, value: str = "x") -> Entity:
        return records.change(change(id, {member: value}, kind=KEY, unique=(member,)))

    make("a")
    make("a")  # its own is no other's
    with pytest.raises(Conflict, match="exists already") as caught:
        make("b")
    assert caught.value.current is not None and caught.value.current.id == "a"
    make("b", "y")
    records.change(change("a", None, kind=KEY))
    make("c")


def test_the_name_of_a_revoked_key_is_free_and_its_secret_is_not(records: Ledger) -> None:
    records.change(change("a", {"name": "ci", "digest": "aa", "revoked": True}, kind=KEY))
    records.change(change("b", {"name": "ci", "digest": "bb"}, kind=KEY, unique=("name", "digest")))
    with pytest.raises(Conflict, match="of this secret exists"):
        records.change(change("c", {"name": "cd", "digest": "aa"}, kind=KEY, unique=("name", "digest")))


@pytest.mark.parametrize("document", [{"x": "\ud800"}, {"x": "y" * 70_000}, {1: "x"}, {"x": 1 << 70}])
def test_a_document_that_can_not_be_kept_is_refused_whole(records: Ledger, document: dict[str, Any]) -> None:
    with pytest.raises((TypeError, ValueError)):
        records.change(Change(TENANT, "acme", document, deed()))
    assert records.entities(TENANT) == [] and records.stamp() == 0


def test_of_two_who_change_the_same_version_at_once_one_wins(store: Store) -> None:
    first, second = store.open("r1"), store.open("r2")
    first.change(change("acme", {"n": 0}))
    second.change(change("other", {}))  # both have begun their chains
    for turn in range(10):
        outcomes = at_once(
            lambda turn=turn: first.change(change("acme", {"by": 1}, turn + 1)).version,  # type: ignore[misc]
            lambda turn=turn: second.change(change("acme", {"by": 2}, turn + 1)).version,  # type: ignore[misc]
        )
        assert sorted(map(str, outcomes)) == sorted([str(turn + 2), "conflict"])
    # Two beginnings, two made, ten changed.
    assert len(whole(first)) == 2 + 2 + 10 == len(list(second.audit()))


def test_stamps_of_writers_at_once_have_no_gaps_and_nothing_is_missed(store: Store) -> None:
    ledgers = [store.open(f"r{n}") for n in range(3)]
    seen: list[Entity] = []
    reader, stop = store.open("reader"), threading.Event()

    def read() -> str:
        stamp = 0
        while not stop.is_set() or reader.stamp() > stamp:
            for entity in reader.since(stamp):
                seen.append(entity)
                stamp = entity.stamp
        return "read"

    def write(n: int) -> str:
        for turn in range(12):
            ledgers[n].change(change(f"t{n}-{turn}", {}))
        return "written"

    def writers() -> str:
        at_once(*[lambda n=n: write(n) for n in range(3)])
        stop.set()
        return "done"

    assert at_once(read, writers) == ["read", "done"]
    assert [entity.stamp for entity in seen] == list(range(1, 37))


def at_once(*works: Callable[[], Any]) -> list[Any]:
    """Run them in threads; what each gave, or "conflict"."""
    outcomes: list[Any] = [None] * len(works)
    start = threading.Barrier(len(works))

    def run(n: int, work: Callable[[], Any]) -> None:
        start.wait()
        try:
            outcomes[n] = work()
        except Conflict:
            outcomes[n] = "conflict"
        except Exception as error:
            outcomes[n] = repr(error)

    threads = [threading.Thread(target=run, args=each) for each in enumerate(works)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return outcomes


# ---------------------------------------------------------------------- what other replicas wrote


def entity(
    version: int, changed_ms: int = 1, deleted: bool = False, kind: str = TENANT, **document: Any
) -> Entity:
    return Entity(kind, "x", version, document, changed_ms, deleted)


def test_what_is_newer_is_adopted_and_what_is_not_is_left(records: Ledger) -> None:
    mine = records.change(change("x", {"by": "me"}))
    assert records.adopt([entity(1, 1, by="them")]) == 0
    assert records.entity(TENANT, "x") == mine
    assert records.adopt([entity(4, 1, by="them")]) == 1
    adopted = records.entity(TENANT, "x")
    assert adopted is not None and (adopted.version, adopted.document) == (4, {"by": "them"})
    assert adopted.stamp == records.stamp() == mine.stamp + 1
    assert records.adopt([entity(4, 1, by="them")]) == 0
    assert records.stamp() == adopted.stamp


def test_what_was_given_up_for_another_replica_stands_in_the_audit(records: Ledger) -> None:
    mine = records.change(change("x", {"by": "me"}))
    records.adopt([entity(1, mine.changed_ms + 5, by="them")])
    last = whole(records)[-1]
    assert (last.action, last.before, last.after) == ("tenant.merge", {"by": "me"}, {"by": "them"})
    records.adopt([entity(2, 1, by="them")])  # an ordinary change that was made there stands in its chain
    assert whole(records)[-1] == last


ENTITIES = st.builds(
    entity,
    st.integers(1, 3),
    st.integers(1, 3),
    st.booleans(),
    kind=st.sampled_from([KEY, TENANT]),
    revoked=st.booleans(),
    name=st.sampled_from("ab"),
)


@given(st.lists(ENTITIES, min_size=1, max_size=5), st.randoms())
def test_whoever_merges_in_whatever_order_agrees(found: list[Entity], order: Any) -> None:
    found = [replace(each, kind=found[0].kind) for each in found]
    shuffled = [*found, *found]
    order.shuffle(shuffled)
    agreed, other = found[0], shuffled[0]
    for each in found:
        agreed = merged(agreed, each)
    for each in shuffled:
        other = merged(each, other)
    assert (agreed, merged(agreed, agreed)) == (other, agreed)
    assert agreed.version == max(each.version for each in found)
    if agreed.kind == KEY:
        assert agreed.document["revoked"] == any(each.document["revoked"] for each in found)
        assert agreed.deleted == any(each.deleted for each in found)


class Replicas(RuleBasedStateMachine):
    """Three replicas that change what they like and tell each other now and then."""

    @initialize()
    def begin(self) -> None:
        self.directory = TemporaryDirectory()
        self.ledgers = []
        for name in "abc":
            ledger = SqliteLedger(Path(self.directory.name) / name)
            ledger.chain = name
            ledger.open()
            self.ledgers.append(ledger)
        self.versions: list[dict[str, int]] = [{}, {}, {}]
        self.revoked: set[str] = set()

    @rule(
        n=st.integers(0, 2),
        id=st.sampled_from("xyz"),
        kind=st.sampled_from([KEY, TENANT]),
        value=st.integers(0, 9),
    )
    def write(self, n: int, id: str, kind: str, value: int) -> None:
        here = self.ledgers[n].entity(kind, id)
        revoked = bool(here and here.document["revoked"])
        document = {"name": id, "value": value, "revoked": revoked}
        try:
            self.ledgers[n].change(change(id, document, kind=kind))
        except Conflict as error:
            assert here is not None and here.deleted and "never comes back" in str(error)

    @rule(n=st.integers(0, 2), id=st.sampled_from("xyz"))
    def revoke(self, n: int, id: str) -> None:
        here = self.ledgers[n].entity(KEY, id)
        if here is not None and not here.deleted:
            self.ledgers[n].change(change(id, {**here.document, "revoked": True}, kind=KEY))
            self.revoked.add(id)

    @rule(n=st.integers(0, 2), id=st.sampled_from("xyz"), kind=st.sampled_from([KEY, TENANT]))
    def delete(self, n: int, id: str, kind: str) -> None:
        try:
            self.ledgers[n].change(change(id, None, kind=kind))
        except Conflict as error:
            assert "does not exist" in str(error)

    @rule(told=st.permutations(range(3)))
    def some_tell(self, told: list[int]) -> None:
        self.tell(told[0], told[1])

    def tell(self, source: int, to: int) -> None:
        self.ledgers[to].adopt(self.ledgers[source].since(0))

    @rule()
    def agree(self) -> None:
        """When all have told all, all know the same, and what was revoked is."""
        for source in (0, 1, 2, 0, 1):
            for to in range(3):
                self.tell(source, to)
        held = [
            [(each.kind, each.id, each.version, each.deleted, each.document) for kind in (KEY, TENANT)
             for each in ledger.entities(kind, deleted=True)]
            for ledger in self.ledgers
        ]  # fmt: skip
        assert held[0] == held[1] == held[2]
        for id in self.revoked:
            key = self.ledgers[0].entity(KEY, id)
            assert key is not None and key.document["revoked"]

    @invariant()
    def versions_and_stamps_never_go_back(self) -> None:
        for n, ledger in enumerate(self.ledgers):
            now = {f"{each.kind} {each.id}": each.version for each in ledger.since(0)}
            assert all(now[name] >= version for name, version in self.versions[n].items())
            self.versions[n] = now | {"stamp": 0}
            self.versions[n].pop("stamp")

    def teardown(self) -> None:
        for ledger in self.ledgers:
            whole(ledger)
            ledger.close()
        self.directory.cleanup()


TestReplicas = Replicas.TestCase


# ---------------------------------------------------------------------- the audit


def test_a_chain_begins_and_each_record_says_who_what_and_where(
    records: Ledger, at: Callable[[int], None]
) -> None:
    records.note(
        [deed(before={"a": 1}, after={"a": 2}, revision="r7", detail={"why": "é"}), deed("x", ts_ms=5)]
    )
    begin, first, second = whole(records)
    assert (begin.action, begin.n, begin.previous, begin.chain) == (GENESIS, 1, "", "r1")
    assert first.actor == {
        "kind": "token",
        "id": "admin",
        "name": "admin",
        "roles": ["admin"],
        "address": "10.0.0.9",
    }
    assert (first.before, first.after, first.detail, first.revision) == (
        {"a": 1},
        {"a": 2},
        {"why": "é"},
        "r7",
    )
    assert (first.ts_ms, second.ts_ms, second.previous) == (NOON, 5, first.hash)
    assert records.chains() == {"r1": (3, second.hash)}


def test_nothing_secret_gets_into_a_record(records: Ledger) -> None:
    document = {
        "digest": "ab" * 32, "previous": "cd" * 32, "key": "sk-live-canary", "token": "canary",
        "inside": [{"api_key": "canary"}, "Bearer sk-ps-canarycanarycanary"], "id": "key_1",
    }  # fmt: skip
    records.change(Change(KEY, "key_1", document, deed(after=document, detail={"password": "canary"})))
    said = repr(whole(records))
    assert "canary" not in said and "abababab…" in said and "ab" * 16 not in said and "key_1" in said


def test_audit_is_read_by_chain_by_time_in_pages_and_the_newest_first(store: Store) -> None:
    for chain in ("a", "b"):
        store.open(chain).note([deed(str(n), ts_ms=100 * n + (chain == "b")) for n in range(1, 4)])
    records = store.open("a")

    def seen(**query: Any) -> list[tuple[str, int]]:
        return [(each.chain, each.n) for each in records.audit(**query)]

    assert seen() == [(chain, n) for chain in "ab" for n in (1, 2, 3, 4)]
    assert seen(chain="b", after=2) == [("b", 3), ("b", 4)]
    assert seen(most=3) == [("a", 1), ("a", 2), ("a", 3)]
    assert seen(most=3, beyond=("a", 3)) == [("a", 4), ("b", 1), ("b", 2)]
    assert seen(chain="b", beyond=("a", 3), most=1) == [("b", 1)]
    assert seen(since_ms=201, until_ms=301) == [("a", 4), ("b", 3)]
    assert seen(newest=True, until_ms=1000) == [("b", 4), ("a", 4), ("b", 3), ("a", 3), ("b", 2), ("a", 2)]
    assert seen(newest=True, until_ms=1000, chain="a", most=1) == [("a", 4)]


def test_long_audits_are_read_whole(records: Ledger) -> None:
    records.note([deed(str(n), ts_ms=1 + n % 7) for n in range(1200)])
    assert [record.n for record in whole(records)] == list(range(1, 1202))
    newest = [(record.ts_ms, record.n) for record in records.audit(newest=True, until_ms=1000)]
    assert newest == sorted(newest, reverse=True) and len(set(newest)) == 1200


def test_chains_of_writers_at_once_stay_unbroken(store: Store) -> None:
    ledgers = [store.open("same"), store.open("same"), store.open("other")]

    def write(ledger: Ledger) -> str:
        for turn in range(20):
            ledger.note([deed(f"{turn}"), deed(f"{turn} again")])
        return "written"

    assert at_once(*[lambda each=each: write(each) for each in ledgers]) == ["written"] * 3
    whole(ledgers[0])
    assert {chain: n for chain, (n, _) in ledgers[0].chains().items()} == {"same": 81, "other": 41}


@pytest.mark.parametrize("statement", ["UPDATE audit SET target = 'x'", "DELETE FROM audit WHERE n = 2"])
def test_the_database_itself_refuses_to_change_the_audit(store: Store, statement: str) -> None:
    records = store.open("r1")
    records.note([deed()])
    with pytest.raises(Exception, match="audit records are"):
        store.execute(statement)
    whole(records)


_OVER = (
    "chain, n, ts, actor, action, target, before, after, revision, detail, previous, hash)"
    " SELECT chain, {n}, ts, actor, action, 'x', before, after, revision, detail, previous, hash FROM audit"
    " WHERE n = 2"
)
_BY_ROWID = f"INSERT OR REPLACE INTO audit (rowid, {_OVER.replace(' SELECT', ' SELECT rowid,')}"
REPLACING = {
    "sqlite": (
        f"INSERT OR REPLACE INTO audit ({_OVER}",
        f"REPLACE INTO audit ({_OVER}",
        f"INSERT INTO audit ({_OVER} ON CONFLICT (chain, n) DO UPDATE SET target = 'x'",
        _BY_ROWID.format(n=77),
        "UPDATE OR REPLACE audit SET n = 2 WHERE n = 3",
    ),
    "postgres": (f"INSERT INTO audit ({_OVER} ON CONFLICT (chain, n) DO UPDATE SET target = 'x'",),
}


@pytest.mark.parametrize("kind, statement", [(kind, each) for kind in KINDS for each in REPLACING[kind]])
def test_no_record_is_put_in_the_place_of_another(
    kind: str, statement: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    with made(kind, tmp_path, request) as store:
        records = store.open("r1")
        records.note([deed(), deed()])
        with pytest.raises(Exception, match="audit records are never changed"):
            store.execute(statement.format(n=2))
        records.note([deed()])
        assert len(whole(records)) == 4


# ---------------------------------------------------------------------- refusals


def refused(ts: int = NOON, **fields: Any) -> dict[str, Any]:
    return {
        "id": f"req_{ts}", "ts": ts, "key": "key_1", "key_name": "ci", "tenant": "acme", "client": "10.0.0.1",
        "model": "gpt-4o", "endpoint": "chat/completions", "status": 429, "outcome": "refused",
        "code": "policy_rate_limited", "revision": "rev1", "reasons": {"limit": "per-minute"},
    } | fields  # fmt: skip


def actions(records: Ledger) -> list[str]:
    return [record.action for record in whole(records)[1:]]


def test_a_refusal_by_policy_is_booked_and_audited_together(records: Ledger) -> None:
    records.commit([refused(), refused(code="caller_bad_request"), refused(code="", outcome="ok")], {"j": 1})
    _, record = whole(records)
    assert (record.action, record.target, record.revision) == (ACTION, "limit/per-minute", "rev1")
    assert record.actor == {"kind": "call", "id": "key_1", "name": "ci", "address": "10.0.0.1"}
    assert record.detail == {
        "code": "policy_rate_limited", "rule": "per-minute", "request_id": f"req_{NOON}", "tenant": "acme",
        "endpoint": "chat/completions", "model": "gpt-4o", "status": 429,
    }  # fmt: skip
    assert record.ts_ms == NOON
    with pytest.raises(LedgerError):
        records.commit([refused()], {"j": 0})  # a batch that was booked already
    assert len(actions(records)) == 1


@pytest.mark.parametrize(
    ("fields", "target"),
    [
        ({"reasons": {}}, "policy/rate_limited"),
        ({"code": "policy_denied", "reasons": {"policy": "cool,no-tools"}}, "policy/no-tools"),
        ({"reasons": {"policy": "cool", "limit": "few"}}, "limit/few"),
        ({"code": "policy_model_denied", "reasons": ""}, "policy/model_denied"),
    ],
)
def test_a_refusal_is_about_the_rule_or_else_about_its_kind(
    records: Ledger, fields: dict[str, Any], target: str
) -> None:
    records.commit([refused(**fields)], {})
    assert whole(records)[-1].target == target


def test_a_flood_of_refusals_is_counted_exactly_and_stated_when_its_minute_is_over(
    records: Ledger, at: Callable[[int], None]
) -> None:
    for batch in range(10):
        records.commit([refused(NOON + 100 * batch + n) for n in range(100)], {})
        records.commit([refused(NOON + batch, key="key_2")], {})
    assert actions(records) == [ACTION] * 2 * EACH
    at(NOON + MINUTE_MS)
    records.upkeep()
    first, second = whole(records)[-2:]
    assert {first.action, second.action} == {MORE}
    counts = {record.actor["id"]: record.detail for record in (first, second)}
    assert counts["key_1"] == {
        "code": "policy_rate_limited", "rule": "per-minute", "count": 1000 - EACH,
        "first_ms": NOON + EACH, "last_ms": NOON + 999,
    }  # fmt: skip
    assert counts["key_2"] is not None and counts["key_2"]["count"] == 10 - EACH
    before = len(whole(records))
    records.upkeep()
    records.commit([refused()], {})
    assert len(whole(records)) == before + 1


def test_counts_survive_a_restart(store: Store, at: Callable[[int], None]) -> None:
    store.open("r1").commit([refused()] * (EACH + 3), {})
    again = store.open("r1")
    again.commit([refused()] * 4, {})
    at(NOON + MINUTE_MS)
    again.commit([refused()], {})
    details = [record.detail for record in whole(again) if record.action == MORE]
    assert [detail and detail["count"] for detail in details] == [7]


def test_refusals_of_very_many_keys_are_counted_together(records: Ledger, at: Callable[[int], None]) -> None:
    records.commit([refused(key=f"key_{n}") for n in range(GROUPS + 25)], {})
    assert len(actions(records)) == GROUPS
    at(NOON + MINUTE_MS)
    records.upkeep()
    last = whole(records)[-1]
    assert (last.actor["id"], last.detail and last.detail["count"]) == (OTHERS, 25)


@given(st.lists(st.tuples(st.integers(0, 3), st.sampled_from("ab"), st.integers(1, 12)), max_size=12))
def test_single_records_and_counts_together_are_all_refusals(steps: list[tuple[int, str, int]]) -> None:
    now, told = NOON, dict.fromkeys("ab", 0)
    with TemporaryDirectory() as directory, pytest.MonkeyPatch.context() as patch:
        ledger = SqliteLedger(Path(directory) / "ledger.db")
        ledger.open()
        for pause, key, calls in steps:
            now += pause * 30_000
            patch.setattr(clock, "now_ms", lambda now=now: now)
            ledger.commit([refused(now, key=key)] * calls, {})
            told[key] += calls
        patch.setattr(clock, "now_ms", lambda: now + MINUTE_MS)
        ledger.upkeep()
        audit = whole(ledger)
        ledger.close()
    found = dict.fromkeys("ab", 0)
    for record in audit[1:]:
        found[record.actor["id"]] += record.detail["count"] if record.action == MORE else 1  # type: ignore[index]
    assert found == told


# ---------------------------------------------------------------------- retention


def test_what_retention_removes_is_stated_and_the_chain_still_verifies(
    records: Ledger, at: Callable[[int], None]
) -> None:
    for day in range(10):
        at(NOON + day * DAY_MS)
        records.note([deed(str(day))] * 2)
    old = whole(records)
    assert records.upkeep(5 * DAY_MS) > 0
    found = whole(records)
    last = found[-1]
    assert (last.action, last.detail) == (
        CHECKPOINT,
        {
            "from": 1,
            "through": found[0].n - 1,
            "head": found[0].previous,
            "until_ms": old[found[0].n - 2].ts_ms,
        },
    )
    assert min(record.ts_ms for record in found) >= NOON + 4 * DAY_MS
    assert verify(found)["r1"].removed == found[0].n - 1
    assert records.upkeep(5 * DAY_MS) == 0  # at most one a day


def test_retention_goes_in_steps_and_never_takes_the_newest_record(
    records: Ledger, at: Callable[[int], None]
) -> None:
    records.note([deed(str(n)) for n in range(30)])
    at(NOON + 9 * DAY_MS)
    assert [records.upkeep(DAY_MS, most=10) for _ in range(5)] == [10, 10, 10, 1, 0]
    found = whole(records)
    assert found[0].n == 32 and [record.action for record in found] == [CHECKPOINT] * 4


def test_without_retention_all_stays(records: Ledger, at: Callable[[int], None]) -> None:
    records.note([deed()])
    at(NOON + 1000 * DAY_MS)
    assert records.upkeep() == 0 and len(whole(records)) == 2


def test_old_tombstones_are_dropped_and_the_stamp_does_not_go_back(
    records: Ledger, at: Callable[[int], None]
) -> None:
    records.change(change("acme", {}))
    gone = records.change(change("acme", None))
    at(NOON + 399 * DAY_MS)
    records.upkeep()
    assert records.since(0) == [gone]
    at(NOON + 402 * DAY_MS)
    records.upkeep()
    assert records.since(0) == [] and records.stamp() == gone.stamp


# ---------------------------------------------------------------------- revisions and answers


def test_revisions_are_kept_in_order_and_the_same_one_only_once_in_a_row(records: Ledger) -> None:
    for id in ("one", "one", "two", "one"):
        records.keep_revision(KeptRevision(id, 5, {"kind": "config"}, {"gateway.toml": f"# {id} é"}, "why"))
    kept = records.revisions()
    assert [revision.id for revision in kept] == ["one", "two", "one"]
    assert kept[0].n > kept[1].n > kept[2].n > 0
    assert (kept[1].files, kept[1].actor, kept[1].ts_ms, kept[1].note) == (
        {"gateway.toml": "# two é"}, {"kind": "config"}, 5, "why",
    )  # fmt: skip
    assert records.revisions(most=1) == kept[:1]
    assert records.revisions(before=kept[1].n) == kept[2:]


def test_the_history_of_revisions_is_bounded(records: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "_MOST_REVISIONS", 3)
    for n in range(7):
        records.keep_revision(KeptRevision(str(n), 5, {}, {}))
    assert [revision.id for revision in records.revisions()] == ["6", "5", "4"]


def test_revisions_of_the_same_text_do_not_crowd_out_what_was_written(
    records: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Renewed secrets make them."""
    monkeypatch.setattr(clock, "_MOST_REVISIONS", 3)
    for id, text in (("1", "a"), ("2", "b"), *[(str(n), "c") for n in range(3, 9)]):
        records.keep_revision(KeptRevision(id, 5, {}, {"gateway.toml": text}))
    assert [revision.id for revision in records.revisions()] == ["8", "2", "1"]
    records.keep_revision(KeptRevision("9", 5, {}, {"gateway.toml": "d"}))
    assert [revision.id for revision in records.revisions()] == ["9", "8", "2"]


def test_a_revision_that_could_not_serve_is_withdrawn_once(records: Ledger) -> None:
    for id in ("one", "bad", "one", "bad"):
        records.keep_revision(KeptRevision(id, 5, {}, {}))
    records.withdraw_revision("bad")
    records.withdraw_revision("unknown")
    assert [revision.id for revision in records.revisions()] == ["one", "bad", "one"]


def test_an_answer_is_remembered_with_its_change_until_its_time_is_up(
    records: Ledger, at: Callable[[int], None]
) -> None:
    answer = Answered("fingerprint", 201, b'{"id": "acme"}\x00', NOON + 1000)
    records.change(change("acme", {}, remember=("admin/1", answer)))
    assert records.answered("admin/1") == answer
    assert records.answered("admin/2") is None
    at(NOON + 1001)
    assert records.answered("admin/1") is None
    records.change(change("acme", {}, remember=("admin/1", replace(answer, until_ms=NOON + 9000))))


def test_the_same_idempotency_key_at_once_makes_one_change(store: Store) -> None:
    answer = Answered("f", 201, b"", int(time.time() * 1000) + 60_000)
    ledgers = store.open("r1"), store.open("r2")
    made = [change(name, {}, remember=("admin/1", answer)) for name in ("a", "b")]
    outcomes = at_once(*[lambda n=n: ledgers[n].change(made[n]).version for n in (0, 1)])
    assert sorted(map(str, outcomes)) == ["1", "conflict"]
    assert len(ledgers[0].entities(TENANT)) == 1


def test_answers_are_bounded(records: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "_MOST_ANSWERS", 3)
    later = int(time.time() * 1000) + 60_000
    for n in range(5):
        records.change(change("acme", {}, remember=(str(n), Answered("f", 200, b"", later + n))))
    assert [records.answered(str(n)) is not None for n in range(5)] == [False, False, True, True, True]
