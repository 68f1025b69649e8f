"""What every ledger does: one suite, run on each implementation."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.core.errors import LedgerError
from gateway.core.limit import LimitRule
from gateway.core.ports import Ledger
from gateway.core.principal import KeyEntry
from gateway.core.record import FIELDS, abandoned
from gateway.core.usage import KINDS
from gateway.stores.sqlite import SqliteLedger
from tests.contract import given as stores

NOON = 1_767_268_800_000  # 2026-01-01T12:00:00Z in ms
HOUR = 3_600_000

CALL: dict[str, Any] = {
    "ts": NOON,
    "key": "key_1",
    "key_name": "ci",
    "tenant": "acme",
    "method": "POST",
    "endpoint": "chat/completions",
    "model": "gpt-4o-mini",
    "alias": "gpt-*",
    "backend": "openai",
    "stream": True,
    "status": 200,
    "outcome": "ok",
    "usage_source": "provider",
    "input": 100,
    "output": 50,
    "cost_micros": 45,
    "hold_tokens": 400,
    "hold_micros": 300,
    "total_us": 1_500_000,
    "worker": 1,
    "tags": ["a"],
    "reasons": {"route": "exact"},
    "sealed": "",
}


@pytest.fixture(params=stores.KINDS)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[stores.Store]:
    with stores.made(request.param, tmp_path, request) as store:
        yield store


@pytest.fixture
def ledger(store: stores.Store) -> Ledger:
    return store.open("local")


def call(**fields: Any) -> dict[str, Any]:
    return CALL | fields


def key(name: str, **fields: Any) -> KeyEntry:
    return KeyEntry(
        **{
            "id": f"key_{name}",
            "name": name,
            "digest": name.encode("utf-8", "replace") * 4,
            "origin": "ledger",
        }
        | fields
    )


def limit(unit: str = "tokens", scope: tuple[str, ...] = ("key",), **window: Any) -> LimitRule:
    return LimitRule(id="r", scope=scope, unit=unit, amount=1000, **window)


def test_rows_and_offsets_move_together(ledger: Ledger) -> None:
    ledger.commit([call(id="one"), call(id="two")], {"boot-1": 120, "boot-2": 7})
    ledger.commit([], {"boot-2": 9})
    assert ledger.offsets() == {"boot-1": 120, "boot-2": 9}
    assert ledger.usage(())[0]["calls"] == 2
    ledger.forget("boot-1")
    assert ledger.offsets() == {"boot-2": 9}


def test_a_batch_that_was_booked_already_is_refused_whole(ledger: Ledger) -> None:
    ledger.commit([call()], {"a": 10, "b": 10})
    with pytest.raises(LedgerError, match="nothing is booked"):
        ledger.commit([call(), call()], {"b": 20, "a": 5})
    assert ledger.offsets() == {"a": 10, "b": 10}
    assert ledger.usage(())[0]["calls"] == 1


def test_everything_is_there_after_a_restart(ledger: Ledger, store: stores.Store) -> None:
    ledger.commit([call()], {"a": 10})
    ledger.add_key(key("ci"))
    before = ledger.usage(("key", "day"))
    ledger.close()
    again = store.open("local")
    assert (again.offsets(), again.keys(), again.usage(("key", "day"))) == ({"a": 10}, [key("ci")], before)
    again.commit([call()], {"a": 11})
    assert again.usage(())[0]["calls"] == 2


def test_a_record_with_no_field_at_all_is_a_row_of_zeros(ledger: Ledger) -> None:
    ledger.commit([{}], {"a": 1})
    (row,) = ledger.usage(("key", "model", "outcome"))
    assert (row["key"], row["model"], row["outcome"]) == ("", "", "")
    assert (row["calls"], row["tokens"], row["cost_micros"]) == (1, 0, 0)


@pytest.mark.parametrize(
    "odd",
    [
        {"cost_micros": 1 << 70},
        {"model": "\ud800"},
        {"model": ["a"]},
        {"client": {"a": 1}},
        {"input": "7"},
        {"key": None},
        {"ts": NOON + 0.5},
    ],
)
def test_one_odd_field_loses_no_call(ledger: Ledger, odd: dict[str, Any]) -> None:
    ledger.commit([call(), call(**odd)], {"a": 1})
    assert sum(row["calls"] for row in ledger.usage(("day",))) == 2


def test_nonsense_from_providers_does_not_break_sums(ledger: Ledger) -> None:
    for offset in range(20):
        ledger.commit([call(input=(1 << 63) - 1, cost_micros=(1 << 63) - 1)] * 3, {"a": offset})
    assert ledger.usage(("key",))[0]["calls"] == 60


def test_usage_by_key_model_and_day(ledger: Ledger) -> None:
    ledger.commit(
        [
            call(),
            call(input=10, cached_input=5, output=1, reasoning=2, cost_micros=7),
            call(model="gpt-4o", ts=NOON + 24 * HOUR, cost_micros=1000),
            call(key="key_2", usage_source="estimated"),
        ],
        {"a": 1},
    )
    rows = ledger.usage(("key", "model", "day"))
    assert [(row["key"], row["model"], row["day"], row["calls"], row["cost_micros"]) for row in rows] == [
        ("key_1", "gpt-4o", "2026-01-02", 1, 1000),
        ("key_1", "gpt-4o-mini", "2026-01-01", 2, 52),
        ("key_2", "gpt-4o-mini", "2026-01-01", 1, 45),
    ]
    assert {kind: rows[1][kind] for kind in KINDS} == {
        "input": 110, "cached_input": 5, "cache_write": 0, "audio_input": 0,
        "output": 51, "reasoning": 2, "audio_output": 0,
    }  # fmt: skip
    assert rows[1]["tokens"] == 168
    assert rows[2]["estimated"] == 1


def test_usage_counts_errors_and_says_what_abandoned_calls_held(ledger: Ledger) -> None:
    opened = {name: CALL[name] for name in ("ts", "key", "model", "hold_tokens", "hold_micros")}
    outcomes = ("ok", "refused", "upstream_error", "failed", "client_gone", "truncated")
    ledger.commit([call(outcome=outcome) for outcome in outcomes] + [abandoned(opened)] * 2, {"a": 1})
    (row,) = ledger.usage(("key",))
    counts = {name: row[name] for name in ("calls", "errors", "refused", "abandoned", "unknown")}
    assert counts == {"calls": 8, "errors": 5, "refused": 1, "abandoned": 2, "unknown": 2}
    assert (row["held_tokens"], row["held_micros"]) == (800, 600)
    assert row["cost_micros"] == 6 * 45


def test_usage_between_two_hours(ledger: Ledger) -> None:
    ledger.commit([call(ts=NOON + n * HOUR) for n in range(5)], {"a": 1})
    since = datetime(2026, 1, 1, 13, tzinfo=UTC)
    until = datetime(2026, 1, 1, 15, tzinfo=UTC)
    assert [row["hour"] for row in ledger.usage(("hour",), since, until)] == [
        "2026-01-01T13:00Z",
        "2026-01-01T14:00Z",
    ]
    assert ledger.usage(("month",), since)[0]["calls"] == 4
    assert ledger.usage((), until=until)[0]["calls"] == 3


@pytest.mark.parametrize("name", ["keys", "1; DROP TABLE keys", "", "calls"])
def test_usage_by_something_else_says_what_it_knows(ledger: Ledger, name: str) -> None:
    with pytest.raises(LedgerError, match="it knows: key, key_name"):
        ledger.usage(("key", name))


def test_usage_with_a_time_without_zone_is_a_fault(ledger: Ledger) -> None:
    with pytest.raises(LedgerError, match="time zone"):
        ledger.usage(("key",), datetime(2026, 1, 1))


_always = {
    "id": st.sampled_from(["one", "two"]),
    "ts": st.integers(NOON - 50 * HOUR, NOON + 50 * HOUR),
    "model": st.sampled_from(["m1", "m2", "m\x00é"]),
    "outcome": st.sampled_from(["ok", "refused", "abandoned", "failed"]),
}
_mostly = {
    "key": st.sampled_from(["", "k1", "k2", "k'3\"; --"]),
    "usage_source": st.sampled_from(["provider", "estimated", "unknown", "none"]),
    "stream": st.booleans(),
    **{kind: st.integers(0, 10_000) for kind in KINDS},
    "cost_micros": st.integers(0, 1_000_000),
    "hold_tokens": st.integers(0, 10_000),
    "hold_micros": st.integers(0, 10_000),
    "tags": st.just(["a"]),
    "sealed": st.just(""),
}
_fields = st.fixed_dictionaries(_always, optional=_mostly) | st.fixed_dictionaries(
    {}, optional=_always | _mostly
)


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(batches=st.lists(st.lists(_fields, max_size=30), max_size=5))
def test_sums_are_those_of_the_records(tmp_path_factory: pytest.TempPathFactory, batches: list) -> None:
    ledger = SqliteLedger(tmp_path_factory.mktemp("sums") / "ledger.db")
    ledger.open()
    for number, records in enumerate(batches):
        ledger.commit(records, {"a": number})
    records = [record for batch in batches for record in batch]
    for by in (("key", "model", "day"), ("outcome",), ("usage_source", "key"), ()):
        rows = ledger.usage(by)
        assert sum(row["calls"] for row in rows) == len(records)
        for row in rows:
            mine = [r for r in records if all(_value(r, name) == row[name] for name in by)]
            assert row["calls"] == len(mine)
            assert row["tokens"] == sum(r.get(kind, 0) for r in mine for kind in KINDS)
            assert row["cost_micros"] == sum(r.get("cost_micros", 0) for r in mine)
            assert row["abandoned"] == sum(r.get("outcome") == "abandoned" for r in mine)
            assert row["held_micros"] == sum(r.get("hold_micros", 0) for r in mine if _unknown(r))
    ledger.close()


def _unknown(record: dict[str, Any]) -> bool:
    """Whether nobody knows what the call used."""
    return record.get("outcome") == "abandoned" or record.get("usage_source") == "unknown"


def _value(record: dict[str, Any], name: str) -> Any:
    if name == "day":
        return datetime.fromtimestamp(record.get("ts", 0) / 1000, UTC).strftime("%Y-%m-%d")
    return record.get(name, "")


@pytest.mark.parametrize("unit, expected", [("requests", 1), ("tokens", 150), ("usd", 45)])
def test_spent_tells_each_unit_of_one_bucket(ledger: Ledger, unit: str, expected: int) -> None:
    ledger.commit([call(), call(key="key_2"), call(ts=NOON - 2 * HOUR)], {"a": 1})
    (row,) = ledger.spent(limit(unit, seconds=60.0), NOON - 60_000, "key_1")
    assert {"requests": row.requests, "tokens": row.tokens, "usd": row.micros}[unit] == expected
    assert row.value == "key_1"
    assert NOON + 1500 <= row.ts_ms <= NOON + 1500 + 1000  # when it ended, and less than a slice later


def test_spent_joins_several_scopes(ledger: Ledger) -> None:
    ledger.commit([call(), call(model="gpt-4o")], {"a": 1})
    rows = ledger.spent(limit(scope=("tenant", "model"), seconds=60.0), NOON - 60_000)
    assert {row.value for row in rows} == {"acme/gpt-4o-mini", "acme/gpt-4o"}
    rows = ledger.spent(limit(scope=("global",), seconds=60.0), NOON - 60_000)
    assert sum(row.requests for row in rows if row.value == "") == 2


def test_spent_leaves_out_refused_calls_and_counts_holds_where_nobody_knows(ledger: Ledger) -> None:
    opened = {**CALL, "input": 0, "output": 0, "cost_micros": 0, "total_us": 0}
    ledger.commit([call(outcome="refused", usage_source="none"), abandoned(opened)], {"a": 1})
    (row,) = ledger.spent(limit(seconds=60.0), NOON - 60_000)
    assert (row.requests, row.tokens, row.micros) == (1, 400, 300)


@pytest.mark.parametrize("window", [{"calendar": "month"}, {"calendar": "day"}, {"seconds": 86_400.0}])
def test_spent_of_long_windows_is_dated_by_the_hour(ledger: Ledger, window: dict[str, Any]) -> None:
    ledger.commit([call(), call(ts=NOON + HOUR - 1), call(ts=NOON + HOUR)], {"a": 1})
    rows = sorted(ledger.spent(limit(**window), NOON), key=lambda row: row.ts_ms)
    assert [(row.ts_ms, row.tokens) for row in rows] == [(NOON + HOUR - 1, 300), (NOON + 2 * HOUR - 1, 150)]


def test_spent_by_one_worker_has_what_ended_since_and_what_died_with_it(ledger: Ledger) -> None:
    dead = abandoned(call(ts=NOON - HOUR // 2, worker=2))
    ledger.commit([call(worker=2), call(), call(ts=NOON - HOUR // 2, worker=2), dead], {"a": 1})
    rows = list(ledger.spent(limit(calendar="month"), NOON, "key_1", 2))
    assert sum(row.requests for row in rows) == 2
    assert sum(row.tokens for row in rows) == 150 + 400


def test_a_key_comes_back_as_it_was_kept(ledger: Ledger) -> None:
    entry = key(
        "ci", tenant="t", team="x", user="u", roles=("caller", "admin"), models=("gpt-*",),
        endpoints=("chat/*",), tags=("a",), expires=1.5,
    )  # fmt: skip
    ledger.add_key(entry)
    assert ledger.keys() == [entry]


def test_a_name_is_given_once_and_free_again_after_revocation(ledger: Ledger) -> None:
    ledger.add_key(key("ci"))
    with pytest.raises(LedgerError, match="'ci' exists"):
        ledger.add_key(key("ci", id="other", digest=b"other"))
    assert ledger.revoke_key("ci")
    ledger.add_key(key("ci", id="other", digest=b"other"))
    kept = ledger.keys()
    assert [(entry.id, entry.revoked) for entry in kept] == [("key_ci", True), ("other", False)]


def test_a_key_is_revoked_by_name_or_id_once(ledger: Ledger) -> None:
    ledger.add_key(key("a"))
    ledger.add_key(key("b"))
    assert [ledger.revoke_key(word) for word in ("a", "key_b", "a", "nobody")] == [True, True, False, False]


def test_the_same_secret_twice_is_a_fault(ledger: Ledger) -> None:
    ledger.add_key(key("a"))
    with pytest.raises(LedgerError, match="can't be kept"):
        ledger.add_key(key("b", digest=key("a").digest))
    with pytest.raises(LedgerError, match="can't be kept"):
        ledger.add_key(key("\ud800", id="c", digest=b"c"))


def test_what_another_process_commits_is_noticed_once(ledger: Ledger, store: stores.Store) -> None:
    other = store.open("other")
    assert not ledger.changed()
    ledger.commit([call()], {"a": 1})
    assert not ledger.changed()
    other.add_key(key("ci"))
    assert [ledger.changed(), ledger.changed()] == [True, False]
    assert ledger.keys() == [key("ci")]


def test_the_record_has_no_field_that_the_tests_forgot() -> None:
    assert set(CALL) <= set(FIELDS)
