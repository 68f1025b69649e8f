"""What was charged to a limit's buckets, for restoring and recounting its windows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from gateway.core.limit import LimitRule, Spent, scope_values
from gateway.stores.base.columns import HOUR_MS
from gateway.stores.base.span import FOREVER, Source, Span, single, sources, totals
from gateway.stores.base.tables import Tables

_SUMMED = (
    "s.input + s.cached_input + s.cache_write + s.audio_input", "s.output + s.reasoning + s.audio_output",
    "s.cost_micros", "s.hold_tokens", "s.hold_micros",
)  # fmt: skip
# Not what was refused, nor what the gateway has answered itself (the list of models) or nobody waited for.
_CHARGED = "l.outcome <> 'refused' AND NOT (l.backend = '' AND l.usage_source = 'none')"
_SLICES = 60  # of a rolling window, as the authority counts it
_LONG = 30 * 24  # hours: from there on windows slide by whole days

Date = Callable[[int], int]  # of a period, epoch ms


def spent(
    db: Tables, rule: LimitRule, since_ms: int, value: str | None, worker: int | None, replica: int | None
) -> Iterator[Spent]:
    """What was charged to a rule; a call that nobody knows the usage of counts as its hold.

    For windows of up to an hour, and for one worker: call by call, by when they ended, in sixtieths of the
    window. For longer ones from sums, by when calls began: rolling windows in sixtieths of whole hours, from
    30 days on in days, never dated too early; those of the calendar within their period.
    """
    for source, dated in _sources(db, rule, since_ms, worker, replica):
        scopes = [scope for scope in rule.scope if scope not in ("global", "tag")]
        named = value is None and rule.match != "*" and "key" in scopes  # keys are matched by name too
        columns = [*scopes, *(["key_name"] if named else [])]
        for row in _rows(db, source, columns):
            yield from _charged(
                rule, dict(zip(columns, row, strict=False)), row[len(columns) :], dated, value
            )


def _sources(
    db: Tables, rule: LimitRule, since_ms: int, worker: int | None, replica: int | None
) -> Iterator[tuple[Source, Date]]:
    tags = "tag" in rule.scope
    seconds = rule.seconds or {"minute": 60.0, "hour": 3600.0}.get(rule.calendar, 0.0)
    if worker is not None or 0 < seconds <= 3600:
        yield _ended(seconds or 3600.0, since_ms, worker, replica, tags)
    elif rule.calendar:
        # Zones that are not whole hours from UTC begin amid one.
        first = -(-since_ms // HOUR_MS)
        if first * HOUR_MS > since_ms:
            of = f" AND s.replica = {replica:d}" if replica is not None else ""
            edge = single(f"s.ts >= ? AND s.ts < ?{of}", (since_ms, first * HOUR_MS), "", tags)
            yield edge, lambda hour: since_ms
        for source in sources(db, Span(first, FOREVER), replica, tags):
            if source.table.endswith("days") or first * HOUR_MS > since_ms:
                yield source, lambda hour: since_ms
            else:
                yield source._replace(period=source.hour), lambda hour: (hour + 1) * HOUR_MS - 1
    else:
        hours = int(rule.seconds) // 3600
        step = max(hours // _SLICES, 1) if hours < _LONG else max(hours // 24 // _SLICES, 1) * 24
        for source in sources(db, Span(since_ms // HOUR_MS // step * step, FOREVER, step), replica, tags):
            yield source, lambda hour: (hour + step) * HOUR_MS - 1


def _ended(
    seconds: float, since_ms: int, worker: int | None, replica: int | None, tags: bool
) -> tuple[Source, Date]:
    """Calls that ended since then. Of those that began more than an hour before nothing is found any more.

    A call that died with its worker ended nobody knows when: it counts if it began in that hour.
    """
    width = max(int(min(seconds, 3600.0) * 1000) // _SLICES, 1)
    ended = "s.ts + s.total_us / 1000"
    where = f"s.ts >= ? AND ({ended} >= ? OR l.outcome = 'abandoned')"
    for column, number in (("worker", worker), ("replica", replica)):
        where += f" AND s.{column} = {number:d}" if number is not None else ""
    source = single(where, (since_ms - HOUR_MS, since_ms), f"({ended}) / {width}", tags)
    return source, lambda slice_: (slice_ + 1) * width - 1


def _rows(db: Tables, source: Source, names: Sequence[str]) -> Iterable[Any]:
    """These columns, source of usage, tag, period, calls, sums: of the calls that were charged something."""
    columns = [f'l."{name}"' for name in (*names, "usage_source")]
    statement = totals(source, columns, _SUMMED, _CHARGED)
    return db.execute(statement, source.values).fetchall()


def _charged(
    rule: LimitRule, values: dict[str, str], rest: Any, dated: Date, value: str | None
) -> Iterator[Spent]:
    unknown, tag, period = rest[0] == "unknown", rest[1], int(rest[2])
    calls, input, output, micros, hold_tokens, hold_micros = map(int, rest[3:])
    used = (input + output, micros, input, output)
    if unknown:  # which side the hold was for nobody knows either
        used = (hold_tokens, hold_micros, hold_tokens, hold_tokens)
    names = {**values, "key": values.get("key_name") or values.get("key", "")}
    found = zip(scope_values(rule, values, (tag,)), scope_values(rule, names, (tag,)), strict=True)
    for bucket, name in found:
        if value in (None, bucket):
            yield Spent(bucket, dated(period), calls, *used, name)
