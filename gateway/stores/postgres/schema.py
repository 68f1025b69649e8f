"""The tables in PostgreSQL, and how older ones become these: forward only, under a lock."""

from __future__ import annotations

from gateway.core.errors import LedgerError
from gateway.stores.base import captures
from gateway.stores.postgres import calls, records
from gateway.stores.postgres.connection import SCHEMA, Database, Session

# Supervisors that start at once migrate one after the other: the others find it done.
_LOCK = 0x70656E73746F636B  # "penstock"

# Each takes the database one version further.
MIGRATIONS: tuple[tuple[str, ...], ...] = (
    records.STATEMENTS,
    captures.tables("BIGINT"),
    calls.STATEMENTS,
)


def migrate(database: Database) -> None:
    """Bring the tables to the newest version, all or nothing; one from the future is a `LedgerError`."""
    with database.translated() as session:
        if _version(session) == len(MIGRATIONS):
            return
    with database.transaction() as session:
        # Waits for another's migration, however long that takes.
        session.execute("SET LOCAL lock_timeout = 0")
        session.execute("SET LOCAL statement_timeout = 0")
        session.execute("SELECT pg_advisory_xact_lock(?)", (_LOCK,))
        version = _version(session)
        if version > len(MIGRATIONS):
            raise LedgerError(
                f"the ledger {database.place} was written by a newer version of penstock (ledger version"
                f" {version}, this one knows {len(MIGRATIONS)}): use that version again, or another database"
            )
        if not _there(session):
            session.execute(f"CREATE SCHEMA {SCHEMA}")
        if version == 0:
            session.execute(f"CREATE TABLE {SCHEMA}.version (version INTEGER NOT NULL)")
            session.execute(f"INSERT INTO {SCHEMA}.version VALUES (0)")
        for migration in MIGRATIONS[version:]:
            for statement in migration:
                session.execute(statement)
        session.execute(f"UPDATE {SCHEMA}.version SET version = ?", (len(MIGRATIONS),))


def _there(session: Session) -> bool:
    found = session.execute("SELECT 1 FROM pg_namespace WHERE nspname = ?", (SCHEMA,)).fetchone()
    return found is not None


def _version(session: Session) -> int:
    """0 where there is nothing yet. The catalog is asked, as names that were missed once are remembered."""
    table = "SELECT 1 FROM pg_tables WHERE schemaname = ? AND tablename = 'version'"
    if session.execute(table, (SCHEMA,)).fetchone() is None:
        return 0
    return int(session.execute(f"SELECT version FROM {SCHEMA}.version").fetchone()[0])
