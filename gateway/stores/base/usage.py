"""What was used, for people: sums of calls grouped and filtered by what is known of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, NamedTuple

from gateway.core.errors import LedgerError
from gateway.core.sheet import LABELS
from gateway.core.usage import KINDS, UNKNOWN
from gateway.stores.base.columns import COARSE
from gateway.stores.base.span import FOREVER, Source, Span, sources, totals
from gateway.stores.base.tables import Tables

TIMES = {"hour": "%Y-%m-%dT%H:00Z", "day": "%Y-%m-%d", "month": "%Y-%m"}
GROUPS = (*LABELS, "tag", *TIMES)
ALIASES = {"prompt": "prompt_version"}
_ERRORS = frozenset(("upstream_error", "failed", "truncated", "abandoned"))
_SOURCES = ("counted", "estimated", "unknown")
FIGURES = (
    "calls", "errors", "refused", *_SOURCES, "abandoned", *KINDS, "tokens", "cost_micros", "held_tokens",
    "held_micros",
)  # fmt: skip
_PLACES = {name: place for place, name in enumerate(FIGURES)}
_SUMMED = [f"s.{name}" for name in (*KINDS, "cost_micros", "hold_tokens", "hold_micros")]
_LARGEST_DAY = (1 << 31) - 1
_MOST_VALUES = 100  # asked for at once, of one name


class _Asked(NamedTuple):
    """What is asked for: the columns of labels that are grouped by, and which calls."""

    columns: tuple[str, ...]
    wanted: Mapping[str, Sequence[str]]
    tags: Sequence[str] | None  # None: calls are not told apart by tags; empty: by all there are


def usage(
    db: Tables,
    by: Sequence[str],
    since: datetime | None,
    until: datetime | None,
    only: Mapping[str, Sequence[str]],
) -> list[dict[str, Any]]:
    """Sums grouped by any of `GROUPS` and ordered by them; `only` has the values that are asked for, by name.

    With a group or filter `tag` a call counts under each of its tags, and one without any under "".
    """
    names = [named(name, GROUPS) for name in by]
    wanted = {named(name, (*LABELS, "tag")): list(map(str, values)) for name, values in only.items()}
    if any(not 0 < len(values) <= _MOST_VALUES for values in wanted.values()):
        raise LedgerError(f"1 to {_MOST_VALUES} values can be asked for at once")
    timed = bool(TIMES.keys() & set(names))
    span = Span(_hour(since, 0), _hour(until, FOREVER), 1 if "hour" in names else 24 if timed else FOREVER)
    chosen = wanted.pop("tag", None)
    columns = tuple(name for name in names if name in LABELS)
    found: dict[tuple[Any, ...], list[int]] = {}
    if chosen is None and "tag" not in names:
        _add(found, db, span, names, _Asked(columns, wanted, None))
    else:
        tags = sorted(set(chosen or ()) - {""})
        if chosen is None or "" in chosen:
            _add(found, db, span, names, _Asked(columns, {**wanted, "tagged": ["0"]}, None))
        if chosen is None or tags:
            _add(found, db, span, names, _Asked(columns, wanted, tags))
    return [
        dict(zip(by, group, strict=True)) | dict(zip(FIGURES, found[group], strict=True))
        for group in sorted(found)
    ]


def _add(
    found: dict[tuple[Any, ...], list[int]], db: Tables, span: Span, names: Sequence[str], asked: _Asked
) -> None:
    """Fold what the tables have into groups: by outcome and source, the figures tell calls apart."""
    own = len(asked.columns)
    coarse = asked.tags is None and {*asked.columns, *asked.wanted} <= set(COARSE)
    for source in sources(db, span, tags=asked.tags is not None, coarse=coarse):
        for row in _rows(db, span, source, asked):
            labels, (outcome, usage_source, tag, hour, calls), sums = (
                row[:own],
                row[own : own + 5],
                row[own + 5 :],
            )
            group = _group(names, labels, tag, int(hour))
            total = found.get(group)
            if total is None:
                total = found[group] = [0] * len(FIGURES)
            _count(total, outcome, usage_source, int(calls), [int(each) for each in sums])


def _group(names: Sequence[str], labels: Sequence[Any], tag: str, hour: int) -> tuple[Any, ...]:
    part = iter(labels)
    return tuple(
        [tag if name == "tag" else _times(hour)[name] if name in TIMES else next(part) for name in names]
    )


def _count(total: list[int], outcome: str, source: str, calls: int, sums: list[int]) -> None:
    total[0] += calls
    if outcome in _ERRORS:
        total[_PLACES["errors"]] += calls
    elif outcome == "refused":
        total[_PLACES["refused"]] += calls
    if source in _SOURCES:
        total[_PLACES[source]] += calls
    kinds, (cost, hold_tokens, hold_micros) = sums[: len(KINDS)], sums[len(KINDS) :]
    for place, count in enumerate((*kinds, sum(kinds), cost), _PLACES[KINDS[0]]):
        total[place] += count
    if outcome == "abandoned":
        total[_PLACES["abandoned"]] += calls
    if outcome == "abandoned" or source == UNKNOWN:  # nobody knows what they used
        total[_PLACES["held_tokens"]] += hold_tokens
        total[_PLACES["held_micros"]] += hold_micros


def _rows(db: Tables, span: Span, source: Source, asked: _Asked) -> Iterator[Sequence[Any]]:
    """Columns of labels, outcome, source of usage, tag, first hour of the period, calls, sums."""
    where = ["1 = 1"]
    values: list[Any] = [*source.values]
    if source.labels == "l":
        where = ["l.seen >= ?"]
        values.append(min(span.since // 24, _LARGEST_DAY))
    for name, given in (*asked.wanted.items(), *([("", asked.tags)] if asked.tags else [])):
        column = f'CAST({source.labels}."{name}" AS TEXT)' if name else source.tag
        where.append(f"{column} IN ({', '.join('?' * len(given))})")
        values += given
    columns = [f'{source.labels}."{name}"' for name in (*asked.columns, "outcome", "usage_source")]
    yield from db.execute(totals(source, columns, _SUMMED, " AND ".join(where)), values)


@lru_cache(10_000)
def _times(hour: int) -> dict[str, str]:
    at = datetime.fromtimestamp(hour * 3600, UTC)
    return {name: at.strftime(form) for name, form in TIMES.items()}


def named(name: str, known: Sequence[str] = GROUPS) -> str:
    """The column behind a name. Raises `LedgerError`, which says what there is, for one that is none."""
    found = ALIASES.get(name, name)
    if found not in known:
        raise LedgerError(f'usage can\'t be grouped by "{name}"; it knows: {", ".join(known)}')
    return found


def _hour(at: datetime | None, default: int) -> int:
    if at is None:
        return default
    if at.tzinfo is None:
        raise LedgerError(f"{at.isoformat()} has no time zone; say UTC")
    return int(at.timestamp()) // 3600
