"""What limits cost, and how well they are used: `python -m bench.limits [cost agent overshoot]`.

All of it runs the real stage, the real leases and the real authority; only time and providers are made up.
Figures over replicas: `python -m bench.limits_shared`.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import heapq
import json
import random
import statistics
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from gateway.core.call import Call
from gateway.core.cost import Price, PriceList
from gateway.core.errors import PolicyError
from gateway.core.keys import Keys
from gateway.core.limit import LimitRule
from gateway.core.parts import Parts
from gateway.core.principal import KeyEntry, Principal
from gateway.core.route import ModelRule, Plan, Target
from gateway.core.usage import PROVIDER, Usage
from gateway.link import protocol
from gateway.link.leases import LeaseClient
from gateway.stages.limits import Limits
from gateway.stores.leases import Authority

MODEL = "gpt-4o"
PRICES = PriceList({MODEL: Price.of({"input": 2.5, "output": 10.0})})
EPOCH = 1_800_000_000.0


class Upstream:
    """A backend that is only named."""

    kind = "openai"


class Timer:
    """What `later` gives."""

    def __init__(self, act: Callable[[], None]) -> None:
        self.act: Callable[[], None] | None = act

    def cancel(self) -> None:
        """Not any more."""
        self.act = None


class World:
    """Workers, their authority, and time that goes on when somebody says so.

    `cpu` is what the workers have taken of it, in seconds: the authority's part is not counted, what
    messages cost a worker is.
    """

    def __init__(self, rules: Sequence[LimitRule], workers: int = 1) -> None:
        self.now = 1000.0
        self.cpu = 0.0
        self._ticks = 0.0
        self._due: list[tuple[float, int, Any]] = []
        self._count = 0
        self._queue: deque[tuple[int, bytes]] = deque()
        self.authority = Authority(rules, self.clock, self.wall)
        self.clients = [
            LeaseClient(self._sender(number), self.clock, later=self.later, wall=self.wall)
            for number in range(workers)
        ]
        self.stages = [Limits({}, self._parts(rules, client)) for client in self.clients]
        self.plan = Plan((Target("up"),), "exact", MODEL)

    def _parts(self, rules: Sequence[LimitRule], leases: LeaseClient) -> Parts:
        models = (ModelRule(MODEL, (Target("up"),)),)
        return Parts(
            "r",
            0,
            Keys(),
            leases,
            None,
            {"up": Upstream()},
            models,
            tuple(rules),
            PRICES,  # type: ignore[arg-type, dict-item]
        )

    def clock(self) -> float:
        """Seconds."""
        return self.now

    def wall(self) -> float:
        """Epoch seconds."""
        return EPOCH + self.now

    def later(self, delay: float, act: Callable[[], None]) -> Timer:
        """As an event loop's."""
        timer = Timer(act)
        self._count += 1
        heapq.heappush(self._due, (self.now + delay, self._count, timer))
        return timer

    def _sender(self, number: int) -> Callable[[dict[str, Any]], None]:
        return lambda message: self._queue.append((number, protocol.encode(message)))

    def step(self, until: float) -> None:
        """Timers that are due."""
        began = time.thread_time()
        while self._due and self._due[0][0] <= until:
            at, _, timer = heapq.heappop(self._due)
            self.now = max(self.now, at)
            if timer.act is not None:
                timer.act()
        self.now = max(self.now, until)
        self.cpu += time.thread_time() - began

    async def settle_down(self) -> None:
        """Deliver all messages, and let calls that waited go on."""
        await self._turn()
        if self.now >= self._ticks:
            self._ticks = self.now + 0.1  # as the supervisor does
            self._deliver(self.authority.tick())
        while self._queue:
            while self._queue:
                number, frame = self._queue.popleft()
                (message,) = protocol.Decoder().feed(frame)
                self._deliver(self.authority.receive(number, message))
            await self._turn()

    async def _turn(self) -> None:
        """One of the workers' event loops."""
        began = time.thread_time()
        await asyncio.sleep(0)
        self.cpu += time.thread_time() - began
        self.step(self.now)

    def _deliver(self, messages: list[tuple[int, dict[str, Any]]]) -> None:
        for number, message in messages:
            frame = protocol.encode(message)
            began = time.thread_time()
            for heard in protocol.Decoder().feed(frame):
                self.clients[number].receive(heard)
            self.cpu += time.thread_time() - began

    def call(self, principal: Principal, document: dict[str, Any], body: bytes) -> Call:
        """As it comes from route."""
        call = Call("POST", "/chat/completions", "chat/completions", [], body)
        call.document, call.model, call.stream = document, MODEL, document.get("stream") is True
        call.principal, call.plan, call.alias = principal, self.plan, MODEL
        return call


def used(call: Call, prompt: int, output: int) -> int:
    """What a provider says, and what it costs."""
    call.usage = Usage(input=prompt, output=output, source=PROVIDER)
    price = PRICES.find(MODEL)
    assert price is not None
    call.cost, call.outcome = price.micros(call.usage), "ok"
    return call.cost


