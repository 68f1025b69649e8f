"""The ledger's tables, and how older ones become these: forward only, by `PRAGMA user_version`."""

from __future__ import annotations

import sqlite3

from gateway.core.errors import LedgerError
from gateway.stores.base import captures
from gateway.stores.base.columns import coarse_tables
from gateway.stores.sqlite import calls, records

# The tables as the first version had them; what stands now is in `base/columns.py` and `calls.py`.
_FIRST = (
    """CREATE TABLE labels (
        id INTEGER PRIMARY KEY,
        "key" TEXT NOT NULL, key_name TEXT NOT NULL, tenant TEXT NOT NULL, team TEXT NOT NULL,
        user TEXT NOT NULL, method TEXT NOT NULL, endpoint TEXT NOT NULL, model TEXT NOT NULL,
        alias TEXT NOT NULL, backend TEXT NOT NULL, target TEXT NOT NULL, stream INTEGER NOT NULL,
        status INTEGER NOT NULL, outcome TEXT NOT NULL, code TEXT NOT NULL, usage_source TEXT NOT NULL,
        UNIQUE ("key", key_name, tenant, team, user, method, endpoint, model, alias, backend, target,
            stream, status, outcome, code, usage_source)
    )""",
    """CREATE TABLE entries (
        n INTEGER PRIMARY KEY, ts INTEGER NOT NULL, label INTEGER NOT NULL REFERENCES labels (id),
        id TEXT NOT NULL DEFAULT '', client TEXT NOT NULL DEFAULT '', revision TEXT NOT NULL DEFAULT '',
        worker INTEGER NOT NULL DEFAULT 0, tries INTEGER NOT NULL DEFAULT 0,
        input INTEGER NOT NULL DEFAULT 0, output INTEGER NOT NULL DEFAULT 0,
        cost_micros INTEGER NOT NULL DEFAULT 0, hold_tokens INTEGER NOT NULL DEFAULT 0,
        hold_micros INTEGER NOT NULL DEFAULT 0, total_us INTEGER NOT NULL DEFAULT 0,
        queue_us INTEGER NOT NULL DEFAULT 0, connect_us INTEGER NOT NULL DEFAULT 0,
        first_byte_us INTEGER NOT NULL DEFAULT 0, overhead_us INTEGER NOT NULL DEFAULT 0,
        first_token_us INTEGER NOT NULL DEFAULT 0, cached_input INTEGER NOT NULL DEFAULT 0,
        cache_write INTEGER NOT NULL DEFAULT 0, audio_input INTEGER NOT NULL DEFAULT 0,
        reasoning INTEGER NOT NULL DEFAULT 0, audio_output INTEGER NOT NULL DEFAULT 0,
        path TEXT NOT NULL DEFAULT '', session TEXT NOT NULL DEFAULT '', tags TEXT NOT NULL DEFAULT '',
        trace TEXT NOT NULL DEFAULT '', reasons TEXT NOT NULL DEFAULT ''
    )""",
    "CREATE INDEX entries_ts ON entries (ts)",
    """CREATE TABLE hours (
        hour INTEGER NOT NULL, label INTEGER NOT NULL REFERENCES labels (id), calls INTEGER NOT NULL,
        input INTEGER NOT NULL DEFAULT 0, cached_input INTEGER NOT NULL DEFAULT 0,
        cache_write INTEGER NOT NULL DEFAULT 0, audio_input INTEGER NOT NULL DEFAULT 0,
        output INTEGER NOT NULL DEFAULT 0, reasoning INTEGER NOT NULL DEFAULT 0,
        audio_output INTEGER NOT NULL DEFAULT 0, cost_micros INTEGER NOT NULL DEFAULT 0,
        hold_tokens INTEGER NOT NULL DEFAULT 0, hold_micros INTEGER NOT NULL DEFAULT 0,
        total_us INTEGER NOT NULL DEFAULT 0,
        PRIMARY KEY (hour, label)
    ) WITHOUT ROWID""",
    """CREATE VIEW calls AS SELECT
        entries.id, ts, "key", key_name, tenant, team, user, client, method, endpoint, path, model, alias,
        backend, target, stream, status, outcome, code, tries, input, cached_input, cache_write, audio_input,
        output, reasoning, audio_output, usage_source, cost_micros, hold_tokens, hold_micros, queue_us,
        connect_us, first_byte_us, first_token_us, total_us, overhead_us, revision, worker, session, tags,
        trace, reasons
        FROM entries JOIN labels ON labels.id = entries.label""",
    """CREATE TABLE offsets (source TEXT PRIMARY KEY, offset INTEGER NOT NULL) WITHOUT ROWID""",
    """CREATE TABLE keys (
        n INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, name TEXT NOT NULL, digest BLOB NOT NULL UNIQUE,
        tenant TEXT NOT NULL, team TEXT NOT NULL, user TEXT NOT NULL, roles TEXT NOT NULL,
        models TEXT NOT NULL, endpoints TEXT NOT NULL, tags TEXT NOT NULL, expires REAL,
        revoked INTEGER NOT NULL
    )""",
    "CREATE UNIQUE INDEX keys_name ON keys (name) WHERE NOT revoked",
    "PRAGMA user_version = 1",
)

MIGRATIONS = (
    _FIRST,
    (*records.STATEMENTS, "PRAGMA user_version = 2"),
    (*captures.tables("INTEGER"), "PRAGMA user_version = 3"),
    (*calls.STATEMENTS, "PRAGMA user_version = 4"),
    (*coarse_tables("INTEGER", "INTEGER PRIMARY KEY"), "PRAGMA user_version = 5"),
    (*records.NO_REPLACE, "PRAGMA user_version = 6"),
)  # each takes the file one version further, and says so itself


def migrate(db: sqlite3.Connection) -> None:
    """Bring the file to the newest version, all or nothing. Raises `LedgerError` for one from the future."""
    if _version(db) == len(MIGRATIONS):
        return
    db.execute("BEGIN EXCLUSIVE")
    try:
        version = _version(db)  # another process may have been faster
        if version > len(MIGRATIONS):
            raise LedgerError(
                f"it was written by a newer version of penstock (ledger version {version}, this one knows"
                f" {len(MIGRATIONS)}): use that version again, or another data_dir"
            )
        for migration in MIGRATIONS[version:]:
            for statement in migration:
                db.execute(statement)
        db.execute("COMMIT")
    except BaseException:
        db.execute("ROLLBACK")
        raise


def _version(db: sqlite3.Connection) -> int:
    (version,) = db.execute("PRAGMA user_version").fetchone()
    return int(version)
