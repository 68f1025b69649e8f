"""The worker's side of limits: takes from local leases, asks the authority when they run out.

Messages (a bucket's name is "rule id|scope value"; those to the authority have `at`, the epoch ms up to
which they report what was used):

    to the authority    ask     asks: [[id, [[name, need, want, deposit, used, over]…]]…]   id 0: stock only
                        used    used: [[name, used, over]…]
                        return  units: [[name, units, used, over]…], recall: whether it answers one
    from the authority  grant   answers: [[id, true, [[name, units, left, tight, memory, raised]…]]
                                         | [id, false, [[name, left, retry, memory, raised]…]]…]
                                open: [name…]   refusals to forget;  left, raised: [[name, units]…]
                        recall  names: [name…], tight: seconds
                        store   lost: whether the store that replicas share does not answer

An ask is one transaction over all buckets of a call. What the worker has towards it is deposited with it,
so that the authority alone decides, in the order in which asks come: two workers that each hold
half of what both need can't take turns for ever, and nothing is held while somebody waits.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from gateway.core.errors import FaultError
from gateway.core.hold import Bill, Hold
from gateway.core.limit import Denial, LimitRule, Standing
from gateway.link.bucket import REQUESTS, LeasedBucket, Rows
from gateway.link.standing import Standings
from gateway.link.stock import Stock
from gateway.link.waiter import Charges, Impatience, Later, Outcome, Waiter, by_loop, unanswered, unavailable
from gateway.stores.leases import Authority

PATIENCE: Final = 1.0  # seconds a call waits for the authority
MOST_WAITING: Final = 4096  # calls that may wait at once


class LeaseClient:
    """Implements `core.ports.Leases`; one event loop, no locks.

    `counts` is `Parts.counts`: ("limits", rule id, "shadow") counts what a shadow rule would have refused,
    ("limits", rule id, "unchecked") what was admitted while the authority did not answer. `prompt` sends
    each message at once (a link without latency).
    """

    def __init__(
        self,
        send: Callable[[dict[str, Any]], None],
        clock: Callable[[], float] = time.monotonic,
        *,
        counts: dict[tuple[str, ...], float] | None = None,
        later: Later = by_loop,
        wall: Callable[[], float] = time.time,
        prompt: bool = False,
    ) -> None:
        self._clock = clock
        self._stock = Stock(send, clock, wall, later, prompt)
        self._standings = Standings(wall)
        self._touch = self._stock.touch
        self.counts = {} if counts is None else counts
        self.degraded = False  # the store that replicas share is lost: `on_store_loss` holds
        self.unusual = False
        self._waiters: dict[int, Waiter] = {}
        self._impatience = Impatience(self._waiters, clock, later, self._give_up)
        self._last_id = 0

    # ------------------------------------------------------------------ the port

    def bucket(self, rule: LimitRule, value: str) -> LeasedBucket:
        """The bucket of a rule for one scope value; valid for good, the same object while anybody has it."""
        return self._stock.bucket(rule, value)

    def try_take(self, charges: Charges, tokens: int = 0, micros: int = 0) -> Hold | Denial | None:
        """All or nothing from what is leased here; a remembered refusal; or None: `take` must ask.

        FaultError where what is leased is all there is: the shared store is lost, and the rule says "closed".
        """
        low: list[tuple[LeasedBucket, int]] | None = None
        pairs: Rows = zip(charges.buckets, charges.amounts) if type(charges) is Bill else charges  # noqa: B905
        for bucket, amount in pairs:
            bucket.free = free = bucket.free - amount
            if free < bucket.low:
                if free < 0:
                    _untake(charges, bucket)
                    return self._short(charges, tokens, micros)
                if low is None:
                    low = [(bucket, amount)]
                else:
                    low.append((bucket, amount))
        if low is not None:
            for bucket, amount in low:
                self._touch(bucket, amount)
        return Hold(tokens, micros, charges)

    async def take(self, charges: Charges, tokens: int = 0, micros: int = 0) -> Hold | Denial:
        """All or nothing, asking the authority for what is missing; at most `PATIENCE` seconds.

        Without an answer in time: admitted when each rule that is short here says
        `on_store_loss = "open"` (or is in shadow mode), else FaultError.
        """
        taken = self.try_take(charges, tokens, micros)
        if taken is not None:
            return taken
        future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        waiter = self.ask(charges, tokens, micros, lambda outcome: self._deliver(future, outcome))
        try:
            outcome = await future
        except asyncio.CancelledError:
            self.abandon(waiter)
            if not future.cancelled():
                self._drop(future.result())
            raise
        if isinstance(outcome, FaultError):
            raise outcome
        return outcome

    def top_up(self, hold: Hold, charges: Charges, done: Callable[[Denial | None], None]) -> None:
        """Add to a hold, all or nothing; see `core.ports.Leases`."""

        def took(outcome: Outcome) -> None:
            if not isinstance(outcome, Hold):
                done(outcome if isinstance(outcome, Denial) else unanswered(charges))
                return
            if hold.settled:
                self.release(outcome)
            else:
                more = {id(bucket): amount for bucket, amount in outcome.charges}
                hold.charges = tuple([(b, amount + more.get(id(b), 0)) for b, amount in hold.charges])
            done(None)

        try:
            taken: Outcome | None = self.try_take(charges)
        except FaultError as error:
            taken = error
        if taken is not None:
            took(taken)
        else:
            self.ask(charges, 0, 0, took)

    def settle(self, hold: Hold, tokens: int, micros: int, input: int = 0, output: int = 0) -> None:
        """Turn the hold into what was really used; once, later calls do nothing."""
        if hold.settled:
            return
        hold.settled = True
        charges: Charges = hold.charges
        amounts = (0, tokens, micros, 0, input, output)  # by kind
        era = self._stock.era
        pairs: Rows = zip(charges.buckets, charges.amounts) if type(charges) is Bill else charges  # noqa: B905
        for bucket, held in pairs:
            kind = bucket.kind
            if kind == REQUESTS:
                continue
            used = amounts[kind]
            bucket.era = era
            if used <= held:
                bucket.spent += used
                bucket.free += held - used
            else:
                bucket.overrun(held, used)
            if bucket.tight_until or not bucket.live or (used and not bucket.dirty):
                self._stock.give(bucket, held - used)

    def standing(self, bucket: Any) -> Standing:
        """How a bucket stands as far as is known here; see `standing.Standings`."""
        return self._standings.of(bucket)

    @property
    def buckets(self) -> int:
        """How many buckets have a lease or something to report."""
        return self._stock.size

    # ------------------------------------------------------------------ waiting

    def ask(self, charges: Charges, tokens: int, micros: int, done: Callable[[Outcome], None]) -> Waiter:
        """Have the authority decide; `done` is called once, perhaps before this returns."""
        waiter = Waiter(charges, tokens, micros, done)
        if len(self._waiters) >= MOST_WAITING:
            done(self._without_answer(waiter))
        else:
            self._impatience.begin(waiter, PATIENCE)
            self._enquire(waiter)
        return waiter

    def abandon(self, waiter: Waiter) -> None:
        """Nobody waits any more: what is granted later becomes free."""
        self._waiters.pop(waiter.id, None)

    def release(self, hold: Hold) -> None:
        """Undo a hold that nobody used; its request too, unless that is already reported."""
        charges: Charges = hold.charges
        for bucket, held in charges:
            if bucket.kind == REQUESTS and not hold.settled and bucket.untake(held):
                self._stock.give(bucket, held)
        self.settle(hold, 0, 0)

    def _deliver(self, future: asyncio.Future[Outcome], outcome: Outcome) -> None:
        if future.done():  # cancelled a moment ago
            self._drop(outcome)
        else:
            future.set_result(outcome)

    def _drop(self, outcome: Outcome) -> None:
        if isinstance(outcome, Hold):
            self.release(outcome)

    def _enquire(self, waiter: Waiter) -> None:
        self._last_id = waiter.id = self._last_id + 1
        self._waiters[waiter.id] = waiter
        now = self._clock()
        # Of what it takes nothing of (money without a price) there is enough also where it is overdrawn.
        needs = [self._stock.need(each, amount, now) for each, amount in waiter.charges if amount > 0]
        self._stock.ask(waiter.id, needs)

    def _give_up(self, waiter: Waiter) -> None:
        waiter.done(self._without_answer(waiter))

    def _without_answer(self, waiter: Waiter) -> Hold | FaultError:
        for bucket, amount in waiter.charges:
            if bucket.free < amount and not bucket.shadow and bucket.rule.on_store_loss != "open":
                return unavailable(bucket.rule)
        return self._overdraw(waiter.charges, waiter.tokens, waiter.micros, "unchecked")

    # ------------------------------------------------------------------ off the fast path

    def _short(self, charges: Charges, tokens: int, micros: int) -> Hold | Denial | None:
        now, unknown = self._clock(), False
        for bucket, amount in charges:
            if bucket.free >= amount:
                continue
            if not bucket.refuses(amount, now) or (self.degraded and bucket.rule.on_store_loss == "open"):
                unknown = True  # never refused, or not any more
            elif self.degraded and bucket.rule.on_store_loss == "closed" and not bucket.shadow:
                raise unavailable(bucket.rule)
            elif not bucket.shadow:
                denial: Denial = bucket.denial(now)
                return denial
        return None if unknown else self._overdraw(charges, tokens, micros, "shadow")

    def _overdraw(self, charges: Charges, tokens: int, micros: int, why: str) -> Hold:
        held = []
        for bucket, amount in charges:
            if bucket.free >= amount:
                bucket.free -= amount
                held.append((bucket, amount))
            else:
                key = ("limits", bucket.rule.id, why)
                self.counts[key] = self.counts.get(key, 0) + 1
                bucket.over += amount if bucket.kind == REQUESTS else 0
                held.append((bucket, 0))
            self._touch(bucket, amount)
        return Hold(tokens, micros, tuple(held))

    # ------------------------------------------------------------------ the link

    def receive(self, message: dict[str, Any]) -> None:
        """A `grant`, `recall` or `store` from the authority."""
        if message["t"] == "store":
            self.degraded = message["lost"]
        elif message["t"] == "recall":
            self._stock.recall(message["names"], message["tight"])
        else:
            self._stock.hear(message)
            self._answered(message.get("answers", ()))
        self.unusual = self.degraded or len(self._stock.raised) > 0

    def _answered(self, answered: Iterable[Sequence[Any]]) -> None:
        for number, granted, answers in answered:
            waiter = self._waiters.pop(number, None)
            self._stock.granted(answers, waiter is not None) if granted else self._stock.denied(answers)
            if waiter:
                self._conclude(waiter)

    def _conclude(self, waiter: Waiter) -> None:
        try:
            outcome: Outcome | None = self.try_take(waiter.charges, waiter.tokens, waiter.micros)
        except FaultError as error:
            outcome = error
        # None: something became free here meanwhile; ask again, this time with it.
        self._enquire(waiter) if outcome is None else waiter.done(outcome)


def _untake(charges: Charges, last: LeasedBucket) -> None:
    """Undo a take that came as far as this bucket, and of which nobody has heard."""
    for bucket, amount in charges:
        bucket.free += amount
        if bucket is last:
            return


def local(authority: Authority, counts: dict[tuple[str, ...], float] | None = None) -> LeaseClient:
    """A client in the authority's own process, for a server that is one process; no messages wait."""

    def send(message: dict[str, Any]) -> None:
        for _, answer in authority.receive(0, message):
            client.receive(answer)

    client = LeaseClient(send, counts=counts, prompt=True)
    return client
