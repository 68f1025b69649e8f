"""Sums by hour that are kept along with the rows: the same as the rows give, or none at all."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.core.errors import LedgerError
from gateway.core.keep import Keep
from gateway.stores.base import rollups
from gateway.stores.sqlite import SqliteLedger, hourly

HOUR = 3_600_000
TABLES = ("hours", "tag_hours", "days", "tag_days", "coarse_hours", "replicas")

calls = st.fixed_dictionaries(
    {"ts": st.sampled_from([0, 5, HOUR - 1, HOUR, 30 * HOUR, -7]), "id": st.text(max_size=3)},
    optional={
        "key": st.sampled_from(["a", "b"]),
        "status": st.sampled_from([200, 500]),
        "input": st.integers(0, 9) | st.just(1 << 60),
        "cost_micros": st.integers(0, 9),
        "total_us": st.booleans() | st.integers(0, 9),
        "client": st.sampled_from(["local", "10.0.0.1"]),
        "tags": st.lists(st.sampled_from(["x", "y"]), max_size=2),
    },
)


def opened(path: Path) -> SqliteLedger:
    ledger = SqliteLedger(path)
    ledger.open()
    return ledger


def sums(path: Path) -> dict[str, list[Any]]:
    db = sqlite3.connect(path)
    found = {table: sorted(row[1:] for row in db.execute(f"SELECT * FROM {table}")) for table in TABLES}
    found["calls"] = db.execute("SELECT * FROM calls ORDER BY id, ts").fetchall()
    db.close()
    return found


def tidied(ledger: SqliteLedger) -> None:
    while ledger.tidy_calls(Keep(0, 0, 0), 40 * HOUR / 1000):
        pass


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(st.lists(st.tuples(st.lists(calls, max_size=4), st.sampled_from([1, 3, 40])), max_size=5))
def test_what_is_kept_along_is_what_the_rows_say(tmp_path: Path, batches: list[Any]) -> None:
    for path in (tmp_path / "kept.db", tmp_path / "read.db"):
        for file in tmp_path.glob(f"{path.name}*"):
            file.unlink()
        ledger = opened(path)
        for n, (batch, times) in enumerate(batches):
            ledger.commit(batch * times, {"a": n})
            if path.name == "read.db":
                ledger.close()
                ledger = opened(path)
            elif n == 2:
                tidied(ledger)
        tidied(ledger)
        ledger.close()
    kept, read = sums(tmp_path / "kept.db"), sums(tmp_path / "read.db")
    assert kept["calls"] == read["calls"]
    total = sqlite3.connect(tmp_path / "kept.db")
    total.execute("ATTACH ? AS r", (str(tmp_path / "read.db"),))
    by = "hour, label, sum(calls), sum(input), sum(cost_micros), sum(total_us)"
    for table, groups in (("hours", "hour, label"), ("tag_hours", "hour, label, tag")):
        rows = [
            sorted(total.execute(f"SELECT {by}, {groups} FROM {where}{table} GROUP BY {groups}").fetchall())
            for where in ("", "r.")
        ]
        assert rows[0] == rows[1], table
    total.close()


def test_rows_are_read_no_second_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rollups, "STEP", 10)
    monkeypatch.setattr(rollups, "roll", lambda *_: pytest.fail("rows were read"))
    ledger = opened(tmp_path / "ledger.db")
    for n in range(5):
        ledger.commit([{"key": "k", "ts": n, "input": 1}] * 7, {"a": n})
    ledger.close()
    ledger = opened(tmp_path / "ledger.db")
    assert [(row["calls"], row["input"]) for row in ledger.usage(())] == [(35, 35)]
    ledger.close()
    assert [row[3] for row in sums(tmp_path / "ledger.db")["hours"]] == [14, 14]


def test_a_batch_that_was_rolled_back_is_in_no_sum(tmp_path: Path) -> None:
    ledger = opened(tmp_path / "ledger.db")
    ledger.commit([{"key": "k", "ts": 1}] * 3, {"a": 5})
    with pytest.raises(LedgerError):
        ledger.commit([{"key": "k", "ts": 2}] * 4, {"a": 1})
    ledger.commit([{"key": "k", "ts": 3}], {"a": 6})
    tidied(ledger)
    ledger.commit([{"key": "k", "ts": 4}], {"a": 7})
    tidied(ledger)
    ledger.close()
    assert [row[3] for row in sums(tmp_path / "ledger.db")["hours"]] == [1, 4]


def test_what_another_process_has_written_is_in_the_sums_once(tmp_path: Path) -> None:
    one, other = opened(tmp_path / "ledger.db"), opened(tmp_path / "ledger.db")
    one.commit([{"ts": 1}] * 10, {"a": 1})
    other.commit([{"ts": 2, "key": "k"}] * 10, {"b": 1})
    tidied(other)
    other.commit([{"ts": 3, "key": "k"}] * 10, {"b": 2})
    tidied(one)
    assert one.usage(("key",))[0]["calls"] == 10
    assert one.usage(("key",))[1]["calls"] == 20
    one.close()
    other.close()


@pytest.mark.parametrize("count", [1, *range(6, 10), 31, 32, 33, 3 * 32 + 2 * 8 + 1])
def test_every_call_of_a_batch_is_its_own_row(tmp_path: Path, count: int) -> None:
    ledger = opened(tmp_path / "ledger.db")
    ledger.commit([{"id": f"req_{n}", "ts": n, "tries": n % 2, "client": "c"} for n in range(count)], {})
    ledger.commit([{}] * count, {})
    ledger.close()
    db = sqlite3.connect(tmp_path / "ledger.db")
    rows = db.execute("SELECT id, ts, tries, client FROM entries ORDER BY n").fetchall()
    assert rows == [(f"req_{n}", n, n % 2, "c") for n in range(count)] + [("", 0, 0, "")] * count
    db.close()


def test_where_nearly_each_call_is_a_sum_of_its_own_rows_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hourly, "_TRIED", 10)
    ledger = opened(tmp_path / "ledger.db")
    for n in range(20):
        ledger.commit([{"key": f"{n}-{m}", "ts": 5, "input": 1} for m in range(4)], {"a": n})
    assert ledger._entries.hourly._after < 0
    tidied(ledger)
    assert ledger._entries.hourly._after == 80
    assert sum(row["input"] for row in ledger.usage(("key",))) == 80
    ledger.close()
    assert len(sums(tmp_path / "ledger.db")["hours"]) == 80
