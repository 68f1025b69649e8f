"""Temporary raises in force: how much more a bucket may have, and until when."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from fnmatch import fnmatchcase

from gateway.core.limit import Raise

MOST = 10_000  # raises in force at once; what ends first counts


class Raises:
    """Raises by rule. Each ends by itself; `wall` is epoch seconds."""

    def __init__(self, wall: Callable[[], float]) -> None:
        self._wall = wall
        self._by_rule: dict[str, list[Raise]] = {}
        self._ends = math.inf

    def replace(self, raises: Iterable[Raise]) -> None:
        """These instead of those before."""
        now = self._wall()
        current = sorted([each for each in raises if each.until > now], key=lambda each: each.until)[:MOST]
        self._by_rule = {}
        for each in current:
            self._by_rule.setdefault(each.rule, []).append(each)
        self._ends = current[0].until if current else math.inf

    def ended(self) -> bool:
        """Whether some have ended since the last look; they are dropped."""
        if self._wall() < self._ends:
            return False
        self.replace([each for raises in self._by_rule.values() for each in raises])
        return True

    def extra(self, rule: str, value: str) -> int:
        """What a bucket has on top of its rule's amount."""
        raises = self._by_rule.get(rule)
        if not raises:
            return 0
        return sum(each.amount for each in raises if fnmatchcase(value, each.value))
