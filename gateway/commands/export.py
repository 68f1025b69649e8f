"""What a provider says was used: its export as CSV, read into sums per day and model.

OpenAI's exports of usage and of costs, Anthropic's of usage, and any table with the columns of `ALIASES`.
Column names are compared in small letters, what is no letter or digit as "_".
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import TextIO

from gateway.core.limit import MICROS

FIGURES = ("requests", "input", "output", "tokens", "cost_micros")

# Of each field the first column that is there counts; those in one tuple are added up.
ALIASES: Mapping[str, tuple[tuple[str, ...], ...]] = {
    "day": (
        ("day",), ("date",), ("start_time_iso",), ("start_time",), ("usage_date_utc",), ("usage_date",),
        ("timestamp",), ("created",), ("time",),
    ),
    "model": (("model",), ("model_version",), ("model_name",), ("model_id",), ("line_item",)),
    "requests": (
        ("num_model_requests",), ("requests",), ("num_requests",), ("n_requests",), ("request_count",),
        ("calls",),
    ),
    "input": (
        ("input_tokens",), ("prompt_tokens",),
        (
            "usage_input_tokens_no_cache", "usage_input_tokens_cache_write_5m",
            "usage_input_tokens_cache_write_1h", "usage_input_tokens_cache_read",
        ),
        ("n_context_tokens_total",), ("input",),
    ),
    "output": (
        ("output_tokens",), ("completion_tokens",), ("usage_output_tokens",), ("n_generated_tokens_total",),
        ("output",),
    ),
    "tokens": (("total_tokens",), ("tokens",)),
    "usd": (("amount_value",), ("cost_usd",), ("usd",), ("cost",), ("amount",), ("spend",)),
    "currency": (("amount_currency",), ("currency",)),
}  # fmt: skip
_COUNTS = ("requests", "input", "output", "tokens")

_MOST_FAULTS = 100  # told; the others are counted
_MOST_GROUPS = 200_000
_LARGEST = 1 << 53


class Unreadable(Exception):
    """The file can't be an export; the message says what would be right."""


class _Bad(Exception):
    """One row can't be understood."""


@dataclass(slots=True)
class Export:
    """Sums by day and model; `known` are the figures that the file has. Money is in micro-dollars."""

    known: tuple[str, ...] = ()
    sums: dict[tuple[str, str], dict[str, int]] = field(default_factory=dict)
    rows: int = 0
    faults: list[str] = field(default_factory=list)  # "line 7: …"
    bad: int = 0

    def _add(self, day: str, model: str, figures: Mapping[str, int]) -> None:
        if (day, model) not in self.sums and len(self.sums) >= _MOST_GROUPS:
            raise Unreadable(f"there are more than {_MOST_GROUPS:,} days and models: split the file")
        total = self.sums.setdefault((day, model), dict.fromkeys(self.known, 0))
        for name, figure in figures.items():
            total[name] += figure
        self.rows += 1


