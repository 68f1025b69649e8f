"""One row per call, in SQLite: bound by position, only the columns that these calls have."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from typing import Any

from gateway.core.sheet import Sheet
from gateway.stores.base.entries import Shared, present, values

_MOST_SHAPES = 64


class Entries:
    """Writes calls of one replica; `forget` what is remembered when a transaction is rolled back."""

    def __init__(self, db: sqlite3.Connection, replica: int) -> None:
        self._db = db
        self._replica = replica
        self._shared = Shared()
        self._inserts: dict[tuple[str, ...], str] = {}  # columns that calls have → their statement

    def forget(self) -> None:
        """Remember no label."""
        self._shared.forget()

    def insert(self, sheets: Sequence[Sheet]) -> int:
        """Insert rows, inside the caller's transaction; how many."""
        self._shared.begin(sheets)
        for sheet in sheets:
            self._db.executemany(*self._rows(sheet))
        self._shared.write(self._db.executemany)
        return sum(sheet.size for sheet in sheets)

    def _rows(self, sheet: Sheet) -> tuple[str, Iterator[tuple[Any, ...]]]:
        """The statement and what it binds."""
        names = present(sheet)
        tagsets = self._shared.tagsets(sheet)
        labels = self._shared.labels(sheet, tagsets)
        columns = [labels, *values(sheet, names)]
        if tagsets:
            names = (*names, "tagset")
            columns.append(tagsets)
        return self._insert(names), zip(*columns, strict=True)

    def _insert(self, names: tuple[str, ...]) -> str:
        insert = self._inserts.get(names)
        if insert is None:
            if len(self._inserts) >= _MOST_SHAPES:
                self._inserts.clear()
            columns = ", ".join(("replica", "label", *names))
            marks = ", ?" * (len(names) + 1)
            insert = f"INSERT INTO entries ({columns}) VALUES ({self._replica}{marks})"
            self._inserts[names] = insert
        return insert
