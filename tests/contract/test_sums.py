"""Sums and retention of every ledger: whatever is summed up or gone, figures are those of the calls."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.core.keep import Keep
from gateway.core.limit import LimitRule
from gateway.core.ports import Ledger
from gateway.stores.base import SqlCalls, rollups
from gateway.stores.sqlite import SqliteLedger
from tests.contract import given as stores

DAY = 86_400
HOUR_MS = 3_600_000
HOUR = "%Y-%m-%dT%H:00Z"
START = 1_767_225_600_000  # 2026-01-01T00:00:00Z in ms
SHORT = Keep(calls=2.0 * DAY, hours=3.0 * DAY, days=4.0 * DAY)


@pytest.fixture(params=stores.KINDS)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[stores.Store]:
    with stores.made(request.param, tmp_path, request) as store:
        yield store


@pytest.fixture
def ledger(store: stores.Store) -> Ledger:
    return store.open("local")


def call(day: float = 0, **fields: Any) -> dict[str, Any]:
    ts = START + int(day * DAY * 1000)
    return {
        "ts": ts, "key": "k", "tenant": "acme", "model": "m", "outcome": "ok", "usage_source": "provider",
        "input": 10, "output": 5, "cost_micros": 3, "total_us": 1000, **fields,
    }  # fmt: skip


def at(day: float) -> float:
    return START / 1000 + day * DAY


def tidy(ledger: Ledger, keep: Keep, now: float) -> int:
    steps = 1
    while ledger.tidy_calls(keep, now):
        steps += 1
        assert steps < 1000
    return steps


def figures(ledger: Ledger, *by: str, **only: list[str]) -> dict[tuple[Any, ...], tuple[int, int]]:
    rows = ledger.usage(by, only=only)
    return {tuple(row[name] for name in by): (row["calls"], row["tokens"]) for row in rows}


def test_a_call_counts_under_each_of_its_tags_and_one_without_under_none(ledger: Ledger) -> None:
    ledger.commit([call(tags=["a", "b"]), call(tags=["b", "b"], model="n"), call()], {})
    for _ in range(3):  # as rows, as sums by hour, as sums by day
        assert figures(ledger, "tag") == {("",): (1, 15), ("a",): (1, 15), ("b",): (2, 30)}
        assert figures(ledger, "tag", "model")["b", "n"] == (1, 15)
        assert figures(ledger, "model", tag=["b"]) == {("m",): (1, 15), ("n",): (1, 15)}
        assert figures(ledger, "model", tag=["", "a"]) == {("m",): (2, 30)}
        assert figures(ledger) == {(): (3, 45)}
        ledger.tidy_calls(Keep(), at(0.5))
        ledger.tidy_calls(Keep(), at(1.5))


def test_calls_are_told_apart_by_prompt_version_and_arm(ledger: Ledger) -> None:
    ledger.commit([call(prompt_version="greeting@3", arm="canary"), call(arm="stable"), call()], {})
    assert figures(ledger, "prompt", "arm") == {
        ("", ""): (1, 15),
        ("", "stable"): (1, 15),
        ("greeting@3", "canary"): (1, 15),
    }
    assert figures(ledger, "arm", prompt=["greeting@3"]) == {("canary",): (1, 15)}


def test_usage_is_that_of_the_values_asked_for(ledger: Ledger) -> None:
    ledger.commit(
        [call(), call(tenant="b", status=429, outcome="refused"), call(tenant="c", stream=True)], {}
    )
    assert figures(ledger, "tenant", tenant=["acme", "c"]) == {("acme",): (1, 15), ("c",): (1, 15)}
    assert figures(ledger, "tenant", status=["429"]) == {("b",): (1, 15)}
    assert figures(ledger, "tenant", tenant=["acme"], outcome=["refused"]) == {}


def test_every_kind_of_provenance_is_counted_apart(ledger: Ledger) -> None:
    sources = ("provider", "counted", "estimated", "estimated", "unknown", "none")
    ledger.commit([call(usage_source=source) for source in sources], {})
    (row,) = ledger.usage(())
    assert [row[name] for name in ("calls", "counted", "estimated", "unknown")] == [6, 1, 2, 1]


def test_what_is_too_old_goes_first_calls_then_hours_then_days(store: stores.Store, ledger: Ledger) -> None:
    if isinstance(ledger, SqliteLedger):  # PostgreSQL drops days of booking: see tests/stores
        ledger.commit([call(day, id=f"c{day}") for day in range(6)], {})
        tidy(ledger, SHORT, at(6))
        assert figures(ledger, "day").keys() == {(f"2026-01-0{day}",) for day in (3, 4, 5, 6)}
        assert figures(ledger, "hour").keys() >= {(f"2026-01-0{day}T00:00Z",) for day in (4, 5, 6)}
        assert rows_left(ledger) == ["c4", "c5"]
        ledger.commit([call(6, id="c6")], {})
        assert figures(ledger, "day")["2026-01-07",] == (1, 15)


def test_time_series_are_right_while_sums_of_an_older_version_become_coarse_ones(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rollups, "_COMING", 2)
    calls = [call(day / 24, key=key, model=model) for day in range(3) for key in "ab" for model in "mn"]
    ledger.commit(calls, {})
    tidy(ledger, Keep(), at(0.5))
    ledger.commit(calls, {})
    assert isinstance(ledger, SqlCalls)
    with ledger._transaction() as db:  # as they are before there were any
        db.execute("DELETE FROM coarse_hours")
        db.execute("UPDATE replicas SET coarsened = 0")
    steps = 1
    for _ in range(20):
        assert {hour[11:13]: figure for (hour,), figure in figures(ledger, "hour").items()} == {
            f"0{hour}": (8, 120) for hour in range(3)
        }
        mine = figures(ledger, "model", "hour", model=["m"], tenant=["acme"])
        assert mine["m", "2026-01-01T01:00Z"] == (4, 60)
        steps += ledger.tidy_calls(Keep(), at(1.5))
    assert steps > 6
    with ledger._transaction() as db:
        assert int(db.execute("SELECT sum(calls) FROM coarse_hours").fetchone()[0]) == 24
    tidy(ledger, SHORT, at(30))
    with ledger._transaction() as db:
        assert db.execute("SELECT count(*) FROM coarse_hours").fetchone()[0] == 0


def rows_left(ledger: SqliteLedger) -> list[str]:
    return [id for (id,) in ledger._db.execute("SELECT id FROM calls ORDER BY ts")]


def test_retention_works_in_bounded_steps(ledger: Ledger) -> None:
    if isinstance(ledger, SqliteLedger):
        for day in (0, 30):
            ledger.commit([call(day) for _ in range(12_000)], {})
        assert tidy(ledger, SHORT, at(30.1)) >= 3
        assert len(rows_left(ledger)) == 12_000


def test_everything_is_kept_where_that_is_wanted(ledger: Ledger) -> None:
    ledger.commit([call(day) for day in (0, 400)], {})
    tidy(ledger, Keep(calls=0.0, hours=0.0, days=0.0), at(5000))
    assert figures(ledger, "hour") == {("2026-01-01T00:00Z",): (1, 15), ("2027-02-05T00:00Z",): (1, 15)}


def test_an_empty_ledger_has_nothing_to_tidy(ledger: Ledger) -> None:
    assert tidy(ledger, SHORT, at(1)) <= 3
    assert figures(ledger) == {}


@pytest.mark.parametrize("unit", ["input", "output", "tokens", "micros"])
def test_spent_is_told_by_side(ledger: Ledger, unit: str) -> None:
    ledger.commit([call(cached_input=4, reasoning=2)], {})
    (row,) = ledger.spent(LimitRule("r", ("key",), "tokens", 1, seconds=60.0), START)
    assert getattr(row, unit) == {"input": 14, "output": 7, "tokens": 21, "micros": 3}[unit]


def test_what_nobody_knows_is_spent_on_both_sides(ledger: Ledger) -> None:
    ledger.commit([call(usage_source="unknown", input=0, output=0, hold_tokens=99, hold_micros=7)], {})
    (row,) = ledger.spent(LimitRule("r", ("key",), "tokens", 1, calendar="day"), START)
    assert (row.tokens, row.input, row.output, row.micros) == (99, 99, 99, 7)


def test_spent_by_tag_is_charged_to_each_tag(ledger: Ledger) -> None:
    ledger.commit([call(tags=["a", "b"]), call(tags=["b"]), call()], {})
    rule = LimitRule("r", ("tenant", "tag"), "tokens", 1, calendar="month")
    for now in (0.5, 1.5, 2.5):
        assert sums(ledger.spent(rule, START)) == {"acme/a": 15, "acme/b": 30}
        ledger.tidy_calls(Keep(), at(now))


def test_a_calendar_that_begins_amid_an_hour_has_what_came_after(ledger: Ledger) -> None:
    """Midnight in India is 18:30 in UTC."""
    midnight = START + 18 * HOUR_MS + HOUR_MS // 2
    calls = [call(ts=midnight + offset) for offset in (-1, 0, HOUR_MS, 30 * HOUR_MS)]
    ledger.commit(calls, {})
    rule = LimitRule("r", ("key",), "tokens", 1, calendar="day", zone="Asia/Kolkata")
    for now in (0.9, 3.5):
        rows = list(ledger.spent(rule, midnight))
        assert sums(rows) == {"k": 45} and all(row.ts_ms >= midnight for row in rows)
        ledger.tidy_calls(Keep(), at(now))


def sums(rows: Any) -> dict[str, int]:
    found: dict[str, int] = {}
    for row in rows:
        found[row.value] = found.get(row.value, 0) + row.tokens
    return found


def test_a_long_window_is_never_charged_too_early(ledger: Ledger) -> None:
    ledger.commit([call(day / 3) for day in range(200)], {})
    tidy(ledger, Keep(), at(70))
    for days in (7.0, 30.0, 60.0):
        rows = list(ledger.spent(LimitRule("r", ("key",), "tokens", 1, seconds=days * DAY), START))
        assert sum(row.requests for row in rows) == 200
        for row in rows:  # what is dated until then had begun by then
            counted = sum(other.requests for other in rows if other.ts_ms <= row.ts_ms)
            assert counted <= sum(START + int(n / 3 * DAY * 1000) <= row.ts_ms for n in range(200))


_call = st.builds(
    call,
    st.floats(0, 40),
    key=st.sampled_from(["k1", "k2"]),
    model=st.sampled_from(["m1", "m2"]),
    outcome=st.sampled_from(["ok", "ok", "refused", "abandoned"]),
    usage_source=st.sampled_from(["provider", "unknown"]),
    input=st.integers(0, 50),
    hold_tokens=st.integers(0, 50),
    tags=st.lists(st.sampled_from("abc"), max_size=3),
)
_steps = st.lists(st.one_of(st.lists(_call, max_size=20), st.floats(0, 50)), max_size=12)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=_steps, since=st.integers(0, 960), hours=st.integers(1, 960))
def test_sums_are_those_of_the_calls_however_they_were_summed_up(
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    steps: Any,
    since: int,
    hours: int,
) -> None:
    monkeypatch.setattr(rollups, "STEP", 7)
    monkeypatch.setattr(rollups, "_COMING", 11)
    ledger = SqliteLedger(tmp_path_factory.mktemp("sums") / "ledger.db")
    ledger.open()
    calls: list[dict[str, Any]] = []
    for step in steps:
        if isinstance(step, float):
            ledger.tidy_calls(Keep(), at(step))
        else:
            ledger.commit(step, {})
            calls += step
    _compare(ledger, calls, since, hours)
    ledger.close()
    ledger.open()
    tidy(ledger, Keep(), at(60))
    _compare(ledger, calls, since, hours)
    ledger.close()


def _compare(ledger: SqliteLedger, calls: list[dict[str, Any]], since: int, hours: int) -> None:
    begin, end = START + since * HOUR_MS, START + (since + hours) * HOUR_MS
    span = [datetime.fromtimestamp(ms / 1000, UTC) for ms in (begin, end)]
    inside = [each for each in calls if begin <= each["ts"] < end]
    assert sum(row["calls"] for row in ledger.usage(("key", "model"), *span)) == len(inside)
    for row in ledger.usage(("tenant", "hour"), *span):
        mine = [
            c for c in inside if datetime.fromtimestamp(c["ts"] / 1000, UTC).strftime(HOUR) == row["hour"]
        ]
        assert (row["calls"], row["tokens"]) == (len(mine), sum(c["input"] + c["output"] for c in mine))
    assert sum(row["calls"] for row in ledger.usage(("hour",), *span)) == len(inside)
    for row in ledger.usage(("tag", "day"), *span):
        mine = [
            each
            for each in inside
            if (row["tag"] in each["tags"] or not (row["tag"] or each["tags"]))
            and datetime.fromtimestamp(each["ts"] / 1000, UTC).date().isoformat() == row["day"]
        ]
        assert (row["calls"], row["tokens"]) == (len(mine), sum(c["input"] + c["output"] for c in mine))
    charged = sums(ledger.spent(LimitRule("r", ("key",), "tokens", 1, calendar="month"), begin))
    for key in ("k1", "k2"):
        mine = [c for c in calls if c["ts"] >= begin and c["key"] == key and c["outcome"] != "refused"]
        expected = sum(
            c["hold_tokens"] if c["usage_source"] == "unknown" else c["input"] + c["output"] for c in mine
        )
        assert charged.get(key, 0) == expected
