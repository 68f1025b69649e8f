"""One bucket as the authority keeps it: its window, and what is leased to whom."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator

from gateway.core.limit import UNITS, LimitRule
from gateway.stores.leases.ask import Ask
from gateway.stores.leases.share import TIGHT, Share
from gateway.stores.leases.threshold import Threshold
from gateway.stores.leases.window import CalendarWindow
from gateway.stores.leases.windows import window_of

# Seconds a worker may refuse by itself what was refused once. Settles free tokens, money and places at
# any time, requests come back by the window alone; either way a refusal is called off when room appears.
MEMORY = {unit: 1.0 if unit == "requests" else 0.05 for unit in UNITS}


class Lease:
    """Units leased to one worker. `since` (epoch ms): use from then on may not have been reported yet."""

    __slots__ = ("since", "units")

    def __init__(self, since: int) -> None:
        self.units = 0
        self.since = since


class Account:
    """used + leased ≤ limit, but for overruns and lowered limits. Times are the authority's clock.

    `amount` is the rule's with the raises in force. With a `share` the limit is kept by the store that
    replicas share: then `left` is what this replica has from there, and the window counts its own use alone.
    """

    __slots__ = (
        "_leased",
        "_now",
        "_steady",
        "amount",
        "denied",
        "dry",
        "leases",
        "name",
        "orphans",
        "queue",
        "recalls",
        "rule",
        "share",
        "threshold",
        "value",
        "window",
    )

    def __init__(
        self,
        name: str,
        rule: LimitRule,
        value: str,
        now: Callable[[], float],
        raised: int = 0,
        steady: Callable[[], float] | None = None,
    ) -> None:
        self.name = name
        self.rule = rule
        self.value = value
        self.amount = rule.amount + raised
        self._now = now  # the window's clock: epoch for calendar windows, steady for the others
        self._steady = steady or now
        self.window = window_of(rule, self.amount)
        self.threshold = Threshold()
        self.share: Share | None = None
        self.leases: dict[int, Lease] = {}
        self.orphans: dict[int, int] = {}  # units of dead workers, until they are recounted
        self._leased = 0
        self.queue: deque[Ask] = deque()  # undecided, oldest first
        self.recalls: dict[int, float] = {}  # worker → when it was asked to hand back
        self.dry: dict[int, float] = {}  # worker → until when it has nothing unused
        self.denied: dict[
            int, tuple[float, int]
        ] = {}  # worker → until when it refuses, and the `left` it knows

    @property
    def leased(self) -> int:
        """Units at workers, orphans included."""
        return self._leased

    @property
    def most(self) -> int:
        """The largest need that ever fits."""
        return self.window.most if self.window else self.amount

    @property
    def raised(self) -> int:
        """What the raises in force add to the rule's amount."""
        return self.amount - self.rule.amount

    @property
    def used(self) -> int:
        """What the window counts."""
        return self.window.used(self._now()) if self.window else 0

    @property
    def whole_in(self) -> float:
        """Seconds until nothing that was used here counts any more."""
        now = self._now()
        return max(self.window.whole_at(now) - now, 0.0) if self.window else 0.0

    @property
    def left(self) -> int:
        """What may still be leased; below 0 after an overrun or a lowered limit."""
        if self.share is not None:
            return self.share.unleased(self._leased, self.rule, self.amount, self._steady(), self.window)
        return self.most - self.used - self._leased

    @property
    def told(self) -> int:
        """What is left as far as is known here, at the store as well."""
        share = self.share
        return self.left if share is None or share.upstream.lost else self.left + max(share.left, 0)

    @property
    def unchecked(self) -> bool:
        """Whether calls pass uncounted now, as the rule wants it while the store is lost."""
        return self.share is not None and self.share.upstream.lost and self.rule.on_store_loss == "open"

    def empty(self, now: float) -> bool:
        """Whether forgetting it loses nothing."""
        if self._leased or self.queue or self.recalls or self.used:
            return False
        if self.share is not None and self.share.busy:
            return False
        return all(until <= now for until, _ in self.denied.values())

    def grant(self, worker: int, units: int, since: int) -> None:
        """Lease units to a worker."""
        if units:
            lease = self.leases.get(worker)
            if lease is None:
                lease = self.leases[worker] = Lease(since)
            lease.units += units
            self._leased += units

    def take_back(self, worker: int, units: int, used: int, over: int, since: int) -> None:
        """A worker's report: units it no longer has, units it used, and use beyond its lease."""
        lease = self.leases.get(worker)
        if lease is not None:
            gone = min(units + used, lease.units)
            lease.units -= gone
            lease.since = since
            self._leased -= gone
            if not lease.units:
                del self.leases[worker]
        if self.window and used + over > 0:
            self.window.charge(self._now(), used + over)
            if self.share is not None:
                self.share.use(used, over, self.rule, self._steady())

    def orphan(self, worker: int, token: int) -> Lease | None:
        """A worker has died: what it may have used still counts until `adopt`; places are free at once."""
        self.recalls.pop(worker, None)
        self.dry.pop(worker, None)
        self.denied.pop(worker, None)
        lease = self.leases.pop(worker, None)
        if lease is None or self.window is None:
            self._leased -= lease.units if lease else 0
            return None
        self.orphans[token] = lease.units
        return lease

    def adopt(self, token: int, used: int) -> None:
        """The orphaned lease had `used` of it used."""
        units = self.orphans.pop(token, 0)
        self._leased -= units
        if self.window and units:
            used = min(max(used, 0), units)
            self.window.charge(self._now(), used)
            if self.share is not None:
                self.share.use(used, 0, self.rule, self._steady())

    def replace(self, rule: LimitRule, raised: int) -> bool:
        """The rule or its raises have changed. Whether what was counted stays: not for another window."""
        before, self.rule, most = self.rule, rule, self.most
        self.amount = rule.amount + raised
        same = _shape(before) == _shape(rule)
        if not same:
            self.window = window_of(rule, self.amount)
            if self.share is not None:
                self.share.reshape()
        elif self.window:
            self.window.limit = self.amount
        if self.share is not None:
            self.share.left += self.most - most
            self.share.room = max(self.share.room + self.most - most, 1)
        return same

    def lacks(self, need: int) -> bool:
        """Whether there is not so much: not only here, but anywhere."""
        share = self.share
        if need <= max(self.left, 0):  # nothing can be taken of what is overdrawn, too
            return False
        if share is None or share.upstream.lost or need > self.most:
            return True
        return share.refuses(need - self.left, self._steady())

    def near(self) -> int | None:
        """What is used, when that has just crossed the share at which an event is wanted."""
        if not self.window or not self.rule.warn or (self.share and not self.share.upstream.lost):
            return None
        now, used = self._now(), self.used
        crossed = self.threshold.near(used, self.rule.warn * self.most, now, self._length(now))
        return used if crossed else None

    def reached(self) -> bool:
        """Whether a refusal now is the first in its window. Where the store keeps the limit, it says so."""
        if self.share is not None and not self.share.upstream.lost:
            return False
        now = self._now()
        return self.threshold.reached(now, self._length(now))

    def _length(self, now: float) -> float:
        window = self.window
        return window.end - now if isinstance(window, CalendarWindow) else self.rule.seconds or 60.0

    def contested(self, worker: int, now: float) -> float:
        """Seconds for which some other worker is in want; 0.0 when none is."""
        until = max((t for w, (t, _) in self.denied.items() if w != worker), default=0.0)
        if self.queue:
            until = max(until, now + TIGHT)
        if self.share is not None:
            until = max(until, self.share.tight_until)
        return max(until - now, 0.0)

    def to_recall(self, asker: int, now: float) -> Iterator[int]:
        """Workers that may have unused units and have not been asked for them yet."""
        for worker in self.leases:
            if worker != asker and worker not in self.recalls and self.dry.get(worker, 0.0) <= now:
                yield worker

    def retry_in(self, need: int) -> float:
        """Seconds until the window alone makes room for `need`.

        Where that depends on calls under way: until it would without them, at least a second. Where
        `need` is above the limit: until the window is whole.
        """
        window, share = self.window, self.share
        if share is not None:
            now = self._steady()
            if share.upstream.lost:
                return share.spare_retry(need, self.rule, now)
            return max(share.retry_at - now, 0.001)
        if window is None:
            return 1.0
        now = self._now()
        at = window.retry_at(need + self._leased, now)
        if at == math.inf:
            at = window.retry_at(need, now) if need <= window.most else window.whole_at(now)
            at = max(at, now + 1.0)
        return at - now


def _shape(rule: LimitRule) -> tuple[object, ...]:
    return (rule.unit, rule.seconds, rule.calendar, rule.zone, rule.burst)
