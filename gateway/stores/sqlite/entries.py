"""From call records to rows: one entry per call, and the sums that `hours` keeps of them."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from gateway.core.codec import dumps
from gateway.core.sheet import LABELS, Sheet

SUMS = (
    "input", "cached_input", "cache_write", "audio_input", "output", "reasoning", "audio_output",
    "cost_micros", "hold_tokens", "hold_micros", "total_us",
)  # fmt: skip
_REST = (
    "client", "tries", "queue_us", "connect_us", "first_byte_us", "first_token_us",
    "overhead_us", "revision", "worker", "path", "session", "tags", "trace", "reasons",
)  # fmt: skip
_COLUMNS = ("ts", "id", *SUMS, *_REST)
_TEXTS = {*LABELS, "id", "client", "revision", "path", "session", "tags", "trace", "reasons"}
_TEXTS -= {"stream", "status"}
_JSON = ("tags", "reasons")

_EMPTY: dict[str, Any] = {name: "" if name in _TEXTS else 0 for name in (*_COLUMNS, *LABELS)}

HOUR_MS = 3_600_000
_MOST_LABELS = 20_000  # remembered; the table knows them all
_MOST_SHAPES = 64
_LARGEST = (1 << 63) - 1
_LARGEST_SUM = 1 << 48  # of one sheet: a provider that reports nonsense can't make later sums overflow

_FIND_LABEL = (
    'SELECT id FROM labels WHERE "key" = ? AND key_name = ? AND tenant = ? AND team = ? AND user = ?'
    " AND method = ? AND endpoint = ? AND model = ? AND alias = ? AND backend = ? AND target = ?"
    " AND stream = ? AND status = ? AND outcome = ? AND code = ? AND usage_source = ?"
)
_NEW_LABEL = (
    'INSERT INTO labels ("key", key_name, tenant, team, user, method, endpoint, model, alias, backend,'
    " target, stream, status, outcome, code, usage_source)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)


# Statements are put together from the names above and nothing else.
def _insert(table: str, names: Sequence[str]) -> str:
    marks = ", ".join("?" * len(names))
    return "INSERT INTO " + table + " (" + ", ".join(names) + ") VALUES (" + marks + ")"


_ADD = _insert("hours", ("hour", "label", "calls", *SUMS)) + " ON CONFLICT DO UPDATE SET "
_ADD += ", ".join([name + " = " + name + " + excluded." + name for name in ("calls", *SUMS)])

Row = tuple[Any, ...]


class Entries:
    """Writes calls. Remembers label ids; `forget` them when a transaction is rolled back."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        self._labels: dict[Row, int] = {}
        self._inserts: dict[Row, str] = {}  # names that calls have → their statement

    def forget(self) -> None:
        """Remember no label."""
        self._labels.clear()

    def insert(self, sheets: Iterable[Sheet]) -> None:
        """Insert rows and add them to their hours, inside the caller's transaction."""
        for sheet in sheets:
            labels = self._labelled(sheet)
            self._db.executemany(*self._rows(sheet, labels))
            self._db.executemany(_ADD, _added(sheet, labels))

    def _rows(self, sheet: Sheet, labels: Sequence[int]) -> tuple[str, Iterator[Row]]:
        """The statement and what it binds: only what these calls have, the rest is default."""
        names = tuple([name for name in _COLUMNS if name in sheet.columns or name in sheet.common])
        insert = self._inserts.get(names)
        if insert is None:
            if len(self._inserts) >= _MOST_SHAPES:
                self._inserts.clear()
            insert = self._inserts[names] = _insert("entries", ("label", *names))
        return insert, zip(labels, *[_values(sheet, name) for name in names], strict=True)

    def _labelled(self, sheet: Sheet) -> Sequence[int]:
        """The label of each call."""
        if sheet.columns.keys().isdisjoint(LABELS):
            labels = tuple([sheet.common.get(name, _EMPTY[name]) for name in LABELS])
            return [self._labels.get(labels) or self._label(labels)] * sheet.size
        columns = [sheet.column(name) or [_EMPTY[name]] * sheet.size for name in LABELS]
        return [self._labels.get(labels) or self._label(labels) for labels in zip(*columns, strict=True)]

    def _label(self, labels: Row) -> int:
        found = self._db.execute(_FIND_LABEL, labels).fetchone()
        number = int(found[0]) if found else self._db.execute(_NEW_LABEL, labels).lastrowid or 0
        if len(self._labels) >= _MOST_LABELS:
            self._labels.clear()
        self._labels[labels] = number
        return number


def _values(sheet: Sheet, name: str) -> Sequence[Any]:
    values = sheet.column(name)
    return [dumps(value).decode() if value else "" for value in values] if name in _JSON else values


def _added(sheet: Sheet, labels: Sequence[int]) -> Iterator[Row]:
    """What is added to `hours`."""
    hours = [ts // HOUR_MS for ts in sheet.column("ts")]
    if hours.count(hours[0]) == labels.count(labels[0]) == sheet.size:
        yield (hours[0], labels[0], sheet.size, *[min(sheet.total(name), _LARGEST_SUM) for name in SUMS])
        return
    sums = [sheet.column(name) or [0] * sheet.size for name in SUMS]
    groups: dict[tuple[int, int], list[Row]] = {}
    for hour, label, *counts in zip(hours, labels, *sums, strict=True):
        groups.setdefault((hour, label), []).append(tuple(counts))
    for (hour, label), rows in groups.items():
        totals = map(sum, zip(*rows, strict=True)) if len(rows) > 1 else rows[0]
        yield (hour, label, len(rows), *[min(total, _LARGEST_SUM) for total in totals])


def plain(record: Mapping[str, Any]) -> dict[str, Any]:
    """The record with every field of a kind that the tables take; for records that were refused once."""
    kept: dict[str, Any] = {name: record[name] for name in _JSON if name in record}
    for name, empty in _EMPTY.items():
        value = record.get(name, empty)
        if name in kept or value is None:
            continue
        if isinstance(empty, int):
            kept[name] = max(-_LARGEST, min(int(value), _LARGEST)) if isinstance(value, int | float) else 0
        else:
            kept[name] = str(value).encode("utf-8", "replace").decode()
    return kept
