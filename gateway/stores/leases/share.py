"""What one replica has of a bucket that several share: its lease from the store, and what it was told."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from gateway.core.limit import LimitRule
from gateway.stores.leases.window import Window, bounds
from gateway.stores.leases.windows import carried, part_of

if TYPE_CHECKING:
    from gateway.stores.leases.upstream import Upstream

LEASE = 10.0  # seconds for which the store lets a replica have units
MARGIN = 0.5  # a replica believes in a lease for so much less
RENEW = 4.0  # seconds after which a lease is renewed
WAIT = 0.4  # seconds in which other replicas are to hand back what they don't use
POLL = 0.04  # seconds between two looks whether they have
TIGHT = 1.5  # seconds a replica hands back what becomes free, once others are in want
DRY = 1.2  # seconds for which the store relies on that
IDLE = 2.0  # seconds after which unused units go back
REFUSED = {"requests": 1.0}  # seconds a refusal is remembered here
_REFUSED = 0.05


class Reply(NamedTuple):
    """The store's answer about one bucket; amounts in the rule's unit, times in seconds.

    `status`: "ok"; "unknown": it has never heard of this replica there and wants to know what it has used;
    "stale": the question was overtaken by a later one; "period": the calendar's bounds were too old.
    `left` is what nobody has, below 0 after overruns; `others` are replicas that may have something unused.
    `orphan` are units that this replica's last life had, and `since` when it last reported (store's time).
    """

    status: str
    granted: int = 0
    left: int = 0
    retry: float = 0.0
    others: int = 0
    used: int = 0
    near: bool = False
    reached: bool = False
    orphan: int = 0
    since: float = 0.0


class Share:
    """The replica's side of one bucket; every time is of the authority's clock.

    `lease` is what the store has granted and nobody has used yet, at workers or here. `used` only grows:
    the store takes its difference to what it knows, so that a question asked twice counts once.
    """

    __slots__ = (
        "acknowledged", "adopt", "asked_at", "asking", "boot", "hungry", "lease", "left", "life", "met",
        "orphaned", "period", "places", "recalled_at", "refused_left", "refused_until", "reported_at",
        "retry_at", "rival", "room", "sequence", "spare", "stock", "tight_until", "until", "upstream",
        "used", "used_at", "waiting_since",
    )  # fmt: skip

    def __init__(self, upstream: Upstream, boot: str, left: int) -> None:
        self.upstream = upstream
        self.boot = boot  # of this object's life, as the store knows it
        self.lease = 0
        self.until = 0.0  # when the lease ends, if it is not renewed
        self.used = 0
        self.acknowledged = 0  # of `used`, what the store has surely counted
        self.met = False  # whether the store knows this replica there
        self.sequence = 0  # of questions; what comes after a later one is void
        self.asking = False  # a question is under way
        self.hungry = 0  # to be asked for, for the near future
        self.stock = 0
        self.asked_at = 0.0
        self.used_at = 0.0  # when workers last wanted units
        self.reported_at = 0.0
        self.left = left  # at the store, when it last said so
        self.room = left  # what fits at most
        self.retry_at = 0.0
        self.refused_until = 0.0
        self.refused_left = 0
        self.waiting_since = 0.0  # for other replicas; 0.0: not
        self.recalled_at = 0.0  # when they were last asked to hand back
        self.tight_until = 0.0  # others are in want: what becomes free goes back
        self.rival = ""  # the ticket of the other's call
        self.spare: Window | None = None  # beyond the lease, while the store is lost: of all outages
        self.places = 0  # the same, of calls at once
        self.life = 0  # the outage for which these are
        self.adopt: int | None = None  # what this replica's last life had used of its lease
        self.orphaned = False  # that is being found out
        self.period: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)

    @property
    def busy(self) -> bool:
        """Whether the store has units here, or has not heard of all that was used."""
        return bool(self.lease or self.used != self.acknowledged or self.asking)

    # -- what there is

    def unleased(self, leased: int, rule: LimitRule, amount: int, now: float, own: Window | None) -> int:
        """Units that workers may have, where they have `leased` already. `own` is this replica's use."""
        lease = self.lease if now < self.until else min(self.lease, leased)
        if not self.upstream.lost:
            return lease - leased
        return lease - leased + self._spare_room(rule, amount, now, own)

    def _spare_room(self, rule: LimitRule, amount: int, now: float, own: Window | None) -> int:
        upstream = self.upstream
        if rule.on_store_loss != "local":
            return 0
        if self.life != upstream.outages:
            self.life = upstream.outages
            # What outages before have used of it counts: many of them give no more than one. After a start
            # nobody knows what was used in one: then all counts that this replica has used.
            before = self.spare or (own if upstream.outages == 1 else None)
            part = part_of(rule, amount, upstream.replicas)
            self.spare = carried(part, before, self._at(rule, now))
            self.places = 0 if self.spare else amount // max(upstream.replicas, 1)
        return self.spare.room(self._at(rule, now)) if self.spare else self.places

    def _at(self, rule: LimitRule, now: float) -> float:
        return self.upstream.wall() if rule.calendar else now

    def spare_retry(self, need: int, rule: LimitRule, now: float) -> float:
        """Seconds until the local part alone has room for `need`; a second where nobody knows."""
        if self.spare is None or rule.on_store_loss != "local":
            return 1.0
        at = self._at(rule, now)
        retry = self.spare.retry_at(need, at)
        return 1.0 if retry == math.inf else max(retry - at, 0.001)

    # -- what happens to it

    def use(self, used: int, over: int, rule: LimitRule, now: float) -> None:
        """A worker's report: of its lease, and beyond."""
        self.used += used + over
        beyond = max(used - self.lease, 0)
        self.lease -= used - beyond
        if beyond and self.spare is not None and self.upstream.lost:
            self.spare.charge(self._at(rule, now), beyond)

    def reshape(self) -> None:
        """The rule counts in another window from now on."""
        self.spare, self.life = None, 0

    def recover(self, leased: int) -> None:
        """The store answers again: what workers have is on lease, granted or not."""
        self.lease = max(self.lease, leased)
        self.places = 0
        self.refused_until = self.waiting_since = 0.0
        self.asking = False

    def appetite(self, wanted: int, now: float) -> int:
        """What to ask for beyond the need, settling where a second brings one to three questions."""
        since, self.asked_at = now - self.asked_at, now
        if since < 0.35 or not self.stock:
            self.stock = max(2 * self.stock, wanted)
        elif since > 1.2:
            self.stock = max(self.stock // 2, wanted)
        # All replicas together keep a quarter in hand at most: what is idle in one is wanted in another.
        self.stock = min(self.stock, max(self.room // (4 * max(self.upstream.replicas, 1)), 1))
        return self.stock

    def refuses(self, short: int, now: float) -> bool:
        """Whether the store has lately said that there is not so much left."""
        return now < self.refused_until and short > self.refused_left

    def refuse(self, unit: str, now: float) -> None:
        """Remember that there is no more."""
        memory = REFUSED.get(unit, _REFUSED)
        self.refused_until = now + max(min(memory, self.retry_at - now), 0.001)
        self.refused_left = self.left
        self.waiting_since = 0.0

    def granted(self, reply: Reply, now: float) -> None:
        """The store's answer."""
        self.lease += reply.granted
        self.left = reply.left
        self.room = max(reply.left + reply.used, 1)
        self.retry_at = now + reply.retry
        if reply.granted:
            self.refused_until = self.waiting_since = 0.0
        elif reply.left > self.refused_left:
            self.refused_until = 0.0  # else workers hear of more than they are given, and ask without end

    def bounds_at(self, rule: LimitRule, wall: float) -> Sequence[float]:
        """The calendar period at `wall`, the one before and the one after, as four borders."""
        if not self.period[1] <= wall < self.period[2]:
            start, end = bounds(rule.calendar, wall, rule.zone)
            before, after = bounds(rule.calendar, start - 1, rule.zone), bounds(rule.calendar, end, rule.zone)
            self.period = (before[0], start, end, after[1])
        return self.period
