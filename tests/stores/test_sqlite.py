"""The SQLite file itself: its version, its errors, its permissions, its view."""

from __future__ import annotations

import sqlite3
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.core.errors import LedgerError
from gateway.core.principal import KeyEntry
from gateway.core.record import FIELDS
from gateway.stores.sqlite import SqliteLedger, schema


def opened(path: Path) -> SqliteLedger:
    ledger = SqliteLedger(path)
    ledger.open()
    return ledger


def test_people_read_a_view_with_every_field_of_the_record(tmp_path: Path) -> None:
    ledger = opened(tmp_path / "ledger.db")
    ledger.commit([{"id": "req_1", "ts": 5, "tags": ["a", "b"], "reasons": {"why": "é"}, "stream": True}], {})
    ledger.close()
    db = sqlite3.connect(tmp_path / "ledger.db")
    db.row_factory = sqlite3.Row
    (row,) = db.execute("SELECT * FROM calls").fetchall()
    assert tuple(row.keys()) == (*[name for name in FIELDS if name != "sealed"], "replica")
    assert (row["id"], row["ts"], row["stream"], row["tags"], row["reasons"], row["model"]) == (
        "req_1", 5, 1, '["a","b"]', '{"why":"é"}', "",
    )  # fmt: skip
    db.close()


def test_only_the_owner_may_read_the_file(tmp_path: Path) -> None:
    ledger = opened(tmp_path / "deep" / "ledger.db")
    ledger.commit([{}], {})
    for file in (tmp_path / "deep").iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, file
    ledger.close()


def test_no_key_is_in_the_file_only_its_digest(tmp_path: Path) -> None:
    ledger = opened(tmp_path / "ledger.db")
    ledger.add_key(KeyEntry("key_1", "ci", b"D" * 32, origin="ledger"))
    ledger.close()
    assert (b"D" * 32).hex().encode() in (tmp_path / "ledger.db").read_bytes()


def test_a_file_of_a_newer_version_is_left_alone(tmp_path: Path) -> None:
    opened(tmp_path / "ledger.db").close()
    db = sqlite3.connect(tmp_path / "ledger.db")
    db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(LedgerError, match=r"newer version of penstock \(ledger version 99, this one knows"):
        opened(tmp_path / "ledger.db")


def test_a_file_that_is_no_database_says_so(tmp_path: Path) -> None:
    (tmp_path / "ledger.db").write_text("not a database, but long enough to look at" * 100)
    with pytest.raises(LedgerError, match="not a database; move it away"):
        opened(tmp_path / "ledger.db")


def test_a_data_dir_that_is_a_file_says_what_would_be_right(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("")
    with pytest.raises(LedgerError, match="data_dir must be a directory"):
        opened(tmp_path / "data" / "ledger.db")


def test_a_data_dir_that_may_not_be_written_says_what_would_be_right() -> None:
    code = (
        "import os, sys\nfrom pathlib import Path\n"
        "from gateway.core.errors import LedgerError\n"
        "from gateway.stores.sqlite import SqliteLedger\n"
        "if os.getuid() == 0: os.setgid(65534); os.setuid(65534)\n"  # root may write anywhere
        "try: SqliteLedger(Path(sys.argv[1])).open()\n"
        "except LedgerError as error: print(error)\n"
    )
    with tempfile.TemporaryDirectory() as directory:  # not tmp_path: its parents are closed to others
        Path(directory).chmod(0o555)
        ran = subprocess.run(
            [sys.executable, "-c", code, f"{directory}/ledger.db"],
            capture_output=True, text=True, cwd=Path(__file__).parents[2], check=False,
        )  # fmt: skip
        Path(directory).chmod(0o755)
    assert "data_dir must be a directory that this user may write" in ran.stdout, ran.stderr


def test_a_failed_migration_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened(tmp_path / "ledger.db").close()
    second = ("ALTER TABLE entries ADD COLUMN extra TEXT", "SELECT * FROM nowhere")
    monkeypatch.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS, second))
    with pytest.raises(LedgerError, match="nowhere"):
        opened(tmp_path / "ledger.db")
    monkeypatch.undo()
    ledger = opened(tmp_path / "ledger.db")
    assert ledger.keys() == []
    ledger.close()


def test_an_older_file_is_migrated_and_keeps_its_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = opened(tmp_path / "ledger.db")
    ledger.commit([{"key": "k"}], {"a": 1})
    ledger.close()
    version = len(schema.MIGRATIONS) + 1
    newer = ("ALTER TABLE entries ADD COLUMN extra TEXT", f"PRAGMA user_version = {version}")
    monkeypatch.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS, newer))
    again = opened(tmp_path / "ledger.db")
    assert again.usage(("key",))[0]["calls"] == 1
    again.close()


def test_two_processes_may_create_it_at_once(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom pathlib import Path\nfrom gateway.stores.sqlite import SqliteLedger\n"
        "ledger = SqliteLedger(Path(sys.argv[1])); ledger.open(); ledger.commit([{}], {sys.argv[2]: 1})\n"
    )
    running = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path / "ledger.db"), str(n)], cwd=Path(__file__).parents[2]
        )
        for n in range(4)
    ]
    assert [process.wait() for process in running] == [0, 0, 0, 0]
    ledger = opened(tmp_path / "ledger.db")
    assert ledger.usage(())[0]["calls"] == 4
    ledger.close()


def test_a_file_that_another_makes_write_ahead_meanwhile_is_waited_for(tmp_path: Path) -> None:
    # A writer that will commit is what SQLite does not wait for when it changes the mode.
    other = sqlite3.connect(tmp_path / "ledger.db", isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    other.execute("CREATE TABLE theirs (n INTEGER)")
    later = threading.Timer(0.2, other.execute, ("COMMIT",))
    later.start()
    opened(tmp_path / "ledger.db").close()
    later.join()
    other.close()


def test_a_process_killed_between_commits_leaves_rows_and_offset_in_step(tmp_path: Path) -> None:
    code = (
        "import itertools, sys\nfrom pathlib import Path\nfrom gateway.stores.sqlite import SqliteLedger\n"
        "ledger = SqliteLedger(Path(sys.argv[1])); ledger.open()\n"
        "for n in itertools.count(1):\n"
        "    ledger.commit([{'key': 'k'}] * 10, {'a': 10 * n})\n"
        "    if n == 20: print('going', flush=True)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "ledger.db")],
        cwd=Path(__file__).parents[2], stdout=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None and process.stdout.readline() == b"going\n"
    process.kill()
    process.wait()
    process.stdout.close()
    ledger = opened(tmp_path / "ledger.db")
    assert ledger.offsets()["a"] == ledger.usage(())[0]["calls"] >= 200
    ledger.close()


@pytest.mark.parametrize(
    "use",
    [lambda ledger: ledger.keys(), lambda ledger: ledger.commit([], {}), lambda ledger: ledger.usage(())],
)
def test_a_closed_ledger_says_so(tmp_path: Path, use: Callable[[SqliteLedger], object]) -> None:
    ledger = opened(tmp_path / "ledger.db")
    ledger.close()
    ledger.close()
    with pytest.raises(LedgerError, match="not open"):
        use(ledger)


def test_labels_of_a_rolled_back_batch_are_not_remembered(tmp_path: Path) -> None:
    ledger = opened(tmp_path / "ledger.db")
    ledger.commit([], {"a": 5})
    with pytest.raises(LedgerError):
        ledger.commit([{"key": "new"}], {"a": 1})
    ledger.commit([{"key": "new"}], {"a": 6})
    assert [row["key"] for row in ledger.usage(("key",))] == ["new"]
    ledger.close()
