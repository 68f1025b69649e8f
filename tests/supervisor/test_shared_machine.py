"""Limits over replicas under everything at once: the store's scripts run in a real Redis, by a made-up clock.

Replicas have clocks of their own, minutes apart. Questions and answers get lost or come late, replicas die
and start again, the store is emptied. The truth is kept beside: what was admitted when, what each call used.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
import redis
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from gateway.core.hold import Hold
from gateway.core.limit import LimitRule, Spent
from gateway.link.leases import LeaseClient
from gateway.settings.shared import StoreUrl
from gateway.stores.leases import SharedAuthority, bounds
from gateway.stores.leases.share import LEASE, MARGIN
from gateway.stores.redis.client import Script
from gateway.stores.redis.leases import Forgotten, Overtaken, RedisLeases
from gateway.supervisor.sharing import _reply
from tests.link.world import EPOCH, Call, Timer
from tests.link.world import Clock as WorldClock
from tests.link.world import rule as limit
from tests.servers import redis as servers

pytestmark = [
    pytest.mark.skipif(servers.found() is None, reason="redis-server is not installed"),
    pytest.mark.timeout(600),
]

LIMITS = (
    limit("requests", 6, 60.0, id="requests"),
    limit("requests", 30, 60.0, id="burst", burst=4),
    limit("tokens", 40, 10.0, id="tokens"),
    limit("usd", 50, id="usd", calendar="minute"),
    limit("concurrent", 4, id="concurrent"),
)
RULES = {each.id: each for each in LIMITS}
NAMES = list(RULES)


@pytest.fixture(scope="module", autouse=True)
def server() -> Iterator[None]:
    if servers.found() is None:
        yield
        return
    with servers.serving() as running, redis.Redis(port=running.port) as client:
        Machine.client, Machine.loop = client, asyncio.new_event_loop()
        yield
        Machine.loop.close()


class Store:
    """The scripts in a real Redis; its clock is the list `clock`, and what it publishes goes to `told`."""

    sharded = False
    deadline = 0.075

    def __init__(self, client: Any) -> None:
        self.url = StoreUrl("one")
        self._client = client
        self._known: dict[str, Any] = {}

    def named(self, name: str) -> str:
        return f"penstock:{name}"

    async def run(self, script: Script, keys: Sequence[str], args: Sequence[Any]) -> Any:
        known = self._known.get(script.digest)
        if known is None:
            text = script.text.replace("redis.call('TIME')", "redis.call('LRANGE', 'clock', 0, -1)")
            text = text.replace("redis.call('PUBLISH', head.channel,", "redis.call('RPUSH', 'told',")
            assert text.count("'clock'") == 1
            known = self._known[script.digest] = self._client.register_script(text)
        return known(keys, args)


@dataclass
class Made:
    """One call and what became of it."""

    replica: Replica
    worker: int
    call: Call
    charges: tuple[tuple[LimitRule, str, int], ...]
    admitted_at: float = -1.0
    settled_at: float | None = None
    used: int = 0
    dead: bool = False


@dataclass(eq=False)
class Replica:
    """One of them: two workers whose messages arrive at once. Its clock stands for a machine's own."""

    name: str
    life: int
    skew: float
    machine: Machine
    late: list[Any] = field(default_factory=list)

    def __post_init__(self) -> None:
        clock = self.machine.clock
        self.authority = SharedAuthority(
            f"{self.name}{self.life}", LIMITS, clock, lambda: clock.wall() + self.skew
        )
        self.leases = RedisLeases(self.machine.store, self.name, f"{self.name}{self.life}", LEASE)  # type: ignore[arg-type]
        self.workers = [self._worker(number) for number in range(2)]
        self.alive = True

    def _worker(self, number: int) -> LeaseClient:
        def later(delay: float, call: Any) -> Timer:
            return self.machine.clock.later(delay, lambda: call() if self.alive else None)

        def send(message: dict[str, Any]) -> None:
            later(0.0, lambda: self.deliver(self.authority.receive(number, message)))

        return LeaseClient(send, self.machine.clock, later=later, wall=self.machine.clock.wall)

    def deliver(self, messages: Any) -> None:
        for worker, message in messages:
            self.machine.clock.later(0.0, lambda w=worker, m=message: self.workers[w].receive(m))

    def greet(self) -> None:
        met = self.machine.await_(self.leases.greet(first=True))
        self.authority.upstream.heard_time(met.now)
        self.authority.upstream.replicas = 3
        if met.forgotten:
            self.authority.forgotten()
        if met.grace > 0:
            self.authority.lose()
        elif self.authority.upstream.lost:
            self.deliver(self.authority.find())

    def exchange(self, fate: str = "ok") -> bool:
        """Ask what is due; whether anything was. `fate`: ok, or what is lost, or the question comes late."""
        questions = self.authority.questions()
        if not questions:
            return False
        upstream = self.authority.upstream
        asked = [(q.account.rule, q.account.value, q.account.most, dict(q.document)) for q in questions]
        sent, now = self.machine.clock(), upstream.wall()
        if fate in ("question", "late"):
            if fate == "late":
                self.late.append((asked, now))
            upstream.unanswered(questions)
            return True
        try:
            at, raw = self.machine.await_(self.leases.exchange(asked, now, 3))
        except Overtaken as overtaken:
            upstream.heard_time(overtaken.args[0])
            upstream.unanswered(questions)
            return True
        except Forgotten:
            upstream.unanswered(questions)
            self.deliver(self.authority.lose())
            return True
        if fate == "answer":
            upstream.unanswered(questions)
            return True
        upstream.heard_time(at)
        self.deliver(self.authority.answered(questions, [_reply(words) for words in raw], sent))
        for predecessor in self.authority.predecessors():
            rows = self.machine.ledger(self, predecessor)
            self.authority.adopt(predecessor, rows)
        return True

    def arrive(self) -> list[bytes]:
        """A question of which nobody waits for the answer any more; what became of each of its parts."""
        asked, now = self.late.pop(0)
        try:
            _, answers = self.machine.await_(self.leases.exchange(asked, now, 3))
        except (Overtaken, Forgotten):
            return []
        return [answer[0] for answer in answers]


