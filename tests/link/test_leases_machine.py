"""Limits under everything at once: any order of messages, lost workers, changed limits, leaving callers.

Each direction of each link delivers in order; nothing else is promised. The truth is kept beside: what
was admitted when, and what each call really used.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from gateway.core.errors import FaultError
from gateway.core.limit import Denial, LimitRule, Spent
from gateway.link.bucket import REQUESTS
from gateway.link.leases import LeaseClient
from gateway.link.stock import IDLE
from gateway.stores.leases import Orphan, bounds
from tests.link.world import Call, World
from tests.link.world import rule as limit

LIMITS = (
    limit("requests", 5, 60.0, id="requests"),
    limit("tokens", 20, 10.0, id="tokens"),
    limit("usd", 30, id="usd", calendar="minute"),
    limit("concurrent", 3, id="concurrent"),
    limit("output_tokens", 25, 10.0, id="output_tokens"),
)
UNITS = [each.unit for each in LIMITS]
HELD = ("tokens", "usd", "output_tokens")
REPORT_TIME = 0.1


@dataclass
class Made:
    """One call and what became of it."""

    worker: int
    call: Call
    charges: tuple[tuple[LimitRule, str, int], ...]
    admitted_at: float = 0.0
    settled_at: float | None = None
    used: int = 0
    dead: bool = False

    @property
    def open(self) -> bool:
        return self.call.admitted and self.settled_at is None and not self.dead


class LimitsMachine(RuleBasedStateMachine):
    """Three workers, four limits, two scope values."""

    changes = False  # whether limits are changed under way
    overruns = False  # whether calls use more than they hold

    @initialize(count=st.integers(1, 3))
    def begin(self, count: int) -> None:
        self.world = World(LIMITS, count)
        self.rules = {each.id: each for each in LIMITS}
        self.most = {each.id: each.amount for each in LIMITS}
        self.made: list[Made] = []
        self.waiting: list[Made] = []
        self.orphans: list[tuple[Orphan, float]] = []
        self.numbers = count

    # ------------------------------------------------------------------ what callers do

    @rule(
        worker=st.integers(0, 9),
        amounts=st.dictionaries(st.sampled_from(UNITS), st.integers(1, 12), min_size=1),
        value=st.sampled_from("ab"),
    )
    def take(self, worker: int, amounts: dict[str, int], value: str) -> None:
        charges = tuple(
            (self.rules[unit], value, amount if unit in HELD else 1) for unit, amount in amounts.items()
        )
        self._take(self._worker(worker), charges)

    def _take(self, worker: int, charges: tuple[tuple[LimitRule, str, int], ...]) -> Made:
        made = Made(worker, self.world.take(worker, *charges), charges)
        self.made.append(made)
        self.waiting.append(made)
        self._note()
        return made

    def _worker(self, draw: int) -> int:
        alive = sorted(self.world.clients)
        return alive[draw % len(alive)]

    @precondition(lambda self: any(made.open for made in self.made))
    @rule(which=st.integers(0, 99), part=st.floats(0, 1), twice=st.booleans())
    def settle(self, which: int, part: float, twice: bool) -> None:
        going = [made for made in self.made if made.open]
        made = going[which % len(going)]
        largest = max(amount for _, _, amount in made.charges) * (2 if self.overruns else 1)
        made.used = round(part * largest)
        if not self.overruns:
            made.used = min(
                made.used, min(amount for r, _, amount in made.charges if _held(r)) if _any(made) else 0
            )
        for _ in range(1 + twice):
            self.world.clients[made.worker].settle(made.call.hold, made.used, made.used, 0, made.used)
        made.settled_at = self.world.clock.now

    @precondition(lambda self: any(made.open and _any(made) for made in self.made))
    @rule(which=st.integers(0, 99), amount=st.integers(1, 12), late=st.booleans())
    def grow(self, which: int, amount: int, late: bool) -> None:
        """A stream outgrows its hold; `late`: the answer comes when it comes."""
        going = [made for made in self.made if made.open and _any(made)]
        made = going[which % len(going)]
        client, dead_at = self.world.clients[made.worker], made.worker
        more = tuple((client.bucket(r, value), amount) for r, value, _ in made.charges if _held(r))

        def said(denial: Denial | None) -> None:
            if denial is None and made.open and dead_at in self.world.clients:
                made.charges = tuple((r, v, n + amount if _held(r) else n) for r, v, n in made.charges)
                for charged, value, _ in made.charges:
                    self._check(charged, value)

        client.top_up(made.call.hold, more, said)
        if not late:
            self.world.pump()
        self._note()

    @precondition(lambda self: self.waiting)
    @rule(which=st.integers(0, 99))
    def leave(self, which: int) -> None:
        made = self.waiting.pop(which % len(self.waiting))
        assert made.call.waiter is not None
        self.world.clients[made.worker].abandon(made.call.waiter)

    # ------------------------------------------------------------------ what the world does

    @rule(worker=st.integers(0, 9), back=st.booleans(), count=st.integers(1, 5))
    def deliver(self, worker: int, back: bool, count: int) -> None:
        world = self.world
        self.world.clock.advance(0.0)
        queues = world.back if back else world.to
        numbers = sorted(queues)
        number = numbers[worker % len(numbers)]
        for _ in range(min(count, len(queues[number]))):
            world.deliver_back(number) if back else world.deliver_to(number)
            self._note()

    @rule()
    def deliver_all(self) -> None:
        self.world.pump()
        self._note()

    @rule(seconds=st.sampled_from([0.001, 0.03, 0.06, 0.12, 0.3, 1.1, 2.0, 7.0, 61.0]))
    def time_passes(self, seconds: float) -> None:
        self.world.clock.advance(seconds, self._note)
        self._note()

    @rule()
    def tick(self) -> None:
        self.world.tick()

    @rule(worker=st.integers(0, 9), arrives=st.integers(0, 3))
    def die(self, worker: int, arrives: int) -> None:
        world = self.world
        number = self._worker(worker)
        for _ in range(min(arrives, len(world.to[number]))):
            world.deliver_to(number)
        late, at = world.kill(number), world.clock.now
        for made in self.made:
            made.dead = made.dead or (made.worker == number and made.open)
            if made.dead and made.settled_at is None:
                made.settled_at = at
        self.waiting = [made for made in self.waiting if made.worker != number]
        self.orphans += [(orphan, at) for orphan in world.authority.lost(number)]
        for message in late:
            world.post(world.authority.receive(number, message))
        world.start(self.numbers)
        self.numbers += 1

    @precondition(lambda self: self.orphans)
    @rule(which=st.integers(0, 9))
    def recount(self, which: int) -> None:
        orphan, _ = self.orphans.pop(which % len(self.orphans))
        self.world.authority.recount(orphan, self._ledger(orphan))

    def _ledger(self, orphan: Orphan) -> list[Spent]:
        rows = []
        for made in self.made:
            if made.worker != orphan.worker or not made.call.admitted or made.settled_at is None:
                continue
            for charged, value, amount in made.charges:
                ended = int((self.world.clock.wall() - self.world.clock.now + made.settled_at) * 1000)
                if (charged.id, value) == (orphan.rule.id, orphan.value) and (
                    made.dead or ended >= orphan.since_ms
                ):
                    used = amount if made.dead else made.used
                    rows.append(Spent(value, ended, 1, used, used, 0, used))
        return rows

    @precondition(lambda self: self.changes)
    @rule(unit=st.sampled_from(UNITS), amount=st.integers(1, 30))
    def change_limit(self, unit: str, amount: int) -> None:
        old = self.rules[unit]
        self.rules[unit] = limit(
            unit, amount, old.seconds, id=unit, **({"calendar": old.calendar} if old.calendar else {})
        )
        self.most[unit] = max(self.most[unit], amount)
        self.world.post(self.world.authority.replace_rules(self.rules.values()))

    # ------------------------------------------------------------------ what must hold

    def _note(self) -> None:
        """Calls that have got their answer: each admission is checked against the truth as it is now."""
        still = []
        for made in self.waiting:
            if made.call.outcome is None:
                still.append(made)
            elif made.call.admitted:
                made.admitted_at = self.world.clock.now
                for charged, value, _ in made.charges:
                    self._check(charged, value)
            else:
                assert isinstance(made.call.outcome, Denial | FaultError)
        self.waiting = still

    def _check(self, charged: LimitRule, value: str) -> None:
        used = held = beyond = 0
        for made in self.made:
            for rule_, value_, amount in made.charges:
                if (rule_.id, value_) != (charged.id, value) or not made.call.admitted:
                    continue
                if charged.unit == "requests":
                    used += amount if self._counts(charged, made.admitted_at) else 0
                elif made.settled_at is None:
                    held += amount
                elif charged.unit != "concurrent" and self._counts(charged, made.settled_at):
                    used += amount if made.dead else made.used
                    beyond += max(made.used - amount, 0)
        assert used + held <= self.most[charged.id] + beyond

    def _counts(self, charged: LimitRule, at: float) -> bool:
        now = self.world.clock.now
        if charged.calendar:
            wall = self.world.clock.wall()
            return at + (wall - now) >= bounds(charged.calendar, wall)[0]
        return at > now - charged.seconds

    @invariant()
    def leases_and_accounts_agree(self) -> None:
        if not hasattr(self, "world"):
            return
        for account in self.world.authority._book.all():
            leased = sum(lease.units for lease in account.leases.values()) + sum(account.orphans.values())
            assert account.leased == leased >= 0
            assert account.used >= 0
            if not (self.changes or self.overruns):
                assert account.left >= 0

    @rule(worker=st.integers(0, 9), unit=st.sampled_from(UNITS), value=st.sampled_from("ab"))
    def what_is_left_is_given_to_whoever_asks(self, worker: int, unit: str, value: str) -> None:
        if self.overruns:  # they are told of with the next report
            self.world.wait(0.15)
        self._quiet()
        charged, name = self.rules[unit], f"{unit}|{value}"
        free = 0
        for number, client in self.world.clients.items():
            bucket = client._stock.find(name)
            account = self.world.authority.account(unit, value)
            lease = account.leases.get(number) if account else None
            if bucket is not None:
                free += bucket.free
                unreported = bucket.base - bucket.free if bucket.kind == REQUESTS else bucket.spent
                held = self._held(client, unit, value)
                assert (lease.units if lease else 0) == bucket.free + unreported + held
        account = self.world.authority.account(unit, value)
        left = free + account.left if account else charged.amount
        if left > 0:
            self.world.clock.advance(0.051)  # how long a refusal may be remembered
            self._quiet()
            assert self._probe(worker, charged, value, left).call.admitted
        assert not self._probe(worker + 1, charged, value, 1 if left > 0 else max(left, 1)).call.admitted

    def _held(self, client: LeaseClient, unit: str, value: str) -> int:
        total = 0
        for made in self.made:
            if made.open and self.world.clients[made.worker] is client and unit != "requests":
                total += sum(a for b, a in made.call.hold.charges if (b.rule.id, b.value) == (unit, value))
        return total

    def _probe(self, worker: int, charged: LimitRule, value: str, amount: int) -> Made:
        if charged.unit in ("requests", "concurrent"):
            for _ in range(amount - 1):
                assert self._probe(worker, charged, value, 1).call.admitted
            amount = 1
        made = self._take(self._worker(worker), ((charged, value, amount),))
        self.world.pump()
        self._note()
        return made

    def _quiet(self) -> None:
        """Nothing under way, nobody waits."""
        self.world.pump()
        self.world.tick()
        self.world.pump()
        if self.waiting:  # a worker that is slow to answer
            self.world.wait(0.3)
        self._note()
        assert not self.waiting

    def teardown(self) -> None:
        """In the end nothing has leaked."""
        if not hasattr(self, "world"):
            return
        self._quiet()
        while self.orphans:
            self.recount(0)
        for made in self.made:
            if made.open:
                self.world.clients[made.worker].settle(made.call.hold, 0, 0)
        self.world.wait(2 * IDLE + 1.0, step=0.5)
        for account in self.world.authority._book.all():
            assert (account.leased, account.queue, account.recalls) == (0, type(account.queue)(), {})
        for client in self.world.clients.values():
            assert (client.buckets, client._waiters) == (0, {})
        self.world.wait(62.0)
        self.world.tick()
        assert self.world.authority.accounts == 0


def _held(charged: LimitRule) -> bool:
    return charged.unit in HELD


def _any(made: Made) -> bool:
    return any(_held(charged) for charged, _, _ in made.charges)


class Overruns(LimitsMachine):
    """Calls that use more than they hold."""

    overruns = True


class Changes(LimitsMachine):
    """Limits that are lowered and raised under way."""

    changes = True


def _case(machine: type[LimitsMachine]) -> Any:
    case = machine.TestCase
    case.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
    return case


TestExact = _case(LimitsMachine)
TestOverruns = _case(Overruns)
TestChanges = _case(Changes)
