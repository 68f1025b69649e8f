"""From call records to rows: one entry per call, and the sums that `hours` keeps of them."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterable, Mapping, Sequence
from operator import itemgetter
from typing import Any

from gateway.core.codec import dumps

LABELS = (
    "key", "key_name", "tenant", "team", "user", "method", "endpoint", "model", "alias", "backend",
    "target", "stream", "status", "outcome", "code", "usage_source",
)  # fmt: skip
SUMS = (
    "input", "cached_input", "cache_write", "audio_input", "output", "reasoning", "audio_output",
    "cost_micros", "hold_tokens", "hold_micros", "total_us",
)  # fmt: skip
_REST = (
    "client", "tries", "queue_us", "connect_us", "first_byte_us", "first_token_us",
    "overhead_us", "revision", "worker", "path", "session", "tags", "trace", "reasons",
)  # fmt: skip
_TEXTS = {*LABELS, "id", "client", "revision", "path", "session", "tags", "trace", "reasons"}
_TEXTS -= {"stream", "status"}

_EMPTY: dict[str, Any] = {name: "" if name in _TEXTS else 0 for name in ("ts", "id", *LABELS, *SUMS, *_REST)}

HOUR_MS = 3_600_000
_MOST_LABELS = 20_000  # remembered per shape; the table knows them all
_MOST_SHAPES = 64
_LARGEST = (1 << 63) - 1
_LARGEST_SUM = 1 << 48  # of one batch: a provider that reports nonsense can't make later sums overflow

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

Row = tuple[Any, ...]


class Shape:
    """How records with the same fields are written: only what they have is bound, the rest is default.

    The statements are put together from the names above and nothing else.
    """

    def __init__(self, names: Collection[str]) -> None:
        sums = [name for name in SUMS if name in names]
        columns = ["ts", "id", *sums, *(name for name in _REST if name in names)]
        self._columns = itemgetter(*columns)
        self._labels = itemgetter(*(name for name in LABELS if name in names))
        self._json = [name for name in ("tags", "reasons") if name in names]
        self.size = len(names)
        self.sums = slice(2, 2 + len(sums))
        self.ids: dict[Row, int] = {}  # labels as they are cut → label
        self.insert = _insert("entries", [*columns, "label"])
        counts = ["calls", *sums]
        self.add = _insert("hours", ["hour", "label", *counts]) + " ON CONFLICT DO UPDATE SET "
        self.add += ", ".join([name + " = " + name + " + excluded." + name for name in counts])

    def cut(self, record: Mapping[str, Any]) -> tuple[Row, Row]:
        """Columns and labels of a record; KeyError where it has another shape."""
        if self._json:
            record = {**record, **{name: _json(record[name]) for name in self._json}}
        return self._columns(record), self._labels(record)


def _insert(table: str, names: Sequence[str]) -> str:
    marks = ", ".join("?" * len(names))
    return "INSERT INTO " + table + " (" + ", ".join(names) + ") VALUES (" + marks + ")"


_LEAST = frozenset(("ts", "id", "model", "outcome"))


class Batch:
    """Rows of one shape, and what they add to each hour and label."""

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self._groups: dict[tuple[int, int], list[Row]] = {}

    def add(self, row: Row) -> None:
        """One more: its columns from `ts` on, then its label."""
        self.rows.append(row)
        at = (row[0] // HOUR_MS, row[-1])
        group = self._groups.get(at)
        if group is None:
            self._groups[at] = [row]
        else:
            group.append(row)

    def hours(self, sums: slice) -> list[Row]:
        """What is added to `hours`."""
        return [(*at, len(rows), *_sums(rows, sums)) for at, rows in self._groups.items()]


class Entries:
    """Writes calls. Remembers label ids; `forget` them when a transaction is rolled back."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        self._whole = Shape(_EMPTY)
        self._shapes: dict[frozenset[str], Shape] = {}
        self._likely: dict[int, Shape] = {}  # number of fields → the shape seen last

    def forget(self) -> None:
        """Remember no label."""
        for shape in (self._whole, *self._shapes.values()):
            shape.ids.clear()

    def insert(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Insert rows and add them to their hours, inside the caller's transaction."""
        batches: dict[Shape, Batch] = {}
        for record in records:
            shape = self._likely.get(len(record), self._whole)
            try:  # a record with as many fields as a shape, and all of its, has that shape
                columns, labels = shape.cut(record)
            except KeyError:
                shape, record = self._shaped(record)
                columns, labels = shape.cut(record)
            batch = batches.get(shape)
            if batch is None:
                batch = batches[shape] = Batch()
            batch.add((*columns, shape.ids.get(labels) or self._label(shape, labels, record)))
        for shape, batch in batches.items():
            self._db.executemany(shape.insert, batch.rows)
            self._db.executemany(shape.add, batch.hours(shape.sums))

    def _shaped(self, record: Mapping[str, Any]) -> tuple[Shape, Mapping[str, Any]]:
        names = frozenset(record)
        shape = self._shapes.get(names)
        if shape is None:
            if len(self._shapes) >= _MOST_SHAPES or not _LEAST <= names <= _EMPTY.keys():
                return self._whole, {**_EMPTY, **record}
            shape = self._shapes[names] = Shape(names)
        self._likely[shape.size] = shape
        return shape, record

    def _label(self, shape: Shape, labels: Row, record: Mapping[str, Any]) -> int:
        whole = tuple([record.get(name, _EMPTY[name]) for name in LABELS])
        found = self._db.execute(_FIND_LABEL, whole).fetchone()
        number = int(found[0]) if found else self._db.execute(_NEW_LABEL, whole).lastrowid or 0
        if len(shape.ids) >= _MOST_LABELS:
            shape.ids.clear()
        shape.ids[labels] = number
        return number


def _sums(rows: Sequence[Row], summed: slice) -> list[int]:
    sums = list(map(sum, zip(*[row[summed] for row in rows], strict=True)))
    return sums if not sums or max(sums) < _LARGEST_SUM else [min(each, _LARGEST_SUM) for each in sums]


def _json(value: Any) -> str:
    return dumps(value).decode() if value else ""


def plain(record: Mapping[str, Any]) -> dict[str, Any]:
    """The record with every field of a kind that the tables take; for records that were refused once."""
    kept: dict[str, Any] = {name: record[name] for name in ("tags", "reasons") if name in record}
    for name, empty in _EMPTY.items():
        value = record.get(name, empty)
        if name in kept or value is None:
            continue
        if isinstance(empty, int):
            kept[name] = max(-_LARGEST, min(int(value), _LARGEST)) if isinstance(value, int | float) else 0
        else:
            kept[name] = str(value).encode("utf-8", "replace").decode()
    return kept