class Machine(RuleBasedStateMachine):
    """Three replicas, two workers each, five limits, two scope values. Here nothing is lost for good."""

    client: Any
    loop: asyncio.AbstractEventLoop
    deaths = False
    floods = False  # whether the store is emptied

    @initialize()
    def begin(self) -> None:
        self.client.flushall()
        self.clock = WorldClock()
        self.set_time()
        self.store = Store(self.client)
        self.made: list[Made] = []
        self.waiting: list[Made] = []
        self.emptied = 0
        skews = (-300.0, 0.0, 300.0)
        self.replicas = [Replica(f"r{n}", 0, skew, self) for n, skew in enumerate(skews)]
        self.greet_all()
        self.advance(1.6)
        self.greet_all()
        assert not any(replica.authority.upstream.lost for replica in self.replicas)

    def await_(self, waiting: Any) -> Any:
        return self.loop.run_until_complete(waiting)

    def set_time(self) -> None:
        now = EPOCH + self.clock.now
        with self.client.pipeline() as pipe:
            pipe.delete("clock").rpush("clock", int(now), int(now * 1_000_000) % 1_000_000).execute()

    def advance(self, seconds: float) -> None:
        self.clock.advance(seconds, self.note)
        self.set_time()
        self.note()

    def greet_all(self) -> None:
        for replica in self.replicas:
            replica.greet()

    def tell(self) -> None:
        """What the store has published, to everybody else."""
        while (data := self.client.lpop("told")) is not None:
            what, name, sender, figure = json.loads(data)
            for replica in self.replicas:
                if replica.name != sender:
                    authority = replica.authority
                    heard = authority.recalled if what == "recall" else authority.opened
                    replica.deliver(heard(name, figure))
        self.clock.advance(0.0, self.note)

    def pump(self, seconds: float = 0.0) -> None:
        """All that is due flows, while so much time goes by."""
        end = self.clock.now + seconds
        while True:
            for _ in range(200):
                self.clock.advance(0.0, self.note)
                moved = [replica.exchange() for replica in self.replicas if replica.alive]
                self.tell()
                if not any(moved):
                    break
            for replica in self.replicas:
                replica.deliver(replica.authority.tick())
                replica.deliver(replica.authority.expire())
            self.clock.advance(0.0, self.note)
            if self.clock.now >= end:
                self.note()
                return
            self.advance(min(0.04, end - self.clock.now))

    # ------------------------------------------------------------------ what callers do

    @rule(
        replica=st.integers(0, 2),
        worker=st.integers(0, 1),
        amounts=st.dictionaries(st.sampled_from(NAMES), st.integers(1, 12), min_size=1, max_size=3),
        value=st.sampled_from("ab"),
    )
    def take(self, replica: int, worker: int, amounts: dict[str, int], value: str) -> None:
        charges = tuple(
            (RULES[name], value, amount if name in ("tokens", "usd") else 1)
            for name, amount in amounts.items()
        )
        self.taken(self.replicas[replica], worker, charges)

    def taken(self, replica: Replica, worker: int, charges: Any) -> Made:
        client = replica.workers[worker]
        call = Call(client, tuple((client.bucket(r, v), amount) for r, v, amount in charges))
        made = Made(replica, worker, call, charges)
        self.made.append(made)
        self.waiting.append(made)
        self.note()
        return made

    @precondition(lambda self: any(self.is_open(made) for made in self.made))
    @rule(which=st.integers(0, 99), part=st.floats(0, 1), twice=st.booleans())
    def settle(self, which: int, part: float, twice: bool) -> None:
        going = [made for made in self.made if self.is_open(made)]
        made = going[which % len(going)]
        held = [amount for r, _, amount in made.charges if r.id in ("tokens", "usd")]
        made.used = round(part * min(held)) if held else 0
        for _ in range(1 + twice):
            made.replica.workers[made.worker].settle(made.call.hold, made.used, made.used)
        made.settled_at = self.clock.now

    @staticmethod
    def is_open(made: Made) -> bool:
        return made.call.admitted and made.settled_at is None and not made.dead

    # ------------------------------------------------------------------ what the world does

    @rule(replica=st.integers(0, 2), fate=st.sampled_from(["ok", "ok", "ok", "question", "answer", "late"]))
    def exchange(self, replica: int, fate: str) -> None:
        self.clock.advance(0.0, self.note)
        self.replicas[replica].exchange(fate)
        self.clock.advance(0.0, self.note)

    @precondition(lambda self: any(replica.late for replica in self.replicas))
    @rule()
    def late_question(self) -> None:
        next(replica for replica in self.replicas if replica.late).arrive()

    @rule()
    def hear(self) -> None:
        self.tell()

    @rule(seconds=st.sampled_from([0.001, 0.05, 0.11, 0.3, 1.1]))
    def time_passes(self, seconds: float) -> None:
        self.advance(seconds)

    @rule(seconds=st.sampled_from([0.0, 0.2, 2.5, 11.0, 62.0]))
    def all_flows(self, seconds: float) -> None:
        self.pump(min(seconds, 0.5))
        if seconds > 3.0:  # with leases renewed on the way
            for _ in range(int(seconds // 3)):
                self.advance(2.9)
                self.pump(0.1)

    @precondition(lambda self: self.deaths)
    @rule(which=st.integers(0, 2))
    def die(self, which: int) -> None:
        """Killed and started again at once; the journal knows what its calls held."""
        dead = self.replicas[which]
        dead.alive = False
        for made in self.made:
            if made.replica is dead and self.is_open(made):
                made.dead, made.settled_at = True, self.clock.now
        self.waiting = [made for made in self.waiting if made.replica is not dead]
        again = self.replicas[which] = Replica(dead.name, dead.life + 1, dead.skew, self)
        for each in LIMITS:
            if each.unit != "concurrent":
                again.authority.load(each, self.rows(again.name, each, 0.0))
        again.greet()
        again.authority.forgotten()

    def rows(self, name: str, rule: LimitRule, since: float) -> list[Spent]:
        found = []
        for made in self.made:
            at = made.admitted_at if rule.unit == "requests" else made.settled_at
            if made.replica.name != name or not made.call.admitted or at is None or at < since:
                continue
            for charged, value, amount in made.charges:
                if charged.id == rule.id:
                    used = amount if made.dead or rule.unit == "requests" else made.used
                    skew = made.replica.skew if rule.calendar else 0.0
                    found.append(Spent(value, int((EPOCH + at) * 1000) + int(skew * 0), used, used, used))
        return found

    def ledger(self, replica: Replica, predecessor: Any) -> list[Spent]:
        rule, value = predecessor.account.rule, predecessor.account.value
        since = predecessor.since - EPOCH - 0.05
        return [row for row in self.rows(replica.name, rule, since) if row.value == value]

    @precondition(lambda self: self.floods and not self.waiting)
    @rule()
    def empty_the_store(self) -> None:
        self.pump(0.3)
        clock = self.client.lrange("clock", 0, -1)
        self.client.flushall()
        self.client.rpush("clock", *clock)
        self.emptied += 1
        self.pump(0.2)
        self.greet_all()
        self.pump(0.2)
        self.advance(1.6)
        self.greet_all()
        self.pump(0.3)

    # ------------------------------------------------------------------ what must hold

    def note(self) -> None:
        """Each admission is checked against the truth as it is now."""
        still = []
        for made in self.waiting:
            if made.call.outcome is None:
                still.append(made)
            elif made.call.admitted:
                made.admitted_at = self.clock.now
                for charged, value, _ in made.charges:
                    self.check(charged, value)
        self.waiting = still

    def check(self, charged: LimitRule, value: str) -> None:
        assert self.taken_of(charged, value) <= self.most(charged)

    def most(self, charged: LimitRule) -> int:
        most = charged.amount + charged.burst
        if self.floods and self.emptied:  # what was on its way when it was emptied, and each one's part
            most += self.emptied * charged.amount
        return most

    def taken_of(self, charged: LimitRule, value: str) -> int:
        total = 0
        for made in self.made:
            if not made.call.admitted:
                continue
            for rule_, value_, amount in made.charges:
                if (rule_.id, value_) != (charged.id, value):
                    continue
                if charged.unit == "requests":
                    total += amount if self.counts(charged, made.admitted_at) else 0
                elif made.settled_at is None:
                    total += amount
                elif charged.unit != "concurrent" and self.counts(charged, made.settled_at):
                    total += amount if made.dead else made.used
        return total

    def counts(self, charged: LimitRule, at: float) -> bool:
        now = self.clock.now
        if at < 0:
            return True  # just now
        if charged.calendar:
            return EPOCH + at >= bounds(charged.calendar, EPOCH + now)[0]
        return at > now - charged.seconds

    @invariant()
    def nothing_is_negative(self) -> None:
        for replica in getattr(self, "replicas", ()):
            for account in replica.authority._book.all():
                assert account.share is not None
                assert account.leased >= 0 and account.share.lease >= 0

    @precondition(lambda self: not self.floods)
    @rule(replica=st.integers(0, 2), name=st.sampled_from(NAMES), value=st.sampled_from("ab"))
    def what_is_left_is_given_to_whoever_asks(self, replica: int, name: str, value: str) -> None:
        self.pump(0.6)
        assert not self.waiting
        charged = RULES[name]
        left = (charged.burst or charged.amount) - self.taken_of(charged, value)
        if charged.burst or self.deaths:  # flows, or comes back when the dead one's lease has ended
            return
        oldest = (
            self.clock.now - charged.seconds * 61 / 60 - 1.0
        )  # slices, and reports, may take so much longer
        younger = [m for m in self.made if m.call.admitted and any(r is charged for r, _, _ in m.charges)]
        edge = any(
            oldest < (m.settled_at or m.admitted_at) < self.clock.now - charged.seconds for m in younger
        )
        if charged.calendar:
            edge = (EPOCH + self.clock.now) % 60 < 3.0
        if left <= 0 or edge:
            return
        for _ in range(left if charged.unit in ("requests", "concurrent") else 1):
            amount = 1 if charged.unit in ("requests", "concurrent") else left
            made = self.taken(self.replicas[replica], 0, ((charged, value, amount),))
            self.pump(0.6)
            if not isinstance(made.call.outcome, Hold):  # a place that came free a moment ago
                self.pump(1.5)
                made = self.taken(self.replicas[replica], 0, ((charged, value, amount),))
                self.pump(0.6)
            assert isinstance(made.call.outcome, Hold), (made.call.outcome, left)

    def teardown(self) -> None:
        """In the end no lease and no hold is left, here or there."""
        if not hasattr(self, "replicas"):
            return
        self.pump(1.2)
        for made in self.made:
            if self.is_open(made):
                made.replica.workers[made.worker].settle(made.call.hold, 0, 0)
        for _ in range(16):
            self.advance(2.0)
            self.pump(0.3)
        for replica in self.replicas:
            for account in replica.authority._book.all():
                assert account.share is not None
                left = (account.leased, account.share.lease, len(account.queue))
                assert left == (0, 0, 0), (replica.name, account.name, replica.authority.upstream.lost)
                assert account.share.used == account.share.acknowledged


class Deaths(Machine):
    """Replicas die and start again."""

    deaths = True


class Floods(Machine):
    """The store is emptied under way."""

    floods = True


def _case(machine: type[Machine], examples: int = 25) -> Any:
    case = machine.TestCase
    case.settings = settings(max_examples=examples, stateful_step_count=30, deadline=None)
    return case


TestExact = _case(Machine)
TestDeaths = _case(Deaths)
TestFloods = _case(Floods, 15)


def world() -> Machine:
    machine = Machine()
    machine.begin()
    return machine


@given(
    st.sampled_from(["requests", "burst"]),
    st.lists(
        st.tuples(st.integers(0, 2), st.sampled_from([0.0, 0.3, 1.7, 9.5, 25.0])), min_size=10, max_size=60
    ),
)
@settings(max_examples=40, deadline=None)
def test_no_sliding_window_of_the_trace_exceeds_limit_and_burst(
    name: str, steps: list[tuple[int, float]]
) -> None:
    machine, charged, trace = world(), RULES[name], []
    for replica, wait in steps:
        machine.advance(wait)
        machine.pump(0.1)
        made = machine.taken(machine.replicas[replica], 0, ((charged, "a", 1),))
        machine.pump(0.5)
        if made.call.admitted:
            trace.append(made.admitted_at)
    for last in trace:
        within = sum(last - charged.seconds < at <= last for at in trace)
        assert within <= charged.amount + charged.burst


def test_a_question_that_comes_late_changes_nothing() -> None:
    machine = world()
    first, second = machine.replicas[:2]
    machine.taken(first, 0, ((RULES["tokens"], "a", 30),))
    machine.clock.advance(0.0)
    first.exchange("late")  # on its way for a long time
    late = first.late[0]
    machine.pump(0.5)
    machine.settle(0, 0.0, False)
    machine.pump(0.5)
    asked, now = late
    for fresh in (True, False):  # overtaken by a later one; or too old to be heard at all
        first.late = [(asked, machine.clock.wall() if fresh else now)]
        assert first.arrive() == ([b"stale"] if fresh else [])
        taken = machine.taken(second, 0, ((RULES["tokens"], "a", 40),))
        machine.pump(0.6)
        assert taken.call.admitted
        machine.settle(0, 0.0, False)
        machine.pump(0.5)


assert MARGIN < LEASE
