"""What was used, summed from `hours`: for people, and for the windows of limits."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from gateway.core.errors import LedgerError
from gateway.core.limit import LimitRule, Spent, scope_value
from gateway.core.sheet import LABELS
from gateway.core.usage import KINDS
from gateway.stores.sqlite.entries import HOUR_MS, SUMS

_SUMMED = (
    "sum(calls), sum(input), sum(cached_input), sum(cache_write), sum(audio_input), sum(output),"
    " sum(reasoning), sum(audio_output), sum(cost_micros), sum(hold_tokens), sum(hold_micros), sum(total_us)"
)
_HOURS = (
    "SELECT label, hour / :step * :step, " + _SUMMED + " FROM hours"
    " WHERE hour >= :since AND hour < :until GROUP BY 1, 2"
)
_LABELS = (
    'SELECT id, "key", key_name, tenant, team, user, method, endpoint, model, alias, backend, target,'
    " stream, status, outcome, code, usage_source FROM labels"
)
# Calls that ended since then. Of those that began more than an hour before, nothing is found any more; a
# call that died with its worker ended nobody knows when, so it is one of them if it began in that hour.
_ENTRIES = (
    "SELECT label, (ts + total_us / 1000) / :slice, count(*), sum(input), sum(cached_input),"
    " sum(cache_write), sum(audio_input), sum(output), sum(reasoning), sum(audio_output),"
    " sum(cost_micros), sum(hold_tokens), sum(hold_micros)"
    " FROM entries JOIN labels ON labels.id = label"
    " WHERE ts >= :since - 3600000 AND (ts + total_us / 1000 >= :since OR outcome = 'abandoned')"
    " AND (:worker IS NULL OR worker = :worker) GROUP BY 1, 2"
)

_TIMES = {"hour": "%Y-%m-%dT%H:00Z", "day": "%Y-%m-%d", "month": "%Y-%m"}
GROUPS = (*LABELS, *_TIMES)
_ERRORS = ("upstream_error", "failed", "truncated", "abandoned")
_FOREVER = 1 << 40  # hours

Labels = dict[int, dict[str, Any]]


def _labels(db: sqlite3.Connection) -> Labels:
    return {row[0]: dict(zip(LABELS, row[1:], strict=True)) for row in db.execute(_LABELS)}


def usage(
    db: sqlite3.Connection, by: Sequence[str], since: datetime | None, until: datetime | None
) -> list[dict[str, Any]]:
    """Sums grouped by any of `GROUPS`, ordered by them."""
    for name in by:
        if name not in GROUPS:
            raise LedgerError(f'usage can\'t be grouped by "{name}"; it knows: {", ".join(GROUPS)}')
    step = 1 if "hour" in by else 24 if {"day", "month"} & set(by) else _FOREVER
    span = {"step": step, "since": _hour(since, 0), "until": _hour(until, _FOREVER)}
    labels = _labels(db)
    groups: dict[tuple[Any, ...], dict[str, Any]] = {}
    for number, hour, *sums in db.execute(_HOURS, span):
        label = labels[number]
        times = _times(hour)
        group = tuple([label[name] if name in label else times[name] for name in by])
        if group not in groups:
            groups[group] = dict(zip(by, group, strict=True)) | _NOTHING
        _add(groups[group], label, sums)
    return [groups[group] for group in sorted(groups)]


@lru_cache(10_000)
def _times(hour: int) -> dict[str, str]:
    at = datetime.fromtimestamp(hour * 3600, UTC)
    return {name: at.strftime(form) for name, form in _TIMES.items()}


_NOTHING = dict.fromkeys(
    ("calls", "errors", "refused", "estimated", "unknown", "abandoned", *KINDS, "tokens", "cost_micros",
     "held_tokens", "held_micros"), 0,
)  # fmt: skip


def _add(total: dict[str, Any], label: Mapping[str, Any], sums: Sequence[int]) -> None:
    """`held_*` is what abandoned calls had reserved: nobody knows what they used."""
    calls, counts = sums[0], dict(zip(SUMS, sums[1:], strict=True))
    outcome, source = label["outcome"], label["usage_source"]
    total["calls"] += calls
    total["errors"] += calls if outcome in _ERRORS else 0
    total["refused"] += calls if outcome == "refused" else 0
    if source in ("estimated", "unknown"):
        total[source] += calls
    if outcome == "abandoned":
        total["abandoned"] += calls
        total["held_tokens"] += counts["hold_tokens"]
        total["held_micros"] += counts["hold_micros"]
    for kind in KINDS:
        total[kind] += counts[kind]
        total["tokens"] += counts[kind]
    total["cost_micros"] += counts["cost_micros"]


def _hour(at: datetime | None, default: int) -> int:
    if at is None:
        return default
    if at.tzinfo is None:
        raise LedgerError(f"{at.isoformat()} has no time zone; say UTC")
    return int(at.timestamp()) // 3600


def spent(
    db: sqlite3.Connection, rule: LimitRule, since_ms: int, value: str | None, worker: int | None
) -> Iterator[Spent]:
    """What was charged to a rule, dated at the end of the slice of time it is summed over.

    For windows of up to an hour, and for one worker: call by call, by when they ended, in sixtieths of the
    window. For longer ones: by the hour in which calls began.
    """
    if worker is not None or 0 < rule.seconds <= 3600 or rule.calendar in ("minute", "hour"):
        seconds = rule.seconds or (60.0 if rule.calendar == "minute" else 3600.0)
        width = max(int(min(seconds, 3600.0) * 1000) // 60, 1)
        rows = db.execute(_ENTRIES, {"slice": width, "since": since_ms, "worker": worker})
    else:
        span = {"step": 1, "since": since_ms // HOUR_MS, "until": _FOREVER}
        width, rows = HOUR_MS, db.execute(_HOURS, span)
    return _spent(_labels(db), rows.fetchall(), rule, width, value)


def _spent(
    labels: Labels, rows: Iterable[Sequence[int]], rule: LimitRule, width: int, value: str | None
) -> Iterator[Spent]:
    for number, slice_, calls, *sums in rows:
        label = labels[number]
        found = scope_value(rule, label)
        if label["outcome"] != "refused" and value in (None, found):
            tokens, micros = sum(sums[: len(KINDS)]), sums[7]
            if label["usage_source"] == "unknown":
                tokens, micros = sums[8], sums[9]
            yield Spent(found, (slice_ + 1) * width - 1, calls, tokens, micros)
