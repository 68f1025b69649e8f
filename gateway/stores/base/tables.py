"""How the stores in SQL reach their database, and the tables of the records."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Protocol


class Rows(Protocol):
    """What a statement gives: a cursor of sqlite3 or psycopg."""

    @property
    def rowcount(self) -> int:
        """How many rows were written."""

    def fetchone(self) -> Any:
        """One row, or None."""

    def fetchall(self) -> list[Any]:
        """All rows."""

    def __iter__(self) -> Iterator[Any]: ...


class Tables(Protocol):
    """A connection. Statements have `?` for each value, whatever the database itself writes there."""

    def execute(self, statement: str, values: Sequence[Any] = (), /) -> Rows:
        """Run one statement."""


# Texts are JSON in canonical form, times epoch milliseconds. {big} is a 64-bit integer, {blob} bytes.
_TABLES = (
    """CREATE TABLE entities (
        kind TEXT NOT NULL, id TEXT NOT NULL, version {big} NOT NULL, document TEXT NOT NULL,
        changed {big} NOT NULL, deleted INTEGER NOT NULL, stamp {big} NOT NULL, born {big} NOT NULL,
        name TEXT NOT NULL, digest TEXT NOT NULL, revoked INTEGER NOT NULL,
        PRIMARY KEY (kind, id)
    )""",
    "CREATE UNIQUE INDEX entities_stamp ON entities (stamp)",
    "CREATE INDEX entities_name ON entities (kind, name)",
    "CREATE INDEX entities_digest ON entities (kind, digest)",
    "CREATE TABLE stamps (name TEXT PRIMARY KEY, n {big} NOT NULL)",
    """CREATE TABLE audit (
        chain TEXT NOT NULL, n {big} NOT NULL, ts {big} NOT NULL, actor TEXT NOT NULL, action TEXT NOT NULL,
        target TEXT NOT NULL, before TEXT, after TEXT, revision TEXT NOT NULL, detail TEXT,
        previous TEXT NOT NULL, hash TEXT NOT NULL,
        PRIMARY KEY (chain, n)
    )""",
    "CREATE INDEX audit_ts ON audit (ts)",
    # `base` is the newest record that retention may have removed.
    "CREATE TABLE chains (chain TEXT PRIMARY KEY, n {big} NOT NULL, hash TEXT NOT NULL, base {big} NOT NULL)",
    """CREATE TABLE refusals (
        chain TEXT NOT NULL, minute {big} NOT NULL, key_id TEXT NOT NULL, code TEXT NOT NULL,
        rule TEXT NOT NULL, told {big} NOT NULL, more {big} NOT NULL, first {big} NOT NULL,
        last {big} NOT NULL,
        PRIMARY KEY (chain, minute, key_id, code, rule)
    )""",
    """CREATE TABLE answers (
        name TEXT PRIMARY KEY, fingerprint TEXT NOT NULL, status INTEGER NOT NULL, body {blob} NOT NULL,
        until {big} NOT NULL
    )""",
    "CREATE INDEX answers_until ON answers (until)",
    """CREATE TABLE revisions (
        n {big} PRIMARY KEY, id TEXT NOT NULL, ts {big} NOT NULL, actor TEXT NOT NULL, files TEXT NOT NULL,
        note TEXT NOT NULL
    )""",
    "INSERT INTO stamps (name, n) VALUES ('entities', 0), ('revisions', 0)",
)


def tables(big: str, blob: str) -> Iterable[str]:
    """The statements that make the tables, with a database's own names of these types."""
    return [statement.format(big=big, blob=blob) for statement in _TABLES]
