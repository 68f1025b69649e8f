"""Sums over a stretch of time, read from the fewest rows: whole days, hours at the edges, single calls last.

What is in no sum by hour yet is read call by call, what is in none by day by the hour. All of one reading is
to be done in one transaction, so that it sees one moment.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from gateway.stores.base.columns import HOUR_MS, SUMS
from gateway.stores.base.tables import Tables

FOREVER = 1 << 40  # hours
NO_TAG = "CAST('' AS TEXT)"
_TOTALS = ", ".join(f"sum(s.{name})" for name in SUMS)


class Summed(NamedTuple):
    """Sums of calls with one label (and tag) in one period, which begins at `hour` (since 1970)."""

    label: int
    tag: str
    hour: int
    calls: int
    sums: Sequence[int]  # in the order of `SUMS`


class Span(NamedTuple):
    """Hours since 1970, `until` not included. `step` is how many hours a period has."""

    since: int
    until: int
    step: int

    def days(self) -> tuple[int, int]:
        """The whole days inside, where periods are days or longer."""
        if self.step % 24:
            return 0, 0
        first, last = -(-self.since // 24), self.until // 24
        return (first, last) if first < last else (0, 0)


def summed(
    db: Tables, span: Span, replica: int | None = None, tags: bool = False, tag: str = ""
) -> Iterator[Summed]:
    """Sums by label and period; several may come for the same. With `tags` by tag too, of tagged calls alone.

    `tag` gives that one alone, `replica` what went through that one.
    """
    for source, values in _sources(span, tags):
        table, period, conditions = source
        where = [conditions, *(["s.replica = ?"] if replica else []), *(["t.tag = ?"] if tag else [])]
        calls, hour = ("s.calls", f"s.{period}") if table != "entries" else ("1", "s.ts / 3600000")
        hour = f"{hour} * 24" if period == "day" else hour
        joined = " JOIN tagged t ON t.tagset = s.tagset" if tags and table == "entries" else ""
        named = f"tag_{table}" if tags and table != "entries" else table
        name = ("t.tag" if table == "entries" else "s.tag") if tags else NO_TAG
        where = [each.replace("t.tag", name) for each in where]
        at = f"{hour} / {span.step} * {span.step}"
        select = (
            f"SELECT s.label, {name}, {at}, sum({calls}), {_TOTALS}"
            f" FROM replicas r CROSS JOIN {named} s{joined}"
            f" WHERE s.replica = r.n AND {' AND '.join(where)} GROUP BY 1, 2, 3"
        )
        given = (*values, *([replica] if replica else []), *([tag] if tag else []))
        for row in db.execute(select, given):
            yield Summed(row[0], row[1], int(row[2]), int(row[3]), row[4:])


def _sources(span: Span, tags: bool) -> Iterator[tuple[tuple[str, str, str], tuple[int, ...]]]:
    """Tables, their periods, which of their rows: together every call of the span once.

    The plus keeps databases from looking for times in an index: what is in no sum yet is found by number.
    """
    first, last = span.days()
    through = "r.tags_summed" if tags else "r.summed"
    if first < last:
        yield ("days", "day", "s.day >= ? AND s.day < ?"), (first, last)
    for since, until in _edges(span, first * 24, last * 24):
        yield ("hours", "hour", f"s.n <= {through} AND s.hour >= ? AND s.hour < ?"), (since, until)
    yield ("hours", "hour", f"s.n > {through} AND +s.hour >= ? AND +s.hour < ?"), (span.since, span.until)
    yield (
        ("entries", "ts", "s.n > r.rolled AND +s.ts >= ? AND +s.ts < ?"),
        (span.since * HOUR_MS, span.until * HOUR_MS),
    )


def _edges(span: Span, first: int, last: int) -> Iterator[tuple[int, int]]:
    if first == last:
        yield span.since, span.until
        return
    if span.since < first:
        yield span.since, first
    if last < span.until:
        yield last, span.until
