"""A bounded memo that forgets what was not used for long, and never everything at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class Generations(Generic[K, V]):
    """Two dicts: what is new or was found lately, and what was so before.

    Each weighs `most` at the most; `weigh` tells what an entry weighs (1 without it). `young` may be read
    directly, where a frame counts; what is not there is asked of `find`.
    """

    __slots__ = ("_most", "_old", "_weigh", "_weight", "young")

    def __init__(self, most: int, weigh: Callable[[K, V], int] | None = None) -> None:
        self.young: dict[K, V] = {}
        self._old: dict[K, V] = {}
        self._most = most
        self._weigh: Callable[[Any, Any], int] = weigh or _one
        self._weight = 0  # of the young

    def __len__(self) -> int:
        return len(self.young) + len(self._old)

    def find(self, key: K) -> V | None:
        """What is remembered; None where nothing is."""
        found = self.young.get(key)
        if found is None and self._old:
            found = self._old.pop(key, None)
            if found is not None:
                self.keep(key, found)
        return found

    def keep(self, key: K, value: V) -> None:
        """Remember it, unless it alone weighs too much."""
        weight = self._weigh(key, value)
        self._old.pop(key, None)
        if weight > self._most:
            self.young.pop(key, None)
            return
        if self._weight + weight > self._most:
            self._old, self.young, self._weight = self.young, {}, 0
            self._old.pop(key, None)
        self._weight += weight
        self.young[key] = value

    def clear(self) -> None:
        """Forget all."""
        self.young, self._old, self._weight = {}, {}, 0


def _one(key: object, value: object) -> int:
    return 1