def read(path: Path, mapped: Mapping[str, str]) -> Export:
    """The export in a file; `mapped` says which column is which field. Raises `Unreadable`."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            return parse(file, mapped)
    except OSError as error:
        raise Unreadable((error.strerror or str(error)).lower()) from None
    except UnicodeDecodeError:
        raise Unreadable("it is not UTF-8 text") from None


def parse(file: TextIO, mapped: Mapping[str, str]) -> Export:
    """As `read`, from an open file."""
    head = file.readline()
    delimiter = max(",;\t", key=head.count)
    rows = csv.reader(_lines(head, file), delimiter=delimiter, strict=True)
    if not head.strip():
        raise Unreadable("its first line is empty; there the names of the columns are to be")
    try:
        columns = _columns(next(rows, []), mapped)
        export = Export(_known(columns))
        for row in rows:
            if any(cell.strip() for cell in row):
                _note(export, columns, row, rows.line_num)
    except csv.Error as error:
        raise Unreadable(f"line {rows.line_num}: {error}") from None
    return export


def _note(export: Export, columns: Mapping[str, tuple[int, ...]], row: list[str], line: int) -> None:
    try:
        _take(export, columns, row)
    except _Bad as bad:
        export.bad += 1
        if export.bad <= _MOST_FAULTS:
            export.faults.append(f"line {line}: {bad}")


def _lines(head: str, file: Iterable[str]) -> Iterator[str]:
    yield head
    yield from file


def _columns(head: list[str], mapped: Mapping[str, str]) -> dict[str, tuple[int, ...]]:
    """Where each field stands. Raises `Unreadable`."""
    names = [_plain(name) for name in head]
    columns: dict[str, tuple[int, ...]] = {}
    for name, aliases in ALIASES.items():
        for alias in aliases:
            places = tuple(names.index(each) for each in alias if each in names)
            if places:
                columns[name] = places
                break
    for column, name in mapped.items():
        if _plain(column) not in names:
            raise Unreadable(f"there is no column {column!a}; it has: {', '.join(head)[:500]}")
        columns[name] = (names.index(_plain(column)),)
    twice = [head[at] for places in columns.values() for at in places if names.count(names[at]) > 1]
    if twice:
        raise Unreadable(f"the column {twice[0]!a} stands there twice: which one is meant nobody can tell")
    missing = [name for name in ("day", "model") if name not in columns]
    if missing or not columns.keys() & {*_COUNTS, "usd"}:
        what = " and ".join(missing) or f"any of {', '.join((*_COUNTS, 'usd'))}"
        raise Unreadable(
            f"no column is known to hold {what}: name it with --map COLUMN=FIELD;"
            f" it has: {', '.join(head)[:500]}"
        )
    return columns


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", name.strip().lower()).strip("_")


def _known(columns: Mapping[str, object]) -> tuple[str, ...]:
    return tuple(name for name in FIGURES if (name if name != "cost_micros" else "usd") in columns)


def _take(export: Export, columns: Mapping[str, tuple[int, ...]], row: list[str]) -> None:
    cells = {
        name: [row[place].strip() for place in places if place < len(row)] for name, places in columns.items()
    }
    figures = {
        name: sum(_count(name, cell) for cell in cells[name]) for name in export.known if name in cells
    }
    if "usd" in cells:
        currency = (cells.get("currency") or [""])[0].lower()
        amount = sum((_amount(cell) for cell in cells["usd"]), Decimal())
        if amount and currency not in ("", "usd", "$"):
            raise _Bad(f"the amount is in {currency!a}, not in US dollars")
        figures["cost_micros"] = round(amount * MICROS)
    if not any(figures.values()):
        return  # days on which nothing was used are there all the same
    export._add(_day(cells["day"][0] if cells["day"] else ""), _model(cells["model"]), figures)


def _count(name: str, cell: str) -> int:
    if not cell:
        return 0
    found = _number(name, cell)
    if found != int(found):
        raise _Bad(f"{name} is {cell!a}, not a whole number")
    return int(found)


def _amount(cell: str) -> Decimal:
    return _number("the amount", cell.removeprefix("$")) if cell else Decimal()


def _number(name: str, cell: str) -> Decimal:
    grouped = re.fullmatch(r"-?[1-9]\d{0,2}(,\d{3})+(\.\d+)?", cell)  # 0,024 is a fraction
    try:
        found = Decimal(cell.replace(",", "") if grouped else cell)
    except InvalidOperation:
        raise _Bad(f"{name} is {cell[:40]!a}, not a number") from None
    if not found.is_finite() or abs(found) > _LARGEST:
        raise _Bad(f"{name} is {cell[:40]!a}, not a number that can be one")
    return found


def _day(cell: str) -> str:
    """The day in UTC: of a date, a date-time, or seconds or milliseconds since 1970."""
    try:
        if re.fullmatch(r"\d{9,11}(\.\d+)?|\d{13}", cell):
            seconds = float(cell) / (1000 if len(cell) == 13 else 1)
            return datetime.fromtimestamp(seconds, UTC).date().isoformat()
        if len(cell) <= 10:
            day = date.fromisoformat(cell)
        else:
            moment = datetime.fromisoformat(cell.replace(" UTC", "+00:00"))
            day = (moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)).date()
        if day == date.max:  # its end is no date any more
            raise ValueError
    except (ValueError, OverflowError, OSError):
        raise _Bad(f"the day is {cell[:40]!a}, not a date such as 2026-11-01") from None
    return day.isoformat()


def _model(cells: list[str]) -> str:
    """A cost's line item is "MODEL, kind of token"."""
    model = (cells[0] if cells else "").partition(", ")[0].strip()
    if not model:
        raise _Bad("the model is empty: export by model")
    return model[:128]
