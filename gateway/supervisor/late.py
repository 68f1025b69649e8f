"""What limits hear of when calls are booked: no lease, or too little of one, has told of it.

Calls that workers of an earlier supervisor still finish; and calls of which more was counted
here than their workers had estimated.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from gateway.core.limit import LimitRule, Spent, counted
from gateway.core.sheet import Sheet
from gateway.core.usage import KINDS, NONE, UNKNOWN


def inherited(journals: Path, boot: str) -> frozenset[int]:
    """The numbers of workers whose journals were there before this supervisor; no number is used twice."""
    names = [path.name for path in journals.glob("*-*") if not path.name.startswith(f"{boot}-")]
    return frozenset(int(n) for n in (name.rpartition("-")[2] for name in names) if n.isdecimal())


def records(sheets: Iterable[Sheet], workers: frozenset[int]) -> Iterator[dict[str, Any]]:
    """The calls of these workers that were charged something."""
    for sheet in sheets:
        numbers = sheet.columns.get("worker") or (sheet.common.get("worker"),)
        if workers.isdisjoint(numbers):
            continue
        for record in sheet.records():
            if record.get("worker") in workers and _charged(record):
                yield record


def _charged(record: dict[str, Any]) -> bool:
    """Not what was refused, nor what nobody was asked for; as `stores.base.spent` has it."""
    return record.get("outcome") != "refused" and bool(
        record.get("backend") or record.get("usage_source", NONE) != NONE
    )


def spent(rule: LimitRule, record: dict[str, Any]) -> Iterator[Spent]:
    """What a call was charged in each bucket of a rule; its hold where nobody knows what it used."""
    values = {
        name: str(record.get(name, "")) for name in ("tenant", "team", "user", "key", "model", "backend")
    }
    names = {**values, "key": record.get("key_name") or values["key"]}
    for value in counted(rule, values, names, record.get("tags") or ()):
        ended = int(record.get("ts", 0)) + int(record.get("total_us", 0)) // 1000
        if record.get("usage_source") == UNKNOWN:
            tokens, micros = int(record.get("hold_tokens", 0)), int(record.get("hold_micros", 0))
            yield Spent(value, ended, 1, tokens, micros, tokens, tokens)
        else:
            tokens = sum(int(record.get(kind, 0)) for kind in KINDS)
            given = sum(int(record.get(kind, 0)) for kind in KINDS[:4])
            yield Spent(value, ended, 1, tokens, int(record.get("cost_micros", 0)), given, tokens - given)


def lacking(rule: LimitRule, before: dict[str, Any], after: dict[str, Any]) -> Iterator[Spent]:
    """What a call was charged too little in each bucket of a rule, by two states of its record."""
    for less, more in zip(spent(rule, before), spent(rule, after), strict=True):
        yield Spent(
            more.value,
            more.ts_ms,
            0,
            max(more.tokens - less.tokens, 0),
            max(more.micros - less.micros, 0),
            max(more.input - less.input, 0),
            max(more.output - less.output, 0),
        )
