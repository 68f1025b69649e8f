"""One row per call, in PostgreSQL: copied in, a batch at a time."""

from __future__ import annotations

from collections.abc import Sequence

from gateway.core.sheet import Sheet
from gateway.stores.base.entries import Shared, written
from gateway.stores.postgres.connection import Session


class Entries:
    """Writes calls of one replica; `forget` what is remembered when a transaction is rolled back."""

    def __init__(self) -> None:
        self._shared = Shared()

    def forget(self) -> None:
        """Remember no label."""
        self._shared.forget()

    def insert(self, session: Session, sheets: Sequence[Sheet], replica: int, day: int) -> int:
        """Copy rows in, inside the caller's transaction; how many."""
        self._shared.begin(sheets)
        for sheet in sheets:
            self._copy(session, sheet, replica, day)
        self._shared.write(session.executemany)
        return sum(sheet.size for sheet in sheets)

    def _copy(self, session: Session, sheet: Sheet, replica: int, day: int) -> None:
        tagsets = self._shared.tagsets(sheet)
        labels = self._shared.labels(sheet, tagsets)
        shared, own, _ = written(sheet)
        columns = [[replica] * sheet.size, [day] * sheet.size, labels, tagsets or [0] * sheet.size]
        columns += [[value] * sheet.size for value in shared.values()]
        into = ", ".join(("replica", "day", "label", "tagset", *shared, *own))
        with (
            session.connection.cursor() as cursor,
            cursor.copy(f"COPY entries ({into}) FROM STDIN".encode()) as copy,
        ):
            for row in zip(*columns, *own.values(), strict=True):
                copy.write_row(row)
