"""Calls that are in no cell yet: put together, as much is done once per sheet and little per call."""

from __future__ import annotations

from typing import Any

from gateway.core.sheet import Sheet
from gateway.core.usage import KINDS
from gateway.observe.cell import LABELS

_TIMES = ("total_us", "overhead_us", "queue_us", "first_byte_us", "first_token_us")
_NAMES = (*LABELS, "cost_micros", "tries", *KINDS, *_TIMES)  # what cells know of calls

Alike = tuple[tuple[Any, ...], tuple[bool, ...]]  # the members that are common, and which are not


class Pending:
    """`calls` of them, to be had as few sheets."""

    def __init__(self) -> None:
        self.calls = 0
        self._sheets: dict[Alike, Sheet] = {}

    def add(self, sheet: Sheet) -> None:
        """Note calls, as far as cells know of them."""
        common, columns = sheet.common, sheet.columns
        alike = tuple(map(common.get, _NAMES)), tuple(map(columns.__contains__, _NAMES))
        there = self._sheets.get(alike)
        if there is None:
            known = {name: common[name] for name in _NAMES if name in common}
            there = self._sheets[alike] = Sheet(0, known, {name: [] for name in _NAMES if name in columns})
        there.size += sheet.size
        for name, column in there.columns.items():
            column.extend(columns[name])  # type: ignore[attr-defined]  # a list, from above
        self.calls += sheet.size

    def taken(self) -> list[Sheet]:
        """All of them, once."""
        sheets, self._sheets, self.calls = list(self._sheets.values()), {}, 0
        return sheets
