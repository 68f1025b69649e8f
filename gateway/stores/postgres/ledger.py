"""The durable record of calls, and of what operators made and changed, in one PostgreSQL database."""

from __future__ import annotations

from contextlib import AbstractContextManager

from gateway.stores.base import SqlCaptures, SqlRecords
from gateway.stores.base.tables import Tables
from gateway.stores.postgres.connection import Database
from gateway.stores.postgres.schema import migrate


class PostgresLedger(SqlRecords, SqlCaptures):
    """Implements `core.records.Records`; raises `LedgerError`. For one thread.

    A lost connection is made anew at the next use; what was under way then is rolled back.
    """

    common = True

    def __init__(self, url: str, replica: str = "") -> None:
        self._database = Database(url)
        self._replica = replica

    def open(self) -> None:
        """Connect, create what is missing, migrate forward."""
        self._database.open()
        migrate(self._database)

    def close(self) -> None:
        """Let go. Idempotent."""
        self._database.close()

    def _translated(self) -> AbstractContextManager[Tables]:
        return self._database.translated()

    def _transaction(self) -> AbstractContextManager[Tables]:
        return self._database.transaction()
