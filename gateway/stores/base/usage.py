"""What was used, for people: sums of calls grouped and filtered by what is known of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from gateway.core.errors import LedgerError
from gateway.core.sheet import LABELS
from gateway.core.usage import KINDS
from gateway.stores.base.columns import SHARED, quoted
from gateway.stores.base.span import FOREVER, Span, Summed, summed
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
_FIRST_KIND = _PLACES[KINDS[0]]
_HELD = _PLACES["held_tokens"]
_LAST = FOREVER // 24 * 24


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
    names = [_named(name, GROUPS) for name in by]
    wanted = {_named(name, (*LABELS, "tag")): set(map(str, values)) for name, values in only.items()}
    step = 1 if "hour" in names else 24 if {"day", "month"} & set(names) else _LAST
    span = Span(_hour(since, 0), _hour(until, _LAST), step)
    totals = _Totals(names, _labels(db, wanted, span.since // 24))
    tags = wanted.get("tag", {""})
    if "tag" not in names and "tag" not in wanted:
        totals.add(summed(db, span))
    else:
        if "" in tags:
            totals.add(summed(db, span), untagged=True)
        for tag in sorted(tags - {""}) if "tag" in wanted else [""]:
            totals.add(summed(db, span, tags=True, tag=tag))
    return [
        dict(zip(by, group, strict=True)) | dict(zip(FIGURES, totals.found[group], strict=True))
        for group in sorted(totals.found)
    ]


class _Label:
    """What is asked of one label: its part of the group, and which counts of calls its calls add to."""

    __slots__ = ("counts", "held", "part", "tagged")

    def __init__(self, part: tuple[Any, ...], outcome: str, source: str, tagged: int) -> None:
        names = ["calls"]
        names += ["errors"] if outcome in _ERRORS else ["refused"] if outcome == "refused" else []
        names += [source] if source in _SOURCES else []
        self.held = outcome == "abandoned"  # nobody knows what they used
        names += ["abandoned"] if self.held else []
        self.counts = [_PLACES[name] for name in names]
        self.part = part
        self.tagged = bool(tagged)


class _Totals:
    """Figures by group, folded from sums by label and period."""

    def __init__(self, names: Sequence[str], labels: Mapping[int, tuple[Any, ...]]) -> None:
        places = [LABELS.index(name) for name in names if name in LABELS]
        outcome, source, tagged = map(SHARED.index, ("outcome", "usage_source", "tagged"))
        self.found: dict[tuple[Any, ...], list[int]] = {}
        self._names = names
        self._bare = len(places) == len(names)  # the label says all of the group
        self._labels = {
            id: _Label(tuple([row[place] for place in places]), row[outcome], row[source], row[tagged])
            for id, row in labels.items()
        }

    def add(self, rows: Iterable[Summed], untagged: bool = False) -> None:
        """Add sums; with `untagged` those of calls without tags alone."""
        found, labels, bare = self.found, self._labels, self._bare
        for row in rows:
            label = labels.get(row.label)
            if label is None or (untagged and label.tagged):
                continue
            group = label.part if bare else self._group(label, row)
            total = found.get(group)
            if total is None:
                total = found[group] = [0] * len(FIGURES)
            for place in label.counts:
                total[place] += row.calls
            sums = list(map(int, row.sums))
            kinds = sums[: len(KINDS)]
            for place, count in enumerate((*kinds, sum(kinds), sums[len(KINDS)]), _FIRST_KIND):
                total[place] += count
            if label.held:
                total[_HELD] += sums[len(KINDS) + 1]
                total[_HELD + 1] += sums[len(KINDS) + 2]

    def _group(self, label: _Label, row: Summed) -> tuple[Any, ...]:
        part = iter(label.part)
        times = _times(row.hour)
        return tuple(
            [
                row.tag if name == "tag" else times[name] if name in TIMES else next(part)
                for name in self._names
            ]
        )


def _labels(db: Tables, wanted: Mapping[str, set[str]], since: int) -> dict[int, tuple[Any, ...]]:
    """Those that calls had since that day and that have the values that are asked for."""
    where, values = ["seen >= ?"], list[Any]([since])
    for name, chosen in wanted.items():
        if name != "tag":
            where.append(f'CAST("{name}" AS TEXT) IN ({", ".join("?" * len(chosen))})')
            values += sorted(chosen)
    select = f"SELECT id, {quoted(SHARED)} FROM labels WHERE {' AND '.join(where)}"
    return {row[0]: row[1:] for row in db.execute(select, values)}


@lru_cache(10_000)
def _times(hour: int) -> dict[str, str]:
    at = datetime.fromtimestamp(hour * 3600, UTC)
    return {name: at.strftime(form) for name, form in TIMES.items()}


def _named(name: str, known: Sequence[str]) -> str:
    """The column behind a name; the message of one that is none says what there is."""
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
