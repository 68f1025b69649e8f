"""Calls that wait for the authority's word on their limits."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any

from gateway.core.errors import FaultError
from gateway.core.hold import Hold
from gateway.core.limit import Denial, LimitRule

Charges = Iterable[tuple[Any, int]]  # of LeasedBucket and amount; Any, as the port knows only Bucket
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


class Impatience:
    """Ends the waiting of those in `waiters` who have no answer in time. One timer does for all."""

    def __init__(
        self,
        waiters: dict[int, Waiter],
        clock: Callable[[], float],
        later: Later,
        give_up: Callable[[Waiter], None],
    ) -> None:
        self._waiters = waiters
        self._clock = clock
        self._later = later
        self._give_up = give_up
        self._looking = False

    def begin(self, waiter: Waiter, seconds: float) -> None:
        """So long may it wait."""
        now = self._clock()
        waiter.until = now + seconds
        self._look_at(waiter.until, now)

    def _look_at(self, at: float, now: float) -> None:
        if not self._looking:
            self._looking = True
            self._later(max(at - now, 0.001), self._look)

    def _look(self) -> None:
        self._looking, now = False, self._clock()
        for waiter in [each for each in self._waiters.values() if each.until <= now]:
            if self._waiters.pop(waiter.id, None):
                self._give_up(waiter)
        if self._waiters:
            self._look_at(min([waiter.until for waiter in self._waiters.values()]), now)


def unavailable(rule: LimitRule) -> FaultError:
    """Nobody can say whether there is more."""
    message = f"the limit {rule.id} can't be checked now"
    return FaultError(message, code="gateway_limits_unavailable", retry_after=1.0)


def unanswered(charges: Charges) -> Denial:
    """Nobody said that there is more: as far as is known here, there is none."""
    bucket = next((bucket for bucket, amount in charges if bucket.free < amount), next(iter(charges))[0])
    return Denial(bucket.rule, bucket.value, max(bucket.free, 0), 1.0)
