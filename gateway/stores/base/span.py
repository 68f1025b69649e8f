"""Where the sums over a stretch of time are: whole days, hours at the edges, single calls last.

What is in no sum by hour yet is read call by call, what is in none by day by the hour. All of one reading is
to be done in one transaction, so that it sees one moment.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from gateway.stores.base.columns import HOUR_MS
from gateway.stores.base.tables import Tables

FOREVER = (1 << 40) // 24 * 24  # hours
_TAGGED = "tagged entries"


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
    """Rows of a `table` with their labels, `s` and `l`: the expressions for what is in each.

    `calls` is how many it has, `hour` which one it is of, `period` the first of its period ("": all are in
    one). With tags, `tag` is its tag, and a call stands there once for each of its tags. `labels` is where
    its labels are: `l`, or `s` itself.
    """

    table: str
    rows: str
    calls: str
    hour: str
    period: str
    tag: str
    where: str
    values: tuple[int, ...]
    labels: str = "l"


class _Replica(NamedTuple):
    n: int
    rolled: int
    summed: int
    coarsened: int


def sources(
    db: Tables, span: Span, replica: int | None = None, tags: bool = False, coarse: bool = False
) -> Iterator[Source]:
    """Together they have every call of the span once. `replica` gives what went through that one alone.

    `coarse`: of labels only those are asked for that coarse hours have.
    """
    first, last = span.days()
    of = f" AND s.replica = {replica:d}" if replica is not None else ""
    table = "tag_{}" if tags else "{}"
    if first < last:
        where = f"s.day >= ? AND s.day < ?{of}"
        yield _source(table.format("days"), "s.calls", "s.day * 24", span, where, (first, last))
    for each in _replicas(db, replica, tags):
        hours, known = table.format("hours"), each.summed
        if coarse and first == last:
            known = each.coarsened
            where = "s.hour >= ? AND s.hour < ? AND s.replica = ?"
            yield _source("coarse_hours", "s.calls", "s.hour", span, where, (span.since, span.until, each.n))
        else:
            for since, until in _edges(span, first * 24, last * 24):
                where = "s.hour >= ? AND s.hour < ? AND s.replica = ? AND s.n <= ?"
                yield _source(hours, "s.calls", "s.hour", span, where, (since, until, each.n, known))
        # The plus keeps databases from looking for times in an index: what is in no sum is found by number.
        where = "s.replica = ? AND s.n > ? AND +s.hour >= ? AND +s.hour < ?"
        yield _source(hours, "s.calls", "s.hour", span, where, (each.n, known, span.since, span.until))
        where = "s.replica = ? AND s.n > ? AND +s.ts >= ? AND +s.ts < ?"
        limits = (span.since * HOUR_MS, span.until * HOUR_MS)
        yield _source(
            _TAGGED if tags else "entries",
            "1",
            f"s.ts / {HOUR_MS}",
            span,
            where,
            (each.n, each.rolled, *limits),
        )


def _source(table: str, calls: str, hour: str, span: Span, where: str, values: tuple[int, ...]) -> Source:
    period = f"{hour} / {span.step} * {span.step}" if span.step < FOREVER else ""
    if table == "coarse_hours":
        return Source(table, f"{table} s", calls, hour, period, "", where, values, "s")
    return Source(
        table, _joined(table), calls, hour, period, _tag(table), f"l.id = s.label AND {where}", values
    )


def _joined(table: str) -> str:
    """Days are found label by label, the others by their numbers: some databases join as it is written."""
    if table.endswith("days"):
        return f"labels l CROSS JOIN {table} s"
    if table == _TAGGED:
        return "entries s JOIN tagged t ON t.tagset = s.tagset CROSS JOIN labels l"
    return f"{table} s CROSS JOIN labels l"


def _tag(table: str) -> str:
    return "t.tag" if table == _TAGGED else "s.tag" if table.startswith("tag_") else ""


def single(where: str, values: tuple[int, ...], slice_: str, tags: bool) -> Source:
    """Single calls by a slice of time of one's own; "" is none."""
    table = _TAGGED if tags else "entries"
    where = f"l.id = s.label AND {where}"
    return Source(table, _joined(table), "1", slice_, slice_, _tag(table), where, values)


def totals(source: Source, columns: Sequence[str], sums: Sequence[str], where: str = "1 = 1") -> str:
    """The statement that sums up a source: columns of labels, tag, period (0: none), calls, sums.

    Without periods sums by label come first: there are fewer labels than rows, and days stand by label.
    """
    tag, period = source.tag or "CAST('' AS TEXT)", source.period or "0"
    groups = [*columns, tag, period]
    added = [source.calls, *sums]
    by = ", ".join(str(place + 1) for place in range(len(groups)))
    rows = f" FROM {source.rows} WHERE {source.where} AND {where}"
    if source.period:
        return f"SELECT {', '.join((*groups, *_sums(added)))}{rows} GROUP BY {by}"
    names = [f"c{place}" for place in range(len(groups))]
    summed = [f"s{place}" for place in range(len(added))]
    inner = [
        f"{each} AS {name}" for each, name in zip((*groups, *_sums(added)), (*names, *summed), strict=True)
    ]
    labels = f"SELECT {', '.join(inner)}{rows} GROUP BY l.id{f', {tag}' if source.tag else ''}"
    return f"SELECT {', '.join((*names, *_sums(summed)))} FROM ({labels}) x GROUP BY {by}"


def _sums(added: Sequence[str]) -> list[str]:
    return [f"sum({each})" for each in added]


def _replicas(db: Tables, replica: int | None, tags: bool) -> list[_Replica]:
    summed = "tags_summed" if tags else "summed"
    rows = db.execute(f"SELECT n, rolled, {summed}, coarsened FROM replicas").fetchall()
    return [_Replica(*map(int, row)) for row in rows if replica in (None, row[0])]


def _edges(span: Span, first: int, last: int) -> Iterator[tuple[int, int]]:
    if first == last:
        yield span.since, span.until
        return
    if span.since < first:
        yield span.since, first
    if last < span.until:
        yield last, span.until
