"""Where the sums over a stretch of time are: whole days, hours at the edges, single calls last.

What is in no sum by hour yet is read call by call, what is in none by day by the hour. All of one reading is
to be done in one transaction, so that it sees one moment.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from gateway.stores.base.columns import HOUR_MS
from gateway.stores.base.tables import Tables

FOREVER = (1 << 40) // 24 * 24  # hours


class Span(NamedTuple):
    """Hours since 1970, `until` not included. `step` is how many hours a period has, `FOREVER` all."""

    since: int
    until: int
    step: int = FOREVER

    def days(self) -> tuple[int, int]:
        """The whole days inside, where periods are days or longer."""
        if self.step % 24:
            return 0, 0
        first, last = -(-self.since // 24), self.until // 24
        return (first, last) if first < last else (0, 0)


class Source(NamedTuple):
    """Rows of a table, called `s`: `calls` in each, the `hour` they are of and the first of its `period`.

    With tags, `tag` is the expression for one, and a call stands there once for each of its tags.
    """

    rows: str
    calls: str
    hour: str
    period: str
    tag: str
    where: str
    values: tuple[int, ...]


class _Replica(NamedTuple):
    n: int
    rolled: int
    summed: int


def sources(db: Tables, span: Span, replica: int | None = None, tags: bool = False) -> Iterator[Source]:
    """Together they have every call of the span once. `replica` gives what went through that one alone."""
    first, last = span.days()
    of = f" AND s.replica = {replica:d}" if replica is not None else ""
    table = "tag_{}" if tags else "{}"
    if first < last:
        where = f"s.day >= ? AND s.day < ?{of}"
        yield _source(table.format("days"), "s.calls", "s.day * 24", span, where, (first, last))
    for each in _replicas(db, replica, tags):
        hours = table.format("hours")
        for since, until in _edges(span, first * 24, last * 24):
            where = "s.hour >= ? AND s.hour < ? AND s.replica = ? AND s.n <= ?"
            yield _source(hours, "s.calls", "s.hour", span, where, (since, until, each.n, each.summed))
        # The plus keeps databases from looking for times in an index: what is in no sum is found by number.
        where = "s.replica = ? AND s.n > ? AND +s.hour >= ? AND +s.hour < ?"
        yield _source(hours, "s.calls", "s.hour", span, where, (each.n, each.summed, span.since, span.until))
        where = "s.replica = ? AND s.n > ? AND +s.ts >= ? AND +s.ts < ?"
        limits = (span.since * HOUR_MS, span.until * HOUR_MS)
        yield _source(_entries(tags), "1", f"s.ts / {HOUR_MS}", span, where, (each.n, each.rolled, *limits))


def _source(rows: str, calls: str, hour: str, span: Span, where: str, values: tuple[int, ...]) -> Source:
    period = f"{hour} / {span.step} * {span.step}" if span.step < FOREVER else ""
    return Source(rows + " s" if " " not in rows else rows, calls, hour, period, _tag(rows), where, values)


def _entries(tags: bool) -> str:
    return "entries s JOIN tagged t ON t.tagset = s.tagset" if tags else "entries"


def _tag(rows: str) -> str:
    return "t.tag" if " " in rows else "s.tag" if rows.startswith("tag_") else ""


def single(where: str, values: tuple[int, ...], slice_: str, tags: bool) -> Source:
    """Single calls by a slice of time of one's own; "" is none."""
    rows = _entries(tags)
    return Source(rows if tags else "entries s", "1", slice_, slice_, _tag(rows), where, values)


def _replicas(db: Tables, replica: int | None, tags: bool) -> list[_Replica]:
    summed = "tags_summed" if tags else "summed"
    rows = db.execute(f"SELECT n, rolled, {summed} FROM replicas").fetchall()
    return [_Replica(*map(int, row)) for row in rows if replica in (None, row[0])]


def _edges(span: Span, first: int, last: int) -> Iterator[tuple[int, int]]:
    if first == last:
        yield span.since, span.until
        return
    if span.since < first:
        yield span.since, first
    if last < span.until:
        yield last, span.until
