"""`penstock audit`: what it shows, and what it says of a record that somebody touched."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gateway.core.audit import digest_of, members, record_of, sealed
from gateway.core.records import Actor, Deed
from gateway.stores.sqlite import SqliteLedger
from gateway.supervisor.audit import HEAD, note_heads, noted_heads
from tests.test_cli import Run, run

__all__ = ["run"]

LEDGER = Path("data/ledger.sqlite")


def opened() -> SqliteLedger:
    ledger = SqliteLedger(LEDGER)
    ledger.chain = "r1"
    ledger.open()
    return ledger


@pytest.fixture
def audited(run: Run) -> Run:
    """Six records in chain r1 and two in r2; the heads are noted."""
    ledger = opened()
    actor = Actor("token", "admin", "alice", ("admin",), "10.0.0.9")
    ledger.note([Deed(actor, "tenant.update", f"tenant/t{n}", ts_ms=1_767_268_800_000 + n) for n in range(5)])
    ledger.chain = "r2"
    ledger.note([Deed(actor, "key.create", "key/key_1", after={"digest": "ab" * 32})])
    note_heads(Path("data") / HEAD, ledger.chains())
    ledger.close()
    return run


def touched(*statements: str) -> None:
    """As somebody does who has the file: he drops the triggers first."""
    db = sqlite3.connect(LEDGER)
    for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
        db.execute(f"DROP TRIGGER {name}")
    for statement in statements:
        db.execute(statement)
    db.commit()
    db.close()


def test_a_whole_audit_is_said_to_be_whole_with_what_to_expect_later(audited: Run) -> None:
    said = audited("audit", "verify")
    assert (said.status, said.err) == (0, "")
    assert "chain r1: 6 records, 1 to 6, whole" in said.out
    expected = [line.strip() for line in said.out.splitlines() if line.startswith("  ")]
    again = audited("audit", "verify", *[word for each in expected for word in ("--expect", each)], "--json")
    assert again.status == 0
    assert again.json["whole"] is True and again.json["chains"]["r2"]["records"] == 2


TOUCHES = {
    "altered": ("UPDATE audit SET target = 'x' WHERE chain = 'r1' AND n = 3", "record 3 was altered"),
    "who": ("UPDATE audit SET actor = '{}' WHERE chain = 'r1' AND n = 6", "record 6 was altered"),
    "removed": ("DELETE FROM audit WHERE chain = 'r1' AND n = 4", "record 4 is missing: removed"),
    "cut": ("DELETE FROM audit WHERE chain = 'r1' AND n > 3", "ends with record 3, record 6 was noted"),
    "a whole chain": ("DELETE FROM audit WHERE chain = 'r1'", "has no records, record 6 was noted"),
    "no JSON": ("UPDATE audit SET detail = 'x' WHERE chain = 'r1' AND n = 1", "record 1 was altered"),
    "no object": ("UPDATE audit SET actor = '5' WHERE chain = 'r1' AND n = 3", "record 3 was altered"),
    "read otherwise by others": (
        """UPDATE audit SET actor = '{"id":"eve",' || substr(actor, 2) WHERE chain = 'r1' AND n = 3""",
        "record 3 was altered",
    ),
    "too deep": (
        "UPDATE audit SET after = replace(hex(zeroblob(600)), '00', '[') WHERE chain = 'r1' AND n = 3",
        "record 3 was altered",
    ),
    "no text": ("UPDATE audit SET action = x'ff' WHERE chain = 'r1' AND n = 3", "record 3 was altered"),
    "no number": ("UPDATE audit SET n = 'x' WHERE chain = 'r1' AND n = 3", "record 3 is missing: removed"),
    "a checkpoint of nothing": (
        "UPDATE audit SET action = 'audit.checkpoint', detail = '[]' WHERE chain = 'r1' AND n = 3",
        "record 3 was altered",
    ),
    "a time beyond all": (
        "UPDATE audit SET ts = 1 << 61 WHERE chain = 'r1' AND n = 3",
        "record 3 was altered",
    ),
    "swapped": (
        "UPDATE audit SET n = CASE n WHEN 3 THEN -4 ELSE -3 END WHERE chain = 'r1' AND n IN (3, 4)",
        "chain r1: record ",
    ),
}


@pytest.mark.parametrize("how", TOUCHES)
def test_whoever_touches_the_ledger_is_found_out(audited: Run, how: str) -> None:
    statement, expected = TOUCHES[how]
    touched(statement, "UPDATE audit SET n = -n WHERE n < 0")
    said = audited("audit", "verify")
    assert said.status == 1 and expected in said.out
    assert "chain r2: 2 records, 1 to 2, whole" in said.out
    assert audited("audit", "verify", "--chain", "r2").status == 0
    assert audited("audit", "list").status == audited("audit", "export").status == 0


def test_a_missing_note_of_the_ends_is_told(audited: Run) -> None:
    (Path("data") / HEAD).unlink()
    said = audited("audit", "verify")
    assert (
        said.status == 0 and f"{HEAD} is not there: only the ledger itself says where chains end" in said.err
    )


def test_a_tail_that_was_cut_off_in_the_ledger_everywhere_is_missed_by_what_was_noted_outside(
    audited: Run,
) -> None:
    ledger = opened()
    third = next(record for record in ledger.audit(chain="r1") if record.n == 3)
    ledger.close()
    touched(
        "DELETE FROM audit WHERE chain = 'r1' AND n > 3",
        f"UPDATE chains SET n = 3, hash = '{third.hash}' WHERE chain = 'r1'",
    )
    said = audited("audit", "verify")
    assert said.status == 1 and "its end was cut off" in said.out


def test_a_history_that_was_written_anew_is_found_out_by_what_was_noted_elsewhere(audited: Run) -> None:
    """Even where all that lies on this machine was made to fit."""
    (expected,) = [line.strip() for line in audited("audit", "verify").out.splitlines() if "  r1:" in line]
    ledger = opened()
    records = [record for record in ledger.audit() if record.chain == "r1"]
    ledger.close()
    previous = ""
    touched("DELETE FROM audit WHERE chain = 'r1'")
    db = sqlite3.connect(LEDGER)
    for record in records:
        fake = sealed(Deed(Actor("config"), record.action, "x"), "r1", record.n, previous, record.ts_ms)
        previous = fake.hash
        row = (fake.n, fake.ts_ms, '{"kind":"config"}', fake.action, "x", fake.previous, fake.hash)
        db.execute("INSERT INTO audit VALUES ('r1', ?, ?, ?, ?, ?, NULL, NULL, '', NULL, ?, ?)", row)
    db.execute("UPDATE chains SET hash = ? WHERE chain = 'r1'", (previous,))
    db.commit()
    db.close()
    (Path("data") / HEAD).unlink()
    assert audited("audit", "verify").status == 0
    said = audited("audit", "verify", "--expect", expected)
    assert said.status == 1 and "record 6 has another hash than was noted" in said.out


def test_an_export_has_every_record_and_can_be_verified_without_the_ledger(audited: Run) -> None:
    exported = audited("audit", "export")
    lines = exported.out.splitlines()
    assert [(json.loads(line)["chain"], json.loads(line)["n"]) for line in lines] == [
        *[("r1", n) for n in range(1, 7)],
        *[("r2", n) for n in range(1, 3)],
    ]
    assert "ab" * 16 not in exported.out
    shutil.rmtree("data")
    Path("audit.jsonl").write_text(exported.out)
    assert audited("audit", "verify", "audit.jsonl").status == 0
    head = json.loads(lines[5])
    expect = f"r1:6:{head['hash']}"
    assert audited("audit", "verify", "audit.jsonl", "--expect", expect).status == 0
    Path("audit.jsonl").write_text("\n".join(lines[:5]) + "\n")
    said = audited("audit", "verify", "audit.jsonl", "--expect", expect)
    assert said.status == 1 and "its end was cut off" in said.out


@pytest.mark.parametrize(
    "line",
    [
        "no json",
        "[]",
        "{}",
        '{"chain": "r1"}',
        lambda good: {**good, "n": "1"},
        lambda good: {**good, "x": 1},
    ],
)
def test_a_file_that_is_no_export_says_where(
    audited: Run, line: str | Callable[[dict[str, Any]], dict[str, Any]]
) -> None:
    good = sealed(Deed(Actor("config"), "audit.begin", "x"), "r1", 1, "", 1)
    assert record_of(members(good)).hash == digest_of(good)
    text = line if isinstance(line, str) else json.dumps(line(members(good)))
    Path("audit.jsonl").write_text(json.dumps(members(good)) + "\n" + text + "\n")
    said = audited("audit", "verify", "audit.jsonl")
    assert said.status == 1 and "audit.jsonl:2: not a line of penstock audit export" in said.err


@pytest.mark.parametrize("twice", ['"action":"x"', '"detail":{"a":1}', '"hash":"x"'])
def test_a_copy_in_which_something_stands_twice_is_refused(audited: Run, twice: str) -> None:
    exported = audited("audit", "export").out
    Path("audit.jsonl").write_text(exported.replace("{", "{" + twice + ",", 1))
    said = audited("audit", "verify", "audit.jsonl")
    assert said.status == 1 and "audit.jsonl:1: " in said.err and "a member is there twice" in said.err
    lines = [json.dumps(json.loads(line), indent=None) for line in exported.splitlines()]
    Path("audit.jsonl").write_text("\n".join(lines))
    assert audited("audit", "verify", "audit.jsonl").status == 0


@pytest.mark.parametrize("text", ["r1", "r1:6", "r1:0:" + "a" * 64, "r1:6:xyz", "r1:six:" + "a" * 64])
def test_an_expectation_in_another_form_says_what_is_right(audited: Run, text: str) -> None:
    said = audited("audit", "verify", "--expect", text)
    assert said.status == 2 and "is not CHAIN:NUMBER:HASH" in said.err


def test_the_newest_records_are_listed_first(audited: Run) -> None:
    said = audited("audit", "list", "--chain", "r1", "--until", "2026-02-01")
    rows = [line.split() for line in said.out.splitlines()]
    assert rows[0] == ["when", "who", "action", "target", "record"]
    assert [row[-1] for row in rows[1:]] == ["r1:6", "r1:5", "r1:4", "r1:3", "r1:2"]
    assert rows[1][1:4] == ["alice", "tenant.update", "tenant/t4"]
    found = audited(
        "audit", "list", "--json", "--limit", "1", "--since", "2026-01-01", "--until", "2026-01-02"
    )
    assert [record["n"] for record in found.json] == [6]


def test_without_a_ledger_there_is_nothing_to_show(run: Run) -> None:
    assert run("audit", "list").out == "Nothing was changed or refused in this time.\n"
    assert run("audit", "export").out == ""
    said = run("audit", "verify")
    assert (said.status, said.out) == (0, "There is no audit yet.\n")


def test_a_ledger_that_was_taken_away_is_missed(audited: Run) -> None:
    LEDGER.unlink()
    said = audited("audit", "verify")
    assert said.status == 1 and "chain r1: the chain has no records, record 6 was noted" in said.out


def test_a_head_file_that_is_something_else_is_refused(audited: Run) -> None:
    (Path("data") / HEAD).write_text("nonsense")
    said = audited("audit", "verify")
    assert said.status == 1 and "is not what the gateway wrote" in said.err
    with pytest.raises(ValueError, match="is not what the gateway wrote"):
        noted_heads(Path("data") / HEAD)


def test_keys_made_and_revoked_are_in_the_audit_without_their_secret(run: Run) -> None:
    made = run("keys", "add", "ci", "--json").json
    run("keys", "revoke", "ci")
    records = run("audit", "list", "--json").json
    assert {"key.create", "key.revoke"} <= {record["action"] for record in records}
    revoked = next(record for record in records if record["action"] == "key.revoke")
    assert (revoked["before"]["revoked"], revoked["after"]["revoked"]) == (False, True)
    assert made["key"] not in json.dumps(records)
    assert run("audit", "verify").status == 0
