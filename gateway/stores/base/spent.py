"""What was charged to a limit's buckets, for restoring and recounting its windows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from gateway.core.limit import LimitRule, Spent, scope_values
from gateway.core.usage import KINDS
from gateway.stores.base.columns import DAY_MS, HOUR_MS, SHARED, SUMS, quoted
from gateway.stores.base.span import FOREVER, NO_TAG, Span, Summed, summed
from gateway.stores.base.tables import Tables

_TOTALS = ", ".join(f"sum(s.{name})" for name in SUMS)
_INPUT = slice(0, 4)  # of `KINDS`: the prompt's side
_SLICES = 60  # of a rolling window, as the authority counts it

Charged = tuple[Summed, int]  # and the moment it is dated at, epoch ms


def spent(
    db: Tables, rule: LimitRule, since_ms: int, value: str | None, worker: int | None, replica: int | None
) -> Iterator[Spent]:
    """What was charged to a rule; a call that nobody knows the usage of counts as its hold.

    For windows of up to an hour, and for one worker: call by call, by when they ended, in sixtieths of the
    window. For longer ones from sums: by the hour in which calls began, or by the day where the window is of
    the calendar. Rolling windows are never charged too early, those of the calendar always in their period.
    """
    tags = "tag" in rule.scope
    seconds = rule.seconds or {"minute": 60.0, "hour": 3600.0}.get(rule.calendar, 0.0)
    if worker is not None or 0 < seconds <= 3600:
        rows = _single(db, seconds or 3600.0, since_ms, worker, replica, tags)
    elif rule.calendar:
        rows = _calendar(db, since_ms, replica, tags)
    else:
        rows = _rolling(db, rule.seconds, since_ms, replica, tags)
    yield from _spent(db, rule, rows, value, since_ms)


def _single(
    db: Tables, seconds: float, since_ms: int, worker: int | None, replica: int | None, tags: bool
) -> Iterator[Charged]:
    """Calls that ended since then. Of those that began more than an hour before nothing is found any more.

    A call that died with its worker ended nobody knows when: it counts if it began in that hour.
    """
    width = max(int(min(seconds, 3600.0) * 1000) // _SLICES, 1)
    ended = "s.ts + s.total_us / 1000"
    where = [f"s.ts >= ? AND ({ended} >= ? OR l.outcome = 'abandoned')"]
    values = [since_ms - HOUR_MS, since_ms]
    for column, number in (("worker", worker), ("replica", replica)):
        if number is not None:
            where.append(f"s.{column} = ?")
            values.append(number)
    for row in _calls(db, f"({ended}) / {width}", where, values, tags):
        yield row, (row.hour + 1) * width - 1


def _calls(db: Tables, at: str, where: Sequence[str], values: Sequence[int], tags: bool) -> Iterator[Summed]:
    """Sums of single calls, by a slice of time in place of the hour."""
    tag, joined = ("t.tag", " JOIN tagged t ON t.tagset = s.tagset") if tags else (NO_TAG, "")
    select = (
        f"SELECT s.label, {tag}, {at}, count(*), {_TOTALS}"
        f" FROM entries s JOIN labels l ON l.id = s.label{joined}"
        f" WHERE {' AND '.join(where)} GROUP BY 1, 2, 3"
    )
    for row in db.execute(select, values):
        yield Summed(row[0], row[1], int(row[2]), int(row[3]), row[4:])


def _rolling(db: Tables, seconds: float, since_ms: int, replica: int | None, tags: bool) -> Iterator[Charged]:
    """By as many hours as one slice of the window has."""
    hours = max(int(seconds) // 3600 // _SLICES, 1)
    for row in summed(db, Span(since_ms // HOUR_MS, FOREVER, hours), replica, tags):
        yield row, (row.hour + hours) * HOUR_MS - 1


def _calendar(db: Tables, since_ms: int, replica: int | None, tags: bool) -> Iterator[Charged]:
    """From the beginning of the period on; zones that are not whole hours from UTC begin amid one."""
    first = -(-since_ms // HOUR_MS)
    if first * HOUR_MS > since_ms:
        where, values = ["s.ts >= ? AND s.ts < ?"], [since_ms, first * HOUR_MS]
        if replica is not None:
            where.append("s.replica = ?")
            values.append(replica)
        for row in _calls(db, "0", where, values, tags):
            yield row, since_ms
    midnight = -(-first // 24) * 24
    if first < midnight:
        for row in summed(db, Span(first, midnight, 1), replica, tags):
            yield row, row.hour * HOUR_MS + _within(since_ms, HOUR_MS)
    for row in summed(db, Span(midnight, FOREVER // 24 * 24, 24), replica, tags):
        yield row, row.hour * HOUR_MS + _within(since_ms, DAY_MS)


def _within(since_ms: int, width: int) -> int:
    """The end of a slice where periods end with slices, else its beginning: both in the call's period."""
    return 0 if since_ms % width else width - 1


def _spent(
    db: Tables, rule: LimitRule, rows: Iterable[Charged], value: str | None, since_ms: int
) -> Iterator[Spent]:
    labels = _labels(db, since_ms // DAY_MS - 1)
    unknown = SHARED.index("usage_source")
    for row, ts_ms in rows:
        label = labels.get(row.label)
        if label is None:
            continue
        for found in scope_values(rule, dict(zip(SHARED, label, strict=True)), (row.tag,)):
            if value not in (None, found):
                continue
            sums = list(map(int, row.sums))
            kinds, (micros, hold_tokens, hold_micros) = sums[: len(KINDS)], sums[len(KINDS) : len(KINDS) + 3]
            side = sum(kinds[_INPUT])
            if label[unknown] == "unknown":  # which side the hold was for nobody knows either
                yield Spent(found, ts_ms, row.calls, hold_tokens, hold_micros, hold_tokens, hold_tokens)
            else:
                yield Spent(found, ts_ms, row.calls, sum(kinds), micros, side, sum(kinds) - side)


def _labels(db: Tables, day: int) -> dict[int, tuple[str, ...]]:
    """Refused calls were charged nothing."""
    select = f"SELECT id, {quoted(SHARED)} FROM labels WHERE outcome <> 'refused' AND seen >= ?"
    return {row[0]: row[1:] for row in db.execute(select, (day,))}
