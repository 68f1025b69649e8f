"""One row of the budget, and how thorough a run is."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

CHAT = "/v1/chat/completions"


@dataclass(slots=True)
class Options:
    """How thorough a run is."""

    rounds: int = 3
    seconds: float = 6.0
    streams: int = 1000
    python: str = sys.executable
    peers: bool = True
    say: Callable[[str], None] = print


@dataclass(slots=True)
class Row:
    """One line of the table. `values` holds one figure per round, by whose it is."""

    key: str
    what: str
    must: str
    aim: str
    unit: str
    values: dict[str, list[float]] = field(default_factory=dict)
    measured: dict[str, list[float]] = field(default_factory=dict)  # what must and aim speak of
    void: dict[str, str] = field(default_factory=dict)
    notes: dict[str, Any] = field(default_factory=dict)

    def add(self, name: str, value: float) -> None:
        """Note one round's figure."""
        self.values.setdefault(name, []).append(value)

    def divide(self, ours: str = "penstock", base: str = "nginx", label: str = "÷ nginx") -> None:
        """Derive the ratio, round by round."""
        pairs = zip(self.values.get(ours, []), self.values.get(base, []), strict=False)
        self.measured[label] = [mine / theirs for mine, theirs in pairs]
