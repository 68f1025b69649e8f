"""What all calls with the same labels have done: plain integers, cheap to add to."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence

from gateway.core.sheet import Sheet
from gateway.core.usage import KINDS
from gateway.observe.series import DURATION, FIRST_BYTE, FIRST_TOKEN, OVERHEAD, QUEUE

# The values of a cell's labels, and what they are where a record leaves them out.
LABELS = ("endpoint", "alias", "backend", "status", "outcome", "code", "usage_source")
ABSENT = ("", "", "", 0, "", "", "")


def histogram(bounds: tuple[int, ...]) -> list[int]:
    """Counts per bucket, the one above the last bound, then the sum of what was observed."""
    return [0] * (len(bounds) + 2)


def observe(buckets: list[int], bounds: tuple[int, ...], values: Sequence[int]) -> None:
    """Count values into a histogram. 0 stands for a time that was not measured: it is not observed."""
    if len(values) < len(bounds):
        for value in values:
            if value:
                buckets[bisect_left(bounds, value)] += 1
    else:  # of many values, look for each bound among them
        ordered = sorted(values)
        below = bisect_right(ordered, 0)
        for place, bound in enumerate(bounds):
            upto = bisect_right(ordered, bound, below)
            buckets[place] += upto - below
            below = upto
        buckets[len(bounds)] += len(ordered) - below
    buckets[-1] += sum(values)


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
        self.duration = histogram(DURATION.bounds)
        self.overhead = histogram(OVERHEAD.bounds)
        self.queue = histogram(QUEUE.bounds)
        self.first_byte = histogram(FIRST_BYTE.bounds)
        self.first_token = histogram(FIRST_TOKEN.bounds)

    def add(self, sheet: Sheet) -> None:
        """Fold calls in."""
        self.calls += sheet.size
        self.cost += sheet.total("cost_micros")
        self.fallbacks += sum([tries - 1 for tries in sheet.column("tries") if tries > 1])
        for place, kind in enumerate(KINDS):
            self.tokens[place] += sheet.total(kind)
        observe(self.duration, DURATION.bounds, sheet.column("total_us"))
        observe(self.overhead, OVERHEAD.bounds, sheet.column("overhead_us"))
        observe(self.queue, QUEUE.bounds, sheet.column("queue_us"))
        observe(self.first_byte, FIRST_BYTE.bounds, sheet.column("first_byte_us"))
        observe(self.first_token, FIRST_TOKEN.bounds, sheet.column("first_token_us"))
