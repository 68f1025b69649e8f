"""What all calls with the same labels have done: plain integers, cheap to add to."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from typing import Any

from gateway.core.usage import KINDS
from gateway.observe.series import DURATION, FIRST_BYTE, FIRST_TOKEN, OVERHEAD, QUEUE

LABELS = ("endpoint", "alias", "backend", "status", "outcome", "code", "usage_source")

_DURATION, _OVERHEAD, _QUEUE = DURATION.bounds, OVERHEAD.bounds, QUEUE.bounds
_FIRST_BYTE, _FIRST_TOKEN = FIRST_BYTE.bounds, FIRST_TOKEN.bounds


_RARE = tuple((kind, place) for place, kind in enumerate(KINDS) if kind not in ("input", "output"))


def labels_of(record: Mapping[str, Any]) -> tuple[Any, ...]:
    """The values of `LABELS`; a record leaves empty fields out."""
    get = record.get
    return (
        get("endpoint", ""),
        get("alias", ""),
        get("backend", ""),
        get("status", 0),
        get("outcome", ""),
        get("code", ""),
        get("usage_source", ""),
    )


def histogram(bounds: tuple[int, ...]) -> list[int]:
    """Counts per bucket, the one above the last bound, then the sum of what was observed."""
    return [0] * (len(bounds) + 2)


class Cell:
    """The sums of one combination of labels. Money in micro-dollars, times in microseconds."""

    __slots__ = (
        "calls", "cost", "duration", "fallbacks", "first_byte", "first_token", "overhead", "queue", "tokens",
    )  # fmt: skip

    def __init__(self) -> None:
        self.calls = 0
        self.cost = 0
        self.fallbacks = 0
        self.tokens = [0] * len(KINDS)
        self.duration = histogram(_DURATION)
        self.overhead = histogram(_OVERHEAD)
        self.queue = histogram(_QUEUE)
        self.first_byte = histogram(_FIRST_BYTE)
        self.first_token = histogram(_FIRST_TOKEN)

    def add(self, record: Mapping[str, Any]) -> None:
        """Fold one record in. A time that is absent or 0 was not measured and is not observed."""
        get = record.get
        self.calls += 1
        if value := get("cost_micros"):
            self.cost += value
        if (value := get("tries", 0)) > 1:
            self.fallbacks += value - 1
        if value := get("input"):
            self.tokens[0] += value
        if value := get("output"):
            self.tokens[4] += value
        for kind, place in _RARE:
            if kind in record:
                self.tokens[place] += record[kind]
        # Written out five times: a function for it would be a third of what folding a call in costs.
        if value := get("total_us"):
            self.duration[bisect_left(_DURATION, value)] += 1
            self.duration[-1] += value
        if value := get("overhead_us"):
            self.overhead[bisect_left(_OVERHEAD, value)] += 1
            self.overhead[-1] += value
        if value := get("queue_us"):
            self.queue[bisect_left(_QUEUE, value)] += 1
            self.queue[-1] += value
        if value := get("first_byte_us"):
            self.first_byte[bisect_left(_FIRST_BYTE, value)] += 1
            self.first_byte[-1] += value
        if value := get("first_token_us"):
            self.first_token[bisect_left(_FIRST_TOKEN, value)] += 1
            self.first_token[-1] += value
