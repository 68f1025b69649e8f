"""A file of the first version becomes one of the newest, with all that stood in it."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from gateway.core.errors import LedgerError
from gateway.core.keep import Keep
from gateway.core.limit import LimitRule
from gateway.core.records import Actor, Deed
from gateway.stores.sqlite import SqliteLedger, schema

NOON = 1_767_268_800_000  # 2026-01-01T12:00:00Z in ms


def first_version(path: Path) -> None:
    """Two keys, four calls of two labels (one of them tagged at times), their sums, two offsets."""
    with closing(sqlite3.connect(path)) as db, db:
        for statement in schema.MIGRATIONS[0]:
            db.execute(statement)
        names = (
            '"key", key_name, tenant, team, user, method, endpoint, model, alias, backend, target, stream,'
        )
        names += " status, outcome, code, usage_source"
        values = (
            "?, 'ci', 'acme', '', '', 'POST', 'chat/completions', 'm', 'm', 'b', 'm', 0, 200, 'ok', '', ?"
        )
        label = f"INSERT INTO labels ({names}) VALUES ({values})"
        db.execute(label, ("k1", "provider"))
        db.execute(label, ("k2", "estimated"))
        entry = "INSERT INTO entries (ts, label, id, input, output, cost_micros, tags)"
        entry += " VALUES (?, ?, ?, 10, 5, 3, ?)"
        for number, (label_id, tags) in enumerate([(1, ""), (1, '["a","b"]'), (1, '["b"]'), (2, "")]):
            db.execute(entry, (NOON + number, label_id, f"c{number}", tags))
        hour = NOON // 3_600_000
        for label_id, calls in ((1, 3), (2, 1)):
            summed = "INSERT INTO hours (hour, label, calls, input, output) VALUES (?, ?, ?, ?, ?)"
            db.execute(summed, (hour, label_id, calls, 10 * calls, 5 * calls))
        db.execute("INSERT INTO offsets VALUES ('boot-0', 77), ('boot-1', 88)")
        key = "INSERT INTO keys VALUES (?, ?, ?, ?, '', '', '', '[]', '[]', '[]', '[]', NULL, ?)"
        db.execute(key, (1, "key_1", "ci", b"one", 0))
        db.execute(key, (2, "key_2", "old", b"two", 1))


def test_a_file_of_the_first_version_keeps_everything(tmp_path: Path) -> None:
    first_version(tmp_path / "ledger.db")
    ledger = SqliteLedger(tmp_path / "ledger.db")
    ledger.open()
    for _ in range(3):  # as rows, as sums by hour, as sums by day
        rows = ledger.usage(("key", "tenant", "day"))
        assert [(row["key"], row["tenant"], row["day"], row["calls"], row["tokens"]) for row in rows] == [
            ("k1", "acme", "2026-01-01", 3, 45),
            ("k2", "acme", "2026-01-01", 1, 15),
        ]
        assert {row["tag"]: row["calls"] for row in ledger.usage(("tag",))} == {"": 2, "a": 1, "b": 2}
        ledger.tidy_calls(Keep(0.0, 0.0, 0.0), NOON / 1000 + 100_000)
    assert ledger.offsets() == {"boot-0": 77, "boot-1": 88}
    keys = ledger.keys()
    assert [(key.name, key.revoked) for key in keys] == [("ci", False), ("old", True)]
    spent = ledger.spent(LimitRule("r", ("key",), "tokens", 1, calendar="day"), NOON)
    assert {row.value: row.tokens for row in spent} == {"k1": 45, "k2": 15}
    ledger.commit([{"ts": NOON, "key": "k1", "tags": ["a"], "input": 1}], {"boot-0": 78})
    assert {row["tag"]: row["calls"] for row in ledger.usage(("tag",))}["a"] == 2
    ledger.close()
    with closing(sqlite3.connect(tmp_path / "ledger.db")) as db:
        assert db.execute("SELECT id, tags, replica FROM calls WHERE id <> '' ORDER BY id").fetchall() == [
            ("c0", "", "local"), ("c1", '["a","b"]', "local"), ("c2", '["b"]', "local"), ("c3", "", "local"),
        ]  # fmt: skip
        tables = {name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        assert not [name for name in tables if name.endswith("_before")]
        assert db.execute("PRAGMA foreign_key_check").fetchall() == []


def test_a_migration_that_fails_leaves_the_first_version_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first_version(tmp_path / "ledger.db")
    with closing(sqlite3.connect(tmp_path / "ledger.db")) as db:
        before = list(db.iterdump())
    broken = (*schema.MIGRATIONS[:-1], (*schema.MIGRATIONS[-1], "SELECT * FROM nowhere"))
    monkeypatch.setattr(schema, "MIGRATIONS", broken)
    with pytest.raises(LedgerError, match="nowhere"):
        SqliteLedger(tmp_path / "ledger.db").open()
    with closing(sqlite3.connect(tmp_path / "ledger.db")) as db:
        assert list(db.iterdump()) == before


def test_the_name_of_a_replica_stands_beside_its_calls(tmp_path: Path) -> None:
    for name in ("r1", "r2"):
        ledger = SqliteLedger(tmp_path / "ledger.db", name)
        ledger.open()
        ledger.commit([{"ts": NOON}], {})
        ledger.close()
    with closing(sqlite3.connect(tmp_path / "ledger.db")) as db:
        assert {row[0] for row in db.execute("SELECT replica FROM calls")} == {"r2"}


def test_a_file_of_the_version_before_gets_the_trigger_that_refuses_to_replace_a_record(
    tmp_path: Path,
) -> None:
    with closing(sqlite3.connect(tmp_path / "ledger.db")) as db, db:
        for migration in schema.MIGRATIONS[:5]:
            for statement in migration:
                db.execute(statement)
    ledger = SqliteLedger(tmp_path / "ledger.db")
    ledger.open()
    ledger.note([Deed(Actor("system", "", ""), "key.create", "key/key_1")])
    ledger.close()
    with closing(sqlite3.connect(tmp_path / "ledger.db")) as db:
        before = db.execute("SELECT * FROM audit").fetchall()
        with pytest.raises(sqlite3.IntegrityError, match="audit records are never changed"):
            db.execute("INSERT OR REPLACE INTO audit SELECT * FROM audit")
        assert db.execute("SELECT * FROM audit").fetchall() == before
