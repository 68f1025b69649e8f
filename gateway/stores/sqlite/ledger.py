"""The durable record of calls, and of what operators made and changed: one SQLite file."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from gateway.core.errors import LedgerError
from gateway.core.sheet import Sheet
from gateway.stores.base import SqlCalls, SqlCaptures, SqlRecords, rollups
from gateway.stores.base.calls import ODD
from gateway.stores.base.tables import Tables
from gateway.stores.sqlite.entries import Entries
from gateway.stores.sqlite.schema import migrate

_BUSY = 5.0  # seconds to wait for another process's transaction

_DROPPED = 5000  # calls removed at once: some 20 ms
# The newest row stays: numbers go on from it.
_DROP = (
    "DELETE FROM entries WHERE n IN (SELECT n FROM entries"
    " WHERE ts < ? AND n <= (SELECT rolled FROM replicas)"
    f" AND n < (SELECT max(n) FROM entries) LIMIT {_DROPPED})"
)

# What a value raises that SQLite can't take.
_ODD = (*ODD, sqlite3.InterfaceError, sqlite3.ProgrammingError, sqlite3.IntegrityError)


class SqliteLedger(SqlRecords, SqlCaptures, SqlCalls):
    """Implements `core.ports.Ledger` and `core.records.Records`; raises `LedgerError`. For one thread.

    WAL with synchronous=NORMAL: a killed process loses nothing that was committed; a power cut may lose
    the newest transactions, whole, and then the read offsets stand before them.
    """

    _replica = 1  # the file is one replica's
    _odd = _ODD

    def __init__(self, path: Path, replica: str = "") -> None:
        self._path = path
        self._name = replica
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
            _write_ahead(db)
            db.execute("PRAGMA synchronous = NORMAL")
            db.execute("PRAGMA wal_autocheckpoint = 4000")  # pages: each checkpoint costs two fsyncs
            migrate(db)
        except (sqlite3.Error, LedgerError) as error:
            db.close()
            raise LedgerError(f"the ledger {self._path} can't be used: {_why(error)}") from error
        self._opened = db
        self._entries = Entries(db, self._replica)
        self._behind = self._unsummed()
        self._seen = self._data_version()

    def _unsummed(self) -> int:
        """How many rows are in no sum yet. Notes the replica's name, should it be another than before."""
        select = "SELECT id, (SELECT coalesce(max(n), 0) FROM entries) - rolled FROM replicas"
        with self._translated() as db:
            name, behind = db.execute(select).fetchone()
            self._entries.hourly.begin(db, self._replica)
        if self._name not in ("", name):
            with self._transaction() as db:
                db.execute("UPDATE replicas SET id = ?", (self._name,))
        return int(behind)

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

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        with self._translated() as db:
            db.execute("BEGIN")
            try:
                yield db
            finally:
                if db.in_transaction:
                    db.execute("ROLLBACK")

    def _booking(self) -> AbstractContextManager[sqlite3.Connection]:
        return self._transaction()

    # ------------------------------------------------------------------ calls

    def _insert(self, db: Tables, sheets: Sequence[Sheet]) -> int:
        return self._entries.insert(sheets)

    def _roll(self, db: Tables) -> int:
        hourly = self._entries.hourly
        rolled = hourly.roll(db, self._replica)
        if not rolled:
            rolled = rollups.roll(db, self._replica)
            hourly.begin(db, self._replica)
        return rolled

    def _drop_calls(self, db: Tables, before_ms: int) -> bool:
        self._entries.forget_labels()  # labels that only these had go with them
        return db.execute(_DROP, (before_ms,)).rowcount >= _DROPPED

    # ------------------------------------------------------------------ other processes

    def changed(self) -> bool:
        """Whether another process has committed since the last look."""
        seen, self._seen = self._seen, self._data_version()
        return seen != self._seen

    def _data_version(self) -> int:
        with self._translated() as db:
            (version,) = db.execute("PRAGMA data_version").fetchone()
        return int(version)


def _write_ahead(db: sqlite3.Connection) -> None:
    """Switch the file to WAL. Of processes that do so at once SQLite lets one go first and tells the others
    that it is locked, without the wait that it grants each transaction: two readers that both want to write
    would wait for one another (https://sqlite.org/c3ref/busy_handler.html)."""
    deadline = time.monotonic() + _BUSY
    while True:
        try:
            db.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
        time.sleep(0.02)


def _why(error: Exception) -> str:
    if isinstance(error, OSError):
        return f"{error.strerror}; data_dir must be a directory that this user may write"
    text = str(error)
    if "readonly" in text or "unable to open" in text:
        return f"{text}; data_dir and the file in it must be writable for this user"
    if "not a database" in text:
        return f"{text}; move it away, or use another data_dir"
    return text
