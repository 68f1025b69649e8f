"""All cells, by label values: bounded, so that no caller and no upstream can grow `/metrics`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from gateway.core.sheet import Sheet
from gateway.observe.cell import ABSENT, LABELS, Cell

OTHER = "other"
NONE = "none"
OUTCOMES = frozenset(("ok", "refused", "upstream_error", "failed", "client_gone", "truncated", "abandoned"))
SOURCES = frozenset(("provider", "counted", "estimated", "unknown", "none"))
SIDES = ("caller_", "policy_", "upstream_", "gateway_")


class Names:
    """At most `limit` different values of one label; later ones are `other`."""

    __slots__ = ("_known", "limit")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._known: set[str] = set()

    def admit(self, value: str) -> str:
        """The value as a label, or `other`."""
        text = value or NONE
        if text in self._known:
            return text
        if len(self._known) >= self.limit or len(text) > 128:
            return OTHER
        self._known.add(text)
        return text


def _status(value: int) -> str:
    return str(value) if 100 <= value <= 599 else NONE


class Cells:
    """Label values → cell. `limit` bounds the cells; what no longer fits goes into one cell of `other`."""

    def __init__(self, limit: int = 1000, names: int = 200) -> None:
        self.limit = limit
        self.folded = 0
        self._raw: dict[tuple[Any, ...], Cell] = {}  # as records have them; the fast way
        self._cells: dict[tuple[str, ...], Cell] = {}  # as `/metrics` shows them
        self._endpoints = Names(64)
        self._models = Names(names)
        self._backends = Names(names)
        self._codes = Names(100)
        self._rest = Cell()

    def add(self, sheet: Sheet) -> None:
        """Fold calls in; missing fields are zero or empty."""
        for part in sheet.parted(LABELS):
            raw = tuple(map(part.common.get, LABELS, ABSENT))
            cell = self._raw.get(raw) or self._find(raw, part.size)
            cell.add(part)

    def items(self) -> Iterator[tuple[tuple[str, ...], Cell]]:
        """Every cell with its label values in the order of `cell.LABELS`."""
        yield from self._cells.items()
        if self._rest.calls:
            yield (OTHER,) * 7, self._rest

    def _find(self, raw: tuple[Any, ...], calls: int) -> Cell:
        labels = self._labels(*raw)
        cell = self._cells.get(labels)
        if cell is None:
            if len(self._cells) >= self.limit:
                self.folded += calls
                return self._rest
            cell = self._cells[labels] = Cell()
        if OTHER in labels[1:3]:
            self.folded += calls
        elif len(self._raw) < 2 * self.limit:
            self._raw[raw] = cell
        return cell

    def _labels(
        self, endpoint: str, alias: str, backend: str, status: int, outcome: str, code: str, source: str
    ) -> tuple[str, ...]:
        return (
            self._endpoints.admit(endpoint),
            self._models.admit(alias),
            self._backends.admit(backend),
            _status(status),
            outcome if outcome in OUTCOMES else OTHER,
            "" if not code else self._codes.admit(code) if code.startswith(SIDES) else OTHER,
            source if source in SOURCES else OTHER if source else NONE,
        )
