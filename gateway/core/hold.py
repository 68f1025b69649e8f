"""What a call holds of its limits, and what it takes of each."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from gateway.core.limit import Bucket, Charges


class Bill:
    """Charges in two rows instead of in pairs: of many calls under way each keeps fewer objects.

    Leases `zip` the rows themselves: this one's iterator and zip's keyword take 3,000 instructions a call.
    """

    __slots__ = ("amounts", "buckets")

    def __init__(self, buckets: tuple[Any, ...], amounts: tuple[int, ...]) -> None:
        self.buckets = buckets
        self.amounts = amounts  # as many as there are buckets, or more

    def __iter__(self) -> Iterator[tuple[Bucket, int]]:
        return zip(self.buckets, self.amounts, strict=False)

    def __len__(self) -> int:
        return len(self.buckets)


class Hold:
    """A reservation of one call against all of its buckets, settled once.

    `tokens` (of them `output` generated ones) and `micros` are what was reserved; `charges` is opaque to all
    but the leases.
    """

    __slots__ = ("charges", "micros", "output", "settled", "tokens")

    def __init__(
        self, tokens: int, micros: int, charges: Charges = (), settled: bool = False, output: int = 0
    ) -> None:
        self.tokens = tokens
        self.micros = micros
        self.charges = charges
        self.settled = settled
        self.output = output
