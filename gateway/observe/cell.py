"""What all calls with the same labels have done: plain integers, cheap to add to."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from operator import itemgetter
from typing import Any

from gateway.core.usage import KINDS
from gateway.observe.series import DURATION, FIRST_BYTE, FIRST_TOKEN, OVERHEAD, QUEUE

LABELS = ("endpoint", "alias", "backend", "status", "outcome", "code", "usage_source")
AMOUNTS = (
    *KINDS, "cost_micros", "tries", "total_us", "overhead_us", "queue_us", "first_byte_us", "first_token_us",
)  # fmt: skip
DEFAULTS: dict[str, Any] = {**dict.fromkeys(LABELS, ""), "status": 0, **dict.fromkeys(AMOUNTS, 0)}

# One C call each instead of a look-up per field.
labels_of = itemgetter(*LABELS)
amounts_of = itemgetter(*AMOUNTS)

_DURATION, _OVERHEAD, _QUEUE = DURATION.bounds, OVERHEAD.bounds, QUEUE.bounds
_FIRST_BYTE, _FIRST_TOKEN = FIRST_BYTE.bounds, FIRST_TOKEN.bounds


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
        """Fold one complete record in. A time of 0 was never measured and is not observed."""
        (plain, cached, written, heard, output, thought, spoken,
         cost, tries, total, overhead, queue, first_byte, first_token) = amounts_of(record)  # fmt: skip
        self.calls += 1
        self.cost += cost
        if tries > 1:
            self.fallbacks += tries - 1
        tokens = self.tokens
        if plain:
            tokens[0] += plain
        if output:
            tokens[4] += output
        if cached or written or heard or thought or spoken:
            tokens[1] += cached
            tokens[2] += written
            tokens[3] += heard
            tokens[5] += thought
            tokens[6] += spoken
        if total:
            buckets = self.duration
            buckets[bisect_left(_DURATION, total)] += 1
            buckets[-1] += total
        if overhead:
            buckets = self.overhead
            buckets[bisect_left(_OVERHEAD, overhead)] += 1
            buckets[-1] += overhead
        if queue:
            buckets = self.queue
            buckets[bisect_left(_QUEUE, queue)] += 1
            buckets[-1] += queue
        if first_byte:
            buckets = self.first_byte
            buckets[bisect_left(_FIRST_BYTE, first_byte)] += 1
            buckets[-1] += first_byte
        if first_token:
            buckets = self.first_token
            buckets[bisect_left(_FIRST_TOKEN, first_token)] += 1
            buckets[-1] += first_token
