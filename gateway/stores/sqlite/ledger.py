"""The durable record of calls, and of what operators made and changed: one SQLite file."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from gateway.core.errors import LedgerError
from gateway.core.limit import LimitRule, Spent
from gateway.core.sheet import Sheet, tabulated
from gateway.stores.base import SqlCaptures, SqlRecords
from gateway.stores.sqlite import usage
from gateway.stores.sqlite.entries import Entries, plain
from gateway.stores.sqlite.schema import migrate

_BUSY = 5.0  # seconds to wait for another process's transaction

_OFFSET = (
    "INSERT INTO offsets (source, offset) VALUES (?, ?)"
    " ON CONFLICT DO UPDATE SET offset = excluded.offset WHERE excluded.offset >= offset"
)

# What a value raises that SQLite can't take.
_ODD = (
    sqlite3.InterfaceError, sqlite3.ProgrammingError, sqlite3.IntegrityError,
    OverflowError, TypeError, UnicodeError,
)  # fmt: skip


class SqliteLedger(SqlRecords, SqlCaptures):
    """Implements `core.ports.Ledger` and `core.records.Records`; raises `LedgerError`. For one thread.

    WAL with synchronous=NORMAL: a killed process loses nothing that was committed; a power cut may lose
    the newest transactions, whole, and then the read offsets stand before them.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._opened: sqlite3.Connection | None = None
        self._seen = 0

    # ------------------------------------------------------------------ the file

    def open(self) -> None:
        """Create what is missing, migrate forward."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            os.close(os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600))
            db = sqlite3.connect(self._path, timeout=_BUSY, isolation_level=None, check_same_thread=False)
        except (OSError, sqlite3.Error) as error:
            raise LedgerError(f"the ledger {self._path} can't be opened: {_why(error)}") from error
        try:
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = NORMAL")
            db.execute("PRAGMA wal_autocheckpoint = 4000")  # pages: each checkpoint costs two fsyncs
            migrate(db)
        except (sqlite3.Error, LedgerError) as error:
            db.close()
            raise LedgerError(f"the ledger {self._path} can't be used: {_why(error)}") from error
        self._opened = db
        self._entries = Entries(db)
        self._seen = self._data_version()

    def close(self) -> None:
        """Let go. Idempotent."""
        if self._opened is not None:
            self._opened.close()
            self._opened = None

    @property
    def _db(self) -> sqlite3.Connection:
        if self._opened is None:
            raise LedgerError(f"the ledger {self._path} is not open")
        return self._opened

    @contextmanager
    def _translated(self) -> Iterator[sqlite3.Connection]:
        try:
            yield self._db
        except _ODD:
            raise
        except sqlite3.Error as error:
            raise LedgerError(f"the ledger {self._path} failed: {_why(error)}") from error

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._translated() as db:
            db.execute("BEGIN IMMEDIATE")
            try:
                yield db
                db.execute("COMMIT")
            except BaseException:
                self._entries.forget()
                if db.in_transaction:
                    db.execute("ROLLBACK")
                raise

    # ------------------------------------------------------------------ calls

    def book(self, sheets: Sequence[Sheet], offsets: Mapping[str, int]) -> None:
        """Insert calls and move read offsets, in one transaction. An offset that would go back is refused."""
        try:
            self._book(sheets, offsets)
        except _ODD:  # one odd field loses no call
            records = [record for sheet in sheets for record in sheet.records()]
            self._book(tabulated(map(plain, records)), offsets)

    def commit(self, records: Sequence[Mapping[str, Any]], offsets: Mapping[str, int]) -> None:
        """As `book`, for records one by one."""
        try:
            sheets = tabulated(records)
        except _ODD:
            sheets = tabulated(map(plain, records))
        self.book(sheets, offsets)

    def _book(self, sheets: Sequence[Sheet], offsets: Mapping[str, int]) -> None:
        with self._transaction() as db:
            for source, offset in offsets.items():
                if not db.execute(_OFFSET, (source, offset)).rowcount:
                    raise LedgerError(
                        f"the journal {source} was read beyond {offset} already: nothing is booked"
                    )
            self._entries.insert(sheets)
            self._refused(db, sheets)

    def offsets(self) -> dict[str, int]:
        """How far each source has been read."""
        with self._translated() as db:
            return dict(db.execute("SELECT source, offset FROM offsets"))

    def forget(self, source: str) -> None:
        """A source is read to its end and gone."""
        with self._transaction() as db:
            db.execute("DELETE FROM offsets WHERE source = ?", (source,))

    # ------------------------------------------------------------------ sums

    def usage(
        self, by: Sequence[str], since: datetime | None = None, until: datetime | None = None
    ) -> list[dict[str, Any]]:
        """Sums grouped by any of `usage.GROUPS`; `since` included, `until` not; whole hours.

        Besides the groups each row has, as counts of calls: calls, errors, refused, estimated, unknown,
        abandoned; tokens by kind and `tokens` in all; cost_micros; and what abandoned calls had reserved:
        held_tokens, held_micros.
        """
        with self._translated() as db:
            return usage.usage(db, by, since, until)

    def spent(
        self, rule: LimitRule, since_ms: int, value: str | None = None, worker: int | None = None
    ) -> Iterator[Spent]:
        """What was charged to a rule's buckets since then; a call whose usage is unknown counts its hold."""
        with self._translated() as db:
            return usage.spent(db, rule, since_ms, value, worker)

    # ------------------------------------------------------------------ other processes

    def changed(self) -> bool:
        """Whether another process has committed since the last look."""
        seen, self._seen = self._seen, self._data_version()
        return seen != self._seen

    def _data_version(self) -> int:
        with self._translated() as db:
            (version,) = db.execute("PRAGMA data_version").fetchone()
        return int(version)


def _why(error: Exception) -> str:
    if isinstance(error, OSError):
        return f"{error.strerror}; data_dir must be a directory that this user may write"
    text = str(error)
    if "readonly" in text or "unable to open" in text:
        return f"{text}; data_dir and the file in it must be writable for this user"
    if "not a database" in text:
        return f"{text}; move it away, or use another data_dir"
    return text
