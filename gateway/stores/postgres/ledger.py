"""The durable record of calls, and of what operators made and changed, in one PostgreSQL database."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import cast

from gateway.core.sheet import Sheet
from gateway.stores.base import SqlCalls, SqlCaptures, SqlRecords, rollups
from gateway.stores.base.calls import ODD
from gateway.stores.base.tables import Tables
from gateway.stores.postgres import calls
from gateway.stores.postgres.connection import Database, Session, driver
from gateway.stores.postgres.entries import Entries
from gateway.stores.postgres.schema import migrate

_READER = "reader"  # the name of those who only read and change keys: commands


class PostgresLedger(SqlRecords, SqlCaptures, SqlCalls):
    """Implements `core.ports.Ledger` and `core.records.Records`; raises `LedgerError`. For one thread.

    `replica` is the name of whoever books calls; replicas share a database without waiting for each other.
    A lost connection is made anew at the next use; what was under way then is rolled back, but for a commit
    whose answer was lost: `offsets` says whether it was one.
    """

    common = True

    def __init__(self, url: str, replica: str = "") -> None:
        self._database = Database(url)
        self._name = replica or _READER
        self._entries = Entries()
        self._days: frozenset[int] = frozenset()  # of which there are partitions
        self._stamps: tuple[int, ...] = ()

    def open(self) -> None:
        """Connect, create what is missing, migrate forward."""
        self._database.open()
        try:
            migrate(self._database)
            self._odd = (*ODD, driver().DataError, driver().IntegrityError)
            with self._database.transaction() as db:
                db.execute("LOCK TABLE replicas IN SHARE ROW EXCLUSIVE MODE")
                self._replica = rollups.known(db, self._name)
                self._behind = self._unsummed(db)
            self._stamps = self._read_stamps()
        except BaseException:
            self._database.close()
            raise

    def _unsummed(self, db: Tables) -> int:
        count = (
            "SELECT count(*) FROM (SELECT 1 FROM entries e JOIN replicas r ON r.n = e.replica"
            f" WHERE r.n = ? AND e.n > r.rolled LIMIT {rollups.STEP}) x"
        )
        return int(db.execute(count, (self._replica,)).fetchone()[0])

    def close(self) -> None:
        """Let go. Idempotent."""
        self._database.close()

    def give_up(self) -> None:
        """From another thread: end a wait for a server that would have ended it itself, were it alive."""
        self._database.give_up()

    def _translated(self) -> AbstractContextManager[Tables]:
        return self._database.translated()

    def _transaction(self) -> AbstractContextManager[Tables]:
        return self._database.transaction()

    def _reading(self) -> AbstractContextManager[Tables]:
        return self._database.transaction(reading=True)

    @contextmanager
    def _booking(self) -> Iterator[Tables]:
        """With the replica's row locked: should two have the same name, they book one after the other."""
        self._prepare(int(time.time()) // 86_400)
        try:
            with self._database.transaction(self._odd) as db:
                db.execute("SELECT n FROM replicas WHERE n = ? FOR NO KEY UPDATE", (self._replica,))
                yield db
        except BaseException:
            self._entries.forget()
            raise

    # ------------------------------------------------------------------ calls

    def _prepare(self, today: int) -> None:
        """Partitions for today and the next days, before anything is locked."""
        if today not in self._days or today + 1 not in self._days:
            with self._database.transaction() as db:
                calls.ensure(db, today)
            self._days = frozenset((today, today + 1))

    def _insert(self, db: Tables, sheets: Sequence[Sheet]) -> int:
        day = int(time.time()) // 86_400
        if day not in self._days:  # midnight has passed between: there are partitions ahead
            day = min(day, max(self._days))
        return self._entries.insert(cast(Session, db), sheets, self._replica, day)

    def _drop_calls(self, db: Tables, before_ms: int) -> bool:
        session = cast(Session, db)
        name = calls.oldest(session, before_ms // 86_400_000)
        if not name:
            return False
        behind = calls.unsummed(session, name)
        for replica in behind:  # one that has been away for as long as calls are kept, or is late
            session.execute("SELECT n FROM replicas WHERE n = ? FOR NO KEY UPDATE", (replica,))
            rollups.roll(session, replica)
        if not behind:
            calls.drop(session, name)
        self._entries.forget()
        return True

    def _text(self, text: str) -> str:
        return text.replace("\0", "\ufffd")

    # ------------------------------------------------------------------ other processes

    def changed(self) -> bool:
        """Whether anybody has changed keys, tenants or the like since the last look."""
        seen, self._stamps = self._stamps, self._read_stamps()
        return seen != self._stamps

    def _read_stamps(self) -> tuple[int, ...]:
        with self._translated() as db:
            return tuple([int(row[0]) for row in db.execute("SELECT n FROM stamps ORDER BY name")])
