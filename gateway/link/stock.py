"""All leases of one worker: what is in hand, what is reported, asked for and handed back.

See link/leases.py for the messages.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final
from weakref import WeakSet, WeakValueDictionary

from gateway.core.limit import LimitRule
from gateway.link.bucket import CLEAN, REQUESTS, LeasedBucket
from gateway.link.kept import KeptBucket
from gateway.link.waiter import Later

REPORT: Final = 0.1  # seconds between reports of what was used
# Seconds after which an unused lease goes back. Whoever is in want gets it before, by a recall; a caller who
# comes every few seconds need not ask each time.
IDLE: Final = 15.0
# Time is counted in eras; a bucket has stayed unused when so many have passed since the one it was used in.
_ERA: Final = IDLE / 2
_SHORT: Final = 2
# A lease that is little beside what is left stays for a minute: nobody lacks it, and callers who come now and
# then find it again. Not with so many buckets that the authority could come to its bound by them.
_LONG: Final = 8
_LITTLE: Final = 64
CROWDED: Final = 50_000
ANSWER: Final = 0.25  # seconds in which the authority is expected to answer


class Stock:
    """Buckets and the messages they cause; one event loop, no locks."""

    def __init__(
        self,
        send: Callable[[dict[str, Any]], None],
        clock: Callable[[], float],
        wall: Callable[[], float],
        later: Later,
        prompt: bool,
    ) -> None:
        self._send = send
        self._clock = clock
        self._wall = wall
        self._later = later
        self._prompt = prompt
        # All buckets somebody refers to; and those with a lease or something to report, kept alive.
        self._known: WeakValueDictionary[str, LeasedBucket] = WeakValueDictionary()
        self.raised: WeakSet[LeasedBucket] = WeakSet()  # those that have more than their rule's amount
        # Each of the latter stands once, under the era in which it is to be looked at.
        self._due: dict[int, list[LeasedBucket]] = {}
        self.size = 0  # how many buckets have a lease or something to report
        self.era = 0
        self._dirty: list[LeasedBucket] = []
        self._freed: dict[str, LeasedBucket] = {}
        self._asks: list[list[Any]] = []
        self._pumping = self._ticking = False
        self._era_began = 0.0

    def find(self, name: str) -> LeasedBucket | None:
        """The bucket of that name, if anybody still has it."""
        return self._known.get(name)

    def bucket(self, rule: LimitRule, value: str) -> LeasedBucket:
        """The bucket of a rule for one scope value; valid for good, the same object while anybody has it."""
        name = f"{rule.id}|{value}"
        bucket = self._known.get(name)
        if bucket is None:
            bucket = self._known[name] = KeptBucket(name, rule, value)
        elif bucket.rule is not rule:
            bucket.rule = rule
        return bucket

    def touch(self, bucket: LeasedBucket, amount: int) -> None:
        """The first request since a report, or the stock runs low."""
        bucket.era = self.era
        if bucket.low == CLEAN and bucket.kind == REQUESTS:
            if not bucket.dirty:
                bucket.dirty = True
                self._dirty.append(bucket)
            if not (bucket.live and self._ticking):
                self._keep(bucket)
            if bucket.free >= bucket.stock >> 1:
                bucket.low = bucket.stock >> 1
                return
        now = self._clock()
        bucket.low = 0
        if now < bucket.asking_until or now < bucket.denied.until or now < bucket.tight_until:
            return
        if bucket.free < bucket.stock // 2:
            bucket.asking_until = now + ANSWER
            want = bucket.appetite(amount, now)
            self.ask(0, [[bucket.name, 0, want, 0, *bucket.report()]])
        else:
            bucket.low = bucket.stock // 2

    def _keep(self, bucket: LeasedBucket) -> None:
        if not bucket.live:
            bucket.live = True
            if not self.size:  # nobody has counted eras meanwhile
                self._era_began = self._clock()
            self.size += 1
            self._look(bucket, self.era + _SHORT + 1)
        self._tick_later()

    def _look(self, bucket: LeasedBucket, era: int) -> None:
        due = self._due.get(era)
        if due is None:
            due = self._due[era] = []
        due.append(bucket)

    def give(self, bucket: LeasedBucket, units: int) -> None:
        """Something was settled, and `units` became free."""
        bucket.era = self.era
        if not bucket.dirty:
            bucket.dirty = True
            self._dirty.append(bucket)
        if not (bucket.live and self._ticking):
            self._keep(bucket)
        if not bucket.tight_until:
            return
        if self._clock() >= bucket.tight_until:
            bucket.tight_until = 0.0
        elif units > 0:
            self._freed[bucket.name] = bucket
            self._soon()

    def ask(self, number: int, needs: list[list[Any]]) -> None:
        """Put a question to the authority; 0 for stock only."""
        self._asks.append([number, needs])
        self._soon()

    def need(self, bucket: LeasedBucket, amount: int, now: float) -> list[Any]:
        """A call's need of one bucket, as it stands in an ask; what is here goes with it."""
        free = bucket.free
        # What goes with it is the authority's again: its refusal tells only of what was lacking.
        if free >= amount:
            bucket.add(-amount)
            bucket.left += amount
            return [bucket.name, amount, amount, amount, *bucket.report()]
        want = amount
        if now >= bucket.asking_until:
            want += bucket.appetite(amount, now)
            bucket.asking_until = now + ANSWER
        bucket.add(-free)
        bucket.left += free
        return [bucket.name, amount, want, free, *bucket.report()]

    # ------------------------------------------------------------------ the authority's word

    def granted(self, answers: list[list[Any]], waited: bool) -> None:
        """Units have come. What nobody waits for may be in want elsewhere."""
        now = self._clock()
        for answer in answers:
            bucket = self._known.get(answer[0])
            if bucket is None:
                self._post({"t": "return", "units": [[answer[0], answer[1], 0, 0]], "recall": False})
                continue
            bucket.granted(answer, now)
            self._raise(bucket, answer[5])
            bucket.era = self.era
            self._keep(bucket)
            if not waited and answer[1] and now < bucket.tight_until:
                self.give(bucket, answer[1])

    def denied(self, answers: list[list[Any]]) -> None:
        """There is not so much left."""
        now = self._clock()
        for answer in answers:
            if bucket := self._known.get(answer[0]):
                bucket.refused(answer, now)
                self._raise(bucket, answer[4])

    def hear(self, told: Mapping[str, Any]) -> None:
        """Refusals to forget, how buckets stand, and what they have on top of their rule's amount."""
        for name in told.get("open", ()):
            if bucket := self._known.get(name):
                bucket.denied = bucket.denied._replace(until=0.0)
        for name, units in told.get("left", ()):
            if bucket := self._known.get(name):
                bucket.left = units
        for name, units in told.get("raised", ()):
            if bucket := self._known.get(name):
                self._raise(bucket, units)

    def _raise(self, bucket: LeasedBucket, more: int) -> None:
        if more != bucket.raised:
            bucket.raised = more
            (self.raised.add if more else self.raised.discard)(bucket)

    def recall(self, names: list[str], tight: float) -> None:
        """Somebody else is in want: hand back what is unused, now and for `tight` seconds."""
        now, units = self._clock(), []
        for name in names:
            bucket = self._known.get(name)
            if bucket is None:
                units.append([name, 0, 0, 0])
                continue
            bucket.tight_until = now + tight
            units.append(self._handed_back(bucket))
        self._post({"t": "return", "units": units, "recall": True})

    def _handed_back(self, bucket: LeasedBucket) -> list[Any]:
        units = bucket.free
        used, over = bucket.report()
        bucket.add(-units)
        return [bucket.name, units, used, over]

    def _post(self, message: dict[str, Any]) -> None:
        message["at"] = int(self._wall() * 1000)
        self._send(message)

    def _soon(self) -> None:
        if self._prompt:
            self._pump()
        elif not self._pumping:
            self._pumping = True
            self._later(0.0, self._pump)

    def _pump(self) -> None:
        self._pumping = False
        if self._freed:
            freed, self._freed = self._freed, {}
            units = [self._handed_back(bucket) for bucket in freed.values()]
            self._post({"t": "return", "units": units, "recall": False})
        if self._asks:
            asks, self._asks = self._asks, []
            self._post({"t": "ask", "asks": asks})

    # ------------------------------------------------------------------ the clock

    def _tick_later(self) -> None:
        if not self._ticking:
            self._ticking = True
            self._later(REPORT, self._tick)

    def _tick(self) -> None:
        self._ticking = False
        self._report()
        now = self._clock()
        if now - self._era_began >= _ERA:
            self._era_began = now
            self.era += 1
            self._sweep(self._due.pop(self.era, []))
        if self.size:
            self._tick_later()

    def _report(self) -> None:
        dirty, self._dirty = self._dirty, []
        used = []
        for bucket in dirty:
            bucket.dirty = False
            spent, over = bucket.spent, bucket.over  # as `report` does
            if bucket.kind == REQUESTS:
                bucket.low = CLEAN
                spent, bucket.base = bucket.base - bucket.free, bucket.free
            if spent or over:
                bucket.spent = bucket.over = 0
                used.append((bucket.name, spent, over))
        if used:
            self._post({"t": "used", "used": used})

    def _sweep(self, due: list[LeasedBucket]) -> None:
        """Give back what nobody has used for a while."""
        era, crowded, idle = self.era, self.size > CROWDED, []
        for bucket in due:
            little = 0 < bucket.free * _LITTLE <= bucket.left and not crowded
            until = bucket.era + (_LONG if little else _SHORT) + 1
            if until > era:
                self._look(bucket, until)
            else:
                idle.append(bucket)
                bucket.live = False
        self.size -= len(idle)
        units = [self._handed_back(bucket) for bucket in idle if bucket.free]
        if units:
            self._post({"t": "return", "units": units, "recall": False})
