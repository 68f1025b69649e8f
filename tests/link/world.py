"""An authority and its workers without sockets or time: messages and timers go when the test says so."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

from gateway.core.hold import Hold
from gateway.core.limit import Denial, LimitRule
from gateway.link.leases import LeaseClient
from gateway.link.waiter import Outcome, Waiter
from gateway.stores.leases import Authority

EPOCH = 1_767_225_600.0  # 2026-01-01


def rule(unit: str = "requests", amount: int = 10, seconds: float = 60.0, **rest: Any) -> LimitRule:
    return LimitRule(
        id=rest.pop("id", f"key.{unit}"),
        scope=("key",),
        unit=unit,
        amount=amount,
        seconds=0.0 if unit == "concurrent" or "calendar" in rest else seconds,
        **rest,
    )


class Timer:
    def __init__(self, call: Callable[[], None]) -> None:
        self.call: Callable[[], None] | None = call

    def cancel(self) -> None:
        self.call = None


class Clock:
    """Time that stands still until it is moved; runs what is due on the way."""

    def __init__(self) -> None:
        self.now = 1000.0
        self._due: list[tuple[float, int, Timer]] = []
        self._count = 0

    def __call__(self) -> float:
        return self.now

    def wall(self) -> float:
        return EPOCH + self.now

    def later(self, delay: float, call: Callable[[], None]) -> Timer:
        timer = Timer(call)
        self._count += 1
        heapq.heappush(self._due, (self.now + delay, self._count, timer))
        return timer

    def advance(self, seconds: float, between: Callable[[], None] = lambda: None) -> None:
        end = self.now + seconds
        while self._due and self._due[0][0] <= end:
            at, _, timer = heapq.heappop(self._due)
            self.now = max(self.now, at)
            if timer.call is not None:
                timer.call()
            between()
        self.now = end


class Call:
    """One take: its outcome once there is one."""

    def __init__(self, client: LeaseClient, charges: Any) -> None:
        self.outcome: Outcome | None = None
        self.waiter: Waiter | None = None
        taken = client.try_take(charges)
        if taken is not None:
            self.outcome = taken
        else:
            self.waiter = client.ask(charges, 0, 0, self._done)

    def _done(self, outcome: Outcome) -> None:
        assert self.outcome is None, "answered twice"
        self.outcome = outcome

    @property
    def hold(self) -> Hold:
        assert isinstance(self.outcome, Hold), self.outcome
        return self.outcome

    @property
    def denial(self) -> Denial:
        assert isinstance(self.outcome, Denial), self.outcome
        return self.outcome

    @property
    def admitted(self) -> bool:
        return isinstance(self.outcome, Hold)


class World:
    """Workers 0…n-1; `to[i]` and `back[i]` are the two directions of worker i's link, in order each."""

    def __init__(self, rules: Iterable[LimitRule], workers: int = 2) -> None:
        self.clock = Clock()
        self.authority = Authority(rules, self.clock, self.clock.wall)
        self.clients: dict[int, LeaseClient] = {}
        self.to: dict[int, deque[Any]] = {}
        self.back: dict[int, deque[Any]] = {}
        self.sent = 0
        for number in range(workers):
            self.start(number)

    def start(self, number: int) -> None:
        def later(delay: float, call: Callable[[], None]) -> Timer:
            return self.clock.later(delay, lambda: call() if number in self.clients else None)

        self.to[number], self.back[number] = deque(), deque()
        self.clients[number] = LeaseClient(
            self.to[number].append, self.clock, later=later, wall=self.clock.wall
        )

    def kill(self, number: int) -> list[Any]:
        """The worker is gone; gives what it had sent and the authority has not read."""
        late = list(self.to[number])
        del self.clients[number], self.to[number], self.back[number]
        return late

    def post(self, messages: list[tuple[int, Any]]) -> None:
        for number, message in messages:
            if number in self.back:
                self.back[number].append(message)

    def deliver_to(self, number: int) -> None:
        self.sent += 1
        self.post(self.authority.receive(number, self.to[number].popleft()))

    def deliver_back(self, number: int) -> None:
        message = self.back[number].popleft()
        if number in self.clients:
            self.clients[number].receive(message)

    def tick(self) -> None:
        self.post(self.authority.tick())

    def deliver(self) -> None:
        """Every message that is under way, and those they cause."""
        while True:
            going = [n for n, queue in self.to.items() if queue]
            coming = [n for n, queue in self.back.items() if queue]
            for number in going:
                self.deliver_to(number)
            for number in coming:
                self.deliver_back(number)
            if not going and not coming:
                return

    def pump(self) -> None:
        """Let workers send what they have, deliver all, without time going on."""
        for _ in range(10_000):
            self.clock.advance(0.0)
            if not any(self.to.values()) and not any(self.back.values()):
                return
            self.deliver()
        raise AssertionError("messages without end")

    def wait(self, seconds: float, step: float = 0.05) -> None:
        """Time goes on, messages flow."""
        end = self.clock.now + seconds
        self.pump()
        while self.clock.now < end:
            self.clock.advance(min(step, end - self.clock.now), self.pump)
            self.tick()
            self.pump()

    def take(self, number: int, *charges: tuple[LimitRule, str, int]) -> Call:
        """Without waiting for anything."""
        client = self.clients[number]
        return Call(client, tuple((client.bucket(r, v), amount) for r, v, amount in charges))

    def call(self, number: int, *charges: tuple[LimitRule, str, int]) -> Call:
        """With all messages delivered."""
        call = self.take(number, *charges)
        self.pump()
        return call
