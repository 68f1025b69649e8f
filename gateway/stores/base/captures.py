"""`core.captured.Captures` on any database in SQL: what a ledger store inherits beside its own part."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any

from gateway.core.captured import Captured
from gateway.core.codec import canonical, loads
from gateway.stores.base.tables import Tables

_COLUMNS = "id, ts, tenant, key_name, model, endpoint, prompt, response, redactions, until"
_SELECT = "SELECT " + _COLUMNS + " FROM captures WHERE "
_INSERT = (
    "INSERT INTO captures (" + _COLUMNS + ") VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"
)
_PAGE = 100  # captures read at once: each may have half a megabyte

_TABLES = (
    """CREATE TABLE captures (
        id TEXT PRIMARY KEY, ts {big} NOT NULL, tenant TEXT NOT NULL, key_name TEXT NOT NULL,
        model TEXT NOT NULL, endpoint TEXT NOT NULL, prompt TEXT NOT NULL, response TEXT NOT NULL,
        redactions TEXT NOT NULL, until {big} NOT NULL
    )""",
    "CREATE INDEX captures_until ON captures (until)",
    "CREATE INDEX captures_ts ON captures (ts)",
)


def tables(big: str) -> tuple[str, ...]:
    """The statements that make the tables, with a database's own name of a 64-bit integer."""
    return tuple(statement.format(big=big) for statement in _TABLES)


class SqlCaptures:
    """Texts of calls, already redacted, until their time is up."""

    def _transaction(self) -> AbstractContextManager[Tables]:
        raise NotImplementedError

    def _translated(self) -> AbstractContextManager[Tables]:
        raise NotImplementedError

    def keep_captures(self, captures: Sequence[Captured]) -> None:
        """Write them; one whose id is there already is left as it is."""
        with self._transaction() as db:
            for each in captures:
                db.execute(_INSERT, _row(each))

    def captures(
        self, *, tenant: str = "", since_ms: int = 0, until_ms: int = 0, most: int = 0, after: str = ""
    ) -> Iterator[Captured]:
        """The newest first; of one tenant, from `since_ms` on, before `until_ms`, beyond the id `after`."""
        left = most or 1 << 62
        ts, id = until_ms or 1 << 62, ""
        if after:
            place = self.capture(after)
            ts, id = (place.ts_ms, place.id) if place else (0, "")
        where = "(? = '' OR tenant = ?) AND ts >= ? AND (ts < ? OR (ts = ? AND id < ?))"
        select = f"{_SELECT}{where} ORDER BY ts DESC, id DESC LIMIT ?"
        while left > 0:
            with self._translated() as db:
                values = (tenant, tenant, since_ms, ts, ts, id, min(left, _PAGE))
                rows = db.execute(select, values).fetchall()
            yield from map(_captured, rows)
            if len(rows) < _PAGE:
                return
            left -= len(rows)
            id, ts = rows[-1][0], rows[-1][1]

    def capture(self, id: str) -> Captured | None:
        """One, by the id of its call."""
        with self._translated() as db:
            row = db.execute(_SELECT + "id = ?", (id,)).fetchone()
            return None if row is None else _captured(row)

    def end_captures(self, now_ms: int, most: int = 1000) -> int:
        """Remove those whose time is up, at most so many at once; gives how many."""
        with self._transaction() as db:
            over = "id IN (SELECT id FROM captures WHERE until <= ? ORDER BY until LIMIT ?)"
            return db.execute("DELETE FROM captures WHERE " + over, (now_ms, most)).rowcount

    def forget_captures(self, tenant: str) -> int:
        """Remove all of one tenant; gives how many."""
        with self._transaction() as db:
            return db.execute("DELETE FROM captures WHERE tenant = ?", (tenant,)).rowcount


def _row(each: Captured) -> tuple[Any, ...]:
    return (
        each.id, each.ts_ms, each.tenant, each.key_name, each.model, each.endpoint,
        each.prompt, each.response, canonical(dict(each.redactions)).decode(), each.until_ms,
    )  # fmt: skip


def _captured(row: Sequence[Any]) -> Captured:
    *texts, redactions, until = row
    id, ts, tenant, key_name, model, endpoint, prompt, response = texts
    return Captured(id, ts, tenant, key_name, model, endpoint, prompt, response, loads(redactions), until)