# ---------------------------------------------------------------- cost


def twenty() -> list[LimitRule]:
    """Twenty limits, of which six apply to each call of a key of the tenant acme."""
    month: dict[str, Any] = {"calendar": "month"}
    six = [
        LimitRule("g", ("global",), "requests", 10**12, 60.0),
        LimitRule("t", ("tenant",), "usd", 10**15, **month),
        LimitRule("k", ("key",), "requests", 10**9, 60.0),
        LimitRule("kt", ("key",), "tokens", 10**12, 60.0),
        LimitRule("ku", ("key",), "usd", 10**13, **month),
        LimitRule("c", ("key",), "concurrent", 10**6),
    ]
    others = [LimitRule(f"o{n}", ("tenant",), "requests", 10**9, 60.0, match=f"other-{n}") for n in range(14)]
    return six + others


TOGETHER = 14  # calls to a turn of a worker that 32 connections keep busy

BODY = json.dumps(
    {"model": MODEL, "max_tokens": 500, "messages": [{"role": "user", "content": "hello " * 100}]}
).encode()


async def _load(rules: Sequence[LimitRule], keys: int, calls: int, turn: int, rate: float = 2000.0) -> float:
    """CPU microseconds of a worker per call, at `rate` calls a second over so many keys; calls take 1 s.

    `turn` calls come in each turn of the event loop, and take each step together (front/turn.py).
    """
    world = World(rules)
    stage = world.stages[0]
    principals = [
        Principal(KeyEntry(id=f"key_{n}", name=f"k{n}", digest=b"", tenant="acme")) for n in range(keys)
    ]
    document = json.loads(BODY)
    draw = random.Random(7)
    going: deque[tuple[float, Call]] = deque()
    warm = (keys + calls // 3) // turn * turn
    counted = calls // turn * turn
    gc.collect()
    gc.freeze()
    before = gc.get_threshold()
    gc.set_threshold(10_000, 20, 50)  # as a worker does
    for first in range(0, warm + counted, turn):
        if first == warm:
            world.cpu = 0.0
        come = [
            world.call(principals[number if number < keys else draw.randrange(keys)], document, BODY)
            for number in range(first, first + turn)
        ]
        ended = world.now - 1.0
        done: list[Call] = []
        while going and going[0][0] <= ended:
            done.append(going.popleft()[1])
        began = time.thread_time()
        for call in done:
            stage.settle(call)
        verdicts: list[Any] = [stage.admit(call) for call in come]
        world.cpu += time.thread_time() - began
        waiting = [asyncio.ensure_future(verdict) for verdict in verdicts if verdict is not None]
        for call in come:
            used(call, 150, 120)
            going.append((world.now, call))
        world.step(world.now + turn / rate)
        await world.settle_down()
        for task in waiting:
            task.result()
    gc.set_threshold(*before)
    gc.unfreeze()
    return world.cpu / counted * 1e6


def cost() -> Iterator[tuple[str, str, str]]:
    """Microseconds of a worker's CPU per call, over none at all."""
    for turn, together in ((TOGETHER, f"{TOGETHER} calls to a turn"), (1, "each call alone")):
        for name, keys in (("one key", 1), ("10,000 keys, evenly", 10_000)):
            base = min(asyncio.run(_load((), keys, 20_000, turn)) for _ in range(3))
            calls = 60_000 if keys > 1 else 20_000
            full = min(asyncio.run(_load(twenty(), keys, calls, turn)) for _ in range(3))
            yield (
                f"20 limits, 6 apply, {name}, {together}",
                "<= 15 us",
                f"{full - base:.1f} us ({full:.1f} with, {base:.1f} without)",
            )


# ---------------------------------------------------------------- agent, overshoot


class Agent:
    """Calls at once that go on until nothing more is let through. `write` draws the true length of an answer.

    `first` is the share of the budget that was used when the first call was refused, all that was under
    way included; `total` what was used in the end.
    """

    def __init__(
        self,
        rule: LimitRule,
        document: dict[str, Any],
        write: Callable[[], int],
        *,
        at_once: int = 8,
        workers: int = 2,
        tokens: int = 6000,
    ) -> None:
        self.world = World([rule], workers)
        self.rule = rule
        self.document = document
        self.write = write
        self.at_once = at_once
        self.tokens = tokens
        self.body = b""
        self.first = self.total = 0
        self.bounded = self.cut = self.calls = 0

    async def run(self) -> None:
        """Until ten calls in a row are refused."""
        text = "def main(argument: str) -> int:\n    return len(argument) + 17\n" * (self.tokens // 18)
        self.document["messages"] = [{"role": "user", "content": text}]
        self.body = json.dumps(self.document).encode()
        principal = Principal(KeyEntry(id="key_1", name="k", digest=b"", tenant="acme"))
        ends: list[tuple[float, int, Call, int, int]] = []
        refused = number = 0
        while refused < 10:
            number += 1
            place = number % len(self.world.stages)
            call = await self._admitted(place, principal)
            if call is None:
                refused += 1
                if not self.first:
                    self.first = self.total + sum(cost for *_, cost in ends)
            else:
                refused = 0
                output, cost = self._answered(call, place)
                heapq.heappush(ends, (self.world.now + 1 + output / 80, number, call, place, cost))
            while ends and (len(ends) >= self.at_once or refused):
                await self._end(*heapq.heappop(ends))
                if refused < 10 and len(ends) < self.at_once:
                    break
        while ends:
            await self._end(*heapq.heappop(ends))

    async def _admitted(self, place: int, principal: Principal) -> Call | None:
        call = self.world.call(principal, dict(self.document), self.body)
        try:
            verdict: Any = self.world.stages[place].admit(call)
            if verdict is not None:
                task = asyncio.ensure_future(verdict)
                while not task.done():
                    await asyncio.sleep(0)
                    self.world.step(self.world.now + 0.01)
                    await self.world.settle_down()
                await task
        except PolicyError:
            return None
        return call

    def _answered(self, call: Call, place: int) -> tuple[int, int]:
        """The provider answers: as long as it wants, or is asked for."""
        assert call.document is not None
        self.calls += 1
        self.bounded += "bounded" in call.reasons.get("limits", "")
        output = min(self.write(), call.document.get("max_tokens") or 1 << 30)
        growth = call.memo.get("growth")
        if growth is not None:
            for come in range(400, output * 4, 400):  # 100 tokens at a time
                try:
                    growth.look(come, None)
                except PolicyError:
                    output = come // 4
                    self.cut += 1
                    break
        cost = used(call, self.tokens, output)
        return output, cost if self.rule.unit == "usd" else self.tokens + output

    async def _end(self, at: float, number: int, call: Call, place: int, amount: int) -> None:
        self.world.step(at)
        self.world.stages[place].settle(call)
        await self.world.settle_down()
        self.total += amount


def answers(draw: random.Random) -> Callable[[], int]:
    """Lengths as a coding agent's: half below 350 tokens, a mean of 500, one in a hundred above 2,600."""
    return lambda: max(1, min(int(draw.lognormvariate(5.86, 0.85)), 32_000))


TOKENS = LimitRule("tokens", ("key",), "tokens", 2_500_000, 86_400.0)
DOLLARS = LimitRule("usd", ("key",), "usd", 25_000_000, 0.0, "month")


def agent() -> Iterator[tuple[str, str, str]]:
    """A coding agent: max_tokens 32,000, answers of 500; how much of its budget it gets."""
    for rule in (TOKENS, DOLLARS):
        for stream in (False, True):
            runs = []
            for seed in range(5):
                document = {"model": MODEL, "max_tokens": 32_000, "stream": stream}
                run = Agent(rule, document, answers(random.Random(seed)))
                asyncio.run(run.run())
                runs.append(run)
            share = min(run.first for run in runs) / rule.amount
            total = max(run.total for run in runs) / rule.amount
            bounded = sum(run.bounded for run in runs) / sum(run.calls for run in runs)
            cut = sum(run.cut for run in runs)
            how = "streamed" if stream else "whole"
            yield (
                f"agent, {rule.unit}, {how}",
                ">= 95 % before the first refusal, <= 100 % in all",
                f"{share:.1%} before, {total:.2%} in all ({bounded:.1%} of calls bounded, {cut} cut)",
            )


def overshoot() -> Iterator[tuple[str, str, str]]:
    """Calls without max_tokens: what is used beyond a limit, in answers of the usual length."""
    for stream in (False, True):
        for at_once in (1, 8, 32):
            over = []
            for seed in range(20):
                rule = LimitRule("tokens", ("key",), "tokens", 300_000, 86_400.0)
                run = Agent(
                    rule, {"model": MODEL, "stream": stream}, answers(random.Random(seed)),
                    at_once=at_once, tokens=600,
                )  # fmt: skip
                asyncio.run(run.run())
                over.append(max(run.total - rule.amount, 0))
            ranked = sorted(over)
            how = "streamed" if stream else "whole"
            yield (
                f"no max_tokens, {how}, {at_once} at once",
                "as docs/limits.md states",
                f"beyond 300,000: median {statistics.median(over):.0f}, p95 {ranked[18]}, most {ranked[-1]}",
            )


SECTIONS = {"cost": cost, "agent": agent, "overshoot": overshoot}


def main() -> None:
    """Print the chosen sections."""
    parser = argparse.ArgumentParser(prog="python -m bench.limits", description=__doc__)
    parser.add_argument("section", nargs="*", choices=[*SECTIONS, "all"], default="all")
    chosen = parser.parse_args().section
    for name in SECTIONS if "all" in chosen else chosen:
        for what, target, measured in SECTIONS[name]():
            print(f"{what:42} {target:52} {measured}", flush=True)


if __name__ == "__main__":
    main()
