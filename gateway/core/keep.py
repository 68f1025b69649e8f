"""How long what was recorded is kept."""

from __future__ import annotations

from dataclasses import dataclass

_DAY = 86_400.0


@dataclass(slots=True, frozen=True)
class Keep:
    """Of single calls, their sums by hour and by day, and the audit: seconds; 0.0 is for good."""

    calls: float = 90 * _DAY
    hours: float = 400 * _DAY
    days: float = 1830 * _DAY
    audit: float = 400 * _DAY


USUAL = Keep()
