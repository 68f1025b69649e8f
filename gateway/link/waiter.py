"""A call that waits for the authority's word on its limits."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from gateway.core.errors import FaultError
from gateway.core.limit import Denial, Hold, LimitRule

Charges = tuple[tuple[Any, int], ...]  # of LeasedBucket and amount; Any, as the port knows only Bucket
Outcome = Hold | Denial | FaultError
Later = Callable[[float, Callable[[], None]], object]  # in so many seconds


def by_loop(delay: float, call: Callable[[], None]) -> object:
    """Call after `delay` seconds, by the running event loop."""
    return asyncio.get_running_loop().call_later(delay, call)


class Waiter:
    """`done` is called once with the outcome, unless the waiter is abandoned."""

    __slots__ = ("charges", "done", "id", "micros", "tokens", "until")

    def __init__(self, charges: Charges, tokens: int, micros: int, done: Callable[[Outcome], None]) -> None:
        self.id = 0
        self.charges = charges
        self.tokens = tokens
        self.micros = micros
        self.done = done
        self.until = 0.0  # seconds of the client's clock


def unavailable(rule: LimitRule) -> FaultError:
    """Nobody can say whether there is more."""
    message = f"the limit {rule.id} can't be checked now"
    return FaultError(message, code="gateway_limits_unavailable", retry_after=1.0)


def unanswered(charges: Charges) -> Denial:
    """Nobody said that there is more: as far as is known here, there is none."""
    bucket = next((bucket for bucket, amount in charges if bucket.free < amount), charges[0][0])
    return Denial(bucket.rule, bucket.value, max(bucket.free, 0), 1.0)
