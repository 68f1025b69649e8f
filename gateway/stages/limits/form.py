"""What terms have in common: the same rules over the same plan, whoever calls.

With 10,000 callers there are 10,000 terms, and each has left the caches when its caller comes again. So they
hold no more than what is their own, and all of them look at one form.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import itemgetter
from typing import Final, NamedTuple

from gateway.core.cost import Price
from gateway.core.limit import UNITS, Bucket
from gateway.core.ports import Leases
from gateway.stages.limits.told import Shown

REQUESTS, TOKENS, USD, CONCURRENT, INPUT, OUTPUT = range(len(UNITS))
_MEASURED: Final = frozenset((TOKENS, USD, INPUT, OUTPUT))


class Rates(NamedTuple):
    """The dearest prices of a plan's targets: 1e-6 micro-dollars a token, micro-dollars a call."""

    input: int = 0
    output: int = 0
    request: int = 0


class Form:
    """Of buckets in one order: what is said of a bucket is said of its place in `Terms.buckets`.

    `amounts` picks a call's amounts for the buckets out of those of all units (`core.limit.UNITS`).
    `measured` are the places, with that of their unit, of those that hold tokens or money and refuse what
    does not fit; `growing` those that a longer answer takes more of. `unpriced` are rules of money that the
    plan escapes, as a model in it has no price; `barred` is one of them that refuses such calls.
    """

    __slots__ = ("amounts", "barred", "growing", "measured", "priced", "rates", "shown", "unpriced")

    def __init__(self, buckets: Sequence[Bucket], prices: Sequence[Price | None], leases: Leases) -> None:
        units = [UNITS.index(bucket.rule.unit) for bucket in buckets]
        # Always of two or more, so that it gives a tuple; `zip` stops at the last bucket.
        self.amounts = itemgetter(*units, REQUESTS, REQUESTS)
        enforced = [pair for pair in enumerate(units) if buckets[pair[0]].rule.mode == "enforce"]
        told = ([place for place, unit in enforced if unit == u] for u in (REQUESTS, TOKENS))
        self.shown = tuple([Shown(leases, buckets, *places) for places in told if places])
        self.measured = tuple([pair for pair in enforced if pair[1] in _MEASURED])
        self.growing = tuple([pair for pair in enumerate(units) if pair[1] in _MEASURED and pair[1] != INPUT])
        self.priced = prices[0] is not None  # what the first target costs
        known = [price for price in prices if price is not None]
        self.rates = Rates(
            max([max(price.rates[:4]) for price in known], default=0),
            max([max(price.rates[4:]) for price in known], default=0),
            max([price.request for price in known], default=0),
        )
        rules = [bucket.rule for bucket, unit in zip(buckets, units, strict=True) if unit == USD]
        self.unpriced = tuple(dict.fromkeys(rules)) if None in prices else ()
        refusing = [rule for rule in self.unpriced if rule.unpriced == "refuse" and rule.mode == "enforce"]
        self.barred = refusing[0] if refusing else None
