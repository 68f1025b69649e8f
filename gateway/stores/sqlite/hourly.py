"""Sums by hour of the calls that are in none yet, kept along while their rows are written.

`base.rollups` reads the rows once more, which costs as much as half of writing them. What is remembered here
is only ever used in its place where the file says that it is the whole: after a restart, a rollback, or with
another writer it is forgotten, and the rows are read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import repeat
from operator import add

from gateway.stores.base.columns import HOUR_MS, SUMS
from gateway.stores.base.entries import Written
from gateway.stores.base.rollups import ROLLED, TAGS_ROLLED
from gateway.stores.base.tables import Tables

_MOST = 10_000  # sums remembered
_TRIED = (
    2000  # calls after which there have to be half as many sums, else it is no cheaper than to read the rows
)

Sums = tuple[int, ...]


class Hourly:
    """The sums of `_rows` calls after the one with the number `_after`; -1 where that is not known.

    `many` runs a statement for each of some rows.
    """

    def __init__(self, many: Callable[[str, Iterable[Sums]], object]) -> None:
        self._many = many
        self.forget()

    def forget(self) -> None:
        """Remember nothing, until `begin`."""
        self._begin(-1)

    def begin(self, db: Tables, replica: int) -> None:
        """From now on, if all rows are in sums."""
        newest, rolled = _place(db, replica)
        self._begin(rolled if newest <= rolled else -1)

    def _begin(self, after: int) -> None:
        self._after = after
        self._rows = 0
        self._tagged = False
        self._sums: dict[tuple[int, int], Sums] = {}  # label and hour → calls, then `SUMS`

    def add(self, size: int, labels: Sequence[int], calls: Written, tagged: bool) -> None:
        """Calls that have been inserted."""
        if self._after < 0:
            return
        times = calls.own.get("ts") or (calls.common.get("ts", 0),)
        first, last = min(times), max(times)
        if first < 0 or self._vain():  # before 1970 databases divide otherwise
            self.forget()
            return
        self._rows += size
        self._tagged = self._tagged or tagged
        hour = first // HOUR_MS
        if hour == last // HOUR_MS and labels[0] == labels[-1] and labels.count(labels[0]) == size:
            self._fold((labels[0], hour), _total(size, calls))
            return
        hours = [ts // HOUR_MS for ts in times] if "ts" in calls.own else repeat(hour, size)
        for key, sums in zip(zip(labels, hours, strict=False), _each(size, calls), strict=True):
            self._fold(key, sums)

    def _vain(self) -> bool:
        return len(self._sums) > (_MOST if self._rows < _TRIED else min(self._rows // 2, _MOST))

    def _fold(self, key: tuple[int, int], sums: Sums) -> None:
        there = self._sums.get(key)
        self._sums[key] = sums if there is None else tuple(map(add, there, sums))

    def roll(self, db: Tables, replica: int) -> int:
        """Write the sums, in the caller's transaction; how many calls these are of. 0: it is not known."""
        newest, rolled = _place(db, replica)
        count = self._rows
        if self._after != rolled or newest != rolled + count:
            self.forget()
            return 0
        if count:
            self._write(db, replica, rolled, newest)
        self._begin(newest)
        return count

    def _write(self, db: Tables, replica: int, rolled: int, newest: int) -> None:
        into = f"INSERT INTO hours (replica, label, hour, calls, {', '.join(SUMS)})"
        marks = ", ".join("?" * (3 + len(SUMS)))
        rows = [(*key, *sums) for key, sums in sorted(self._sums.items())]
        self._many(f"{into} VALUES ({replica:d}, {marks})", rows)
        if self._tagged:
            db.execute(TAGS_ROLLED.format(replica=replica), (replica, rolled, newest))
        db.execute(ROLLED, (newest, replica))


def _place(db: Tables, replica: int) -> tuple[int, int]:
    """The newest number there is, and up to which one calls are in sums."""
    select = "SELECT (SELECT coalesce(max(n), 0) FROM entries), rolled FROM replicas WHERE n = ?"
    newest, rolled = db.execute(select, (replica,)).fetchone()
    return int(newest), int(rolled)


def _total(size: int, calls: Written) -> Sums:
    common, _, totals = calls
    return (size, *[totals[name] if name in totals else common.get(name, 0) * size for name in SUMS])


def _each(size: int, calls: Written) -> Iterator[Sums]:
    common, own, _ = calls
    columns: list[Iterable[int]] = [
        own[name] if name in own else repeat(common.get(name, 0), size) for name in SUMS
    ]
    return zip(repeat(1, size), *columns, strict=True)
