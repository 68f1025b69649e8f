"""One row per call, in SQLite: bound by position, only the columns that these calls have."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from itertools import repeat
from typing import Any

from gateway.core.sheet import Sheet
from gateway.stores.base.entries import Shared, written
from gateway.stores.sqlite.hourly import Hourly

_MOST_SHAPES = 64
# Rows of one statement: to run it costs half as much as all that a row's values do, and what these calls have
# alike is bound once. At most so many values, as older builds of SQLite take no more.
_ROWS = (32, 8)
_VALUES = 900

Shape = tuple[tuple[str, ...], tuple[str, ...]]  # columns that are bound once, and those of each row


class Entries:
    """Writes calls of one replica; `forget` what is remembered when a transaction is rolled back.

    `hourly` are the sums of what was written.
    """

    def __init__(self, db: sqlite3.Connection, replica: int) -> None:
        self.hourly = Hourly(db.executemany)
        self._db = db
        self._replica = replica
        self._shared = Shared()
        self._inserts: dict[
            tuple[Shape, int], str
        ] = {}  # columns that calls have, and rows → their statement

    def forget(self) -> None:
        """Remember no label, and no sum."""
        self._shared.forget()
        self.hourly.forget()

    def forget_labels(self) -> None:
        """Remember no label: rows have gone."""
        self._shared.forget()

    def insert(self, sheets: Sequence[Sheet]) -> int:
        """Insert rows, inside the caller's transaction; how many."""
        self._shared.begin(sheets)
        for sheet in sheets:
            self._insert(sheet)
        self._shared.write(self._db.executemany)
        return sum(sheet.size for sheet in sheets)

    def _insert(self, sheet: Sheet) -> None:
        size, values = sheet.size, written(sheet)
        tagsets = self._shared.tagsets(sheet)
        labels = self._shared.labels(sheet, tagsets)
        self.hourly.add(size, labels, values, bool(tagsets))
        common, own, _ = values
        once: dict[str, Any] = {}
        each: dict[str, Sequence[Any]] = {}
        for name, column in (("label", labels), ("client", own.pop("client", ())), ("tagset", tagsets)):
            if column and column[0] == column[-1] and column.count(column[0]) == size:
                once[name] = column[0]
            elif column:
                each[name] = column
        self._write(size, once | common, each | own)

    def _write(self, size: int, once: dict[str, Any], each: dict[str, Sequence[Any]]) -> None:
        shape = (tuple(once), tuple(each))
        common, columns = list(once.values()), list(each.values())
        run, width, done = self._db.cursor().execute, len(each), 0
        values: list[Any] = []
        if size >= _ROWS[-1]:  # row by row, as they are bound
            values = [None] * (size * width)
            for place, column in enumerate(columns):
                values[place::width] = column
        for rows in _ROWS:
            if size - done >= rows and rows * width + len(once) <= _VALUES:
                insert = self._statement(shape, rows)
                for at in range(done, size - rows + 1, rows):
                    run(insert, common + values[at * width : (at + rows) * width])
                    done = at + rows
        if done < size:
            insert, rest = self._statement(shape, 1), [column[done:] for column in columns]
            self._db.executemany(insert, _singly(common, rest, size - done))

    def _statement(self, shape: Shape, rows: int) -> str:
        insert = self._inserts.get((shape, rows))
        if insert is None:
            if len(self._inserts) >= _MOST_SHAPES:
                self._inserts.clear()
            insert = self._inserts[shape, rows] = self._made(*shape, rows)
        return insert

    def _made(self, once: tuple[str, ...], each: tuple[str, ...], rows: int) -> str:
        common = [str(self._replica), *[f"?{place + 1}" for place in range(len(once))]]
        row = f"({', '.join((*common, *['?'] * len(each)))})"
        into = ", ".join(("replica", *once, *each))
        return f"INSERT INTO entries ({into}) VALUES {', '.join([row] * rows)}"


def _singly(common: Sequence[Any], columns: Sequence[Sequence[Any]], size: int) -> Iterator[tuple[Any, ...]]:
    return zip(*[repeat(value, size) for value in common], *columns, strict=True)
