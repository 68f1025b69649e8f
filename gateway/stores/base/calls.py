"""`core.ports.Ledger` on any database in SQL, as far as it is about calls: booking, sums, retention."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Any

from gateway.core.errors import LedgerError
from gateway.core.keep import Keep
from gateway.core.limit import LimitRule, Spent
from gateway.core.sheet import Sheet, tabulated
from gateway.stores.base import rollups, spent, usage
from gateway.stores.base.entries import OddFieldError, plain
from gateway.stores.base.tables import Tables

_OFFSET = (
    'INSERT INTO offsets (replica, source, "offset") VALUES (?, ?, ?) ON CONFLICT (replica, source)'
    ' DO UPDATE SET "offset" = excluded."offset" WHERE excluded."offset" >= offsets."offset"'
)
_SWEEP = 3600.0  # seconds between two looks for what is too old
_STEPS = 2  # of sums in one booking: rows of an older file come bit by bit

ODD = (OddFieldError, OverflowError, TypeError, ValueError)  # what a value raises that no column takes


class SqlCalls:
    """Calls, their sums, and how far each journal has been read.

    `_replica` is this replica's number in the database, `_behind` how many rows about are in no sum yet.
    """

    _replica = 0
    _behind = 0
    _today = 0  # the day until which hours are summed by day
    _swept = 0.0  # when there was nothing more for retention to do
    _odd: tuple[type[Exception], ...] = ODD

    def _transaction(self) -> AbstractContextManager[Tables]:
        raise NotImplementedError

    def _translated(self) -> AbstractContextManager[Tables]:
        raise NotImplementedError

    def _reading(self) -> AbstractContextManager[Tables]:
        """Statements that see one moment."""
        raise NotImplementedError

    def _booking(self) -> AbstractContextManager[Tables]:
        """A transaction that no other writer of this replica's rows has at the same time."""
        raise NotImplementedError

    def _insert(self, db: Tables, sheets: Sequence[Sheet]) -> int:
        """Insert calls; how many."""
        raise NotImplementedError

    def _refused(self, db: Tables, sheets: Sequence[Sheet]) -> None:
        raise NotImplementedError

    def _roll(self, db: Tables) -> int:
        """Sum up the next rows by hour; how many."""
        return rollups.roll(db, self._replica)

    def _drop_calls(self, db: Tables, before_ms: int) -> bool:
        """Remove calls from before then that are in sums, a bounded number; whether there are more."""
        raise NotImplementedError

    def _text(self, text: str) -> str:
        """A text as the database can hold it."""
        return text

    # ------------------------------------------------------------------ booking

    def book(self, sheets: Sequence[Sheet], offsets: Mapping[str, int]) -> None:
        """Insert calls and move read offsets, in one transaction. An offset that would go back is refused."""
        try:
            self._book(sheets, offsets)
        except self._odd:  # one odd field loses no call
            records = [record for sheet in sheets for record in sheet.records()]
            self._book(tabulated([plain(record, self._text) for record in records]), offsets)

    def commit(self, records: Sequence[Mapping[str, Any]], offsets: Mapping[str, int]) -> None:
        """As `book`, for records one by one."""
        try:
            sheets = tabulated(records)
        except self._odd:
            sheets = tabulated([plain(record, self._text) for record in records])
        self.book(sheets, offsets)

    def _book(self, sheets: Sequence[Sheet], offsets: Mapping[str, int]) -> None:
        with self._booking() as db:
            for source, offset in offsets.items():
                if not db.execute(_OFFSET, (self._replica, source, offset)).rowcount:
                    raise LedgerError(
                        f"the journal {source} was read beyond {offset} already: nothing is booked"
                    )
            behind = self._behind + self._insert(db, sheets)
            self._refused(db, sheets)
            if behind >= rollups.STEP:
                for _ in range(1 if behind < 2 * rollups.STEP else _STEPS):
                    behind -= self._roll(db)
                rollups.coarsen(db, self._replica)
                rollups.sum_days(db, self._replica, 0)
        self._behind = max(behind, 0)

    def give_up(self) -> None:
        """From another thread: end a wait that is hopeless. A file on this machine has none."""

    def offsets(self) -> dict[str, int]:
        """How far each source of this replica has been read."""
        with self._translated() as db:
            rows = db.execute('SELECT source, "offset" FROM offsets WHERE replica = ?', (self._replica,))
            return {source: int(offset) for source, offset in rows}

    def forget(self, source: str) -> None:
        """A source is read to its end and gone."""
        with self._transaction() as db:
            db.execute("DELETE FROM offsets WHERE replica = ? AND source = ?", (self._replica, source))

    # ------------------------------------------------------------------ sums

    def usage(
        self,
        by: Sequence[str],
        since: datetime | None = None,
        until: datetime | None = None,
        only: Mapping[str, Sequence[str]] | None = None,
    ) -> list[dict[str, Any]]:
        """Sums grouped by any of `usage.GROUPS`; `since` included, `until` not; whole hours.

        `only` has the values that are asked for, by name. Besides the groups each row has, as counts of
        calls: calls, errors, refused, counted, estimated, unknown, abandoned; tokens by kind and `tokens` in
        all; cost_micros; and what calls of unknown usage had reserved: held_tokens, held_micros.
        """
        with self._reading() as db:
            return usage.usage(db, by, since, until, only or {})

    def spent(
        self,
        rule: LimitRule,
        since_ms: int,
        value: str | None = None,
        worker: int | None = None,
        everyone: bool = False,
    ) -> Iterator[Spent]:
        """What was charged to a rule's buckets since then; a call whose usage is unknown counts its hold.

        Through this replica, or with `everyone` through all that share the ledger.
        """
        replica = None if everyone and worker is None else self._replica
        with self._reading() as db:
            return iter(list(spent.spent(db, rule, since_ms, value, worker, replica)))

    # ------------------------------------------------------------------ upkeep

    def tidy_calls(self, keep: Keep, now: float) -> bool:
        """One bounded step of sums and retention at that time (epoch seconds); whether there is more.

        Where nothing was booked since, and retention was at work in this hour, there is nothing to do.
        """
        today = int(now) // 86_400
        if self._behind or self._today != today:
            with self._booking() as db:
                rolled = self._roll(db)
                more = rolled == rollups.STEP or rollups.coarsen(db, self._replica)
                more = more or rollups.sum_days(db, self._replica, today)
            self._behind = max(self._behind - rolled, 0) if more else 0
            if more:
                return True
            self._today = today
        if self._swept <= now < self._swept + _SWEEP:
            return False
        more = self._sweep(keep, now)
        self._swept = self._swept if more else now
        return more

    def _sweep(self, keep: Keep, now: float) -> bool:
        today = int(now) // 86_400
        with self._booking() as db:
            more = bool(keep.calls) and self._drop_calls(db, int((now - keep.calls) * 1000))
        with self._booking() as db:
            if keep.hours:
                more = rollups.drop_hours(db, int(now - keep.hours) // 3600) or more
            if keep.days:
                more = rollups.drop_days(db, today - int(keep.days) // 86_400) or more
            if not more and keep.calls:
                rollups.drop_tags(db, today - int(keep.calls) // 86_400)
                if keep.hours and keep.days:
                    rollups.drop_labels(db, today - int(max(keep.calls, keep.hours, keep.days)) // 86_400)
        return more
