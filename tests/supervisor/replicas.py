"""Replicas of one process, with workers each, around a real Redis: only the processes are left out."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from gateway.core.errors import FaultError
from gateway.core.hold import Hold
from gateway.core.limit import Denial, LimitRule, Spent
from gateway.link.leases import LeaseClient
from gateway.settings.schema import State
from gateway.settings.secret import Secret
from gateway.supervisor.limits import Limits
from gateway.supervisor.sharing import Sharing

Outcome = Hold | Denial | FaultError


class Books:
    """A ledger that knows only what it is asked for limits."""

    def __init__(self) -> None:
        self.rows: list[Spent] = []

    def spent(
        self,
        rule: LimitRule,
        since_ms: int,
        value: str | None = None,
        worker: int | None = None,
        everyone: bool = False,
    ) -> Iterator[Spent]:
        return (row for row in self.rows if row.ts_ms >= since_ms and value in (None, row.value))


class Watch:
    """What was told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str, str, int, int]] = []
        self.passed: dict[str, int] = {}
        self.stood: list[bool] = []

    def noticed(self, kind: str, rule: LimitRule, value: str, used: int, amount: int) -> None:
        self.told.append((kind, rule.id, value, used, amount))

    def unchecked(self, rule: str, calls: int) -> None:
        self.passed[rule] = self.passed.get(rule, 0) + calls

    def shared(self, there: bool, replicas: int, trips: int, why: str) -> None:
        self.stood.append(there)


async def at_once(work: Callable[[], Any]) -> Any:
    return work()


class Replica:
    """One machine: the authority, what drives it, and workers 0…n-1 without processes."""

    def __init__(
        self,
        url: str,
        folder: Path,
        rules: Iterable[LimitRule],
        name: str,
        workers: int = 2,
        timeout: float = 20.0,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.name = name
        self.folder = folder
        self.watch = Watch()
        self.books = Books()
        state = State(shared=Secret(url), timeout=timeout)
        self.sharing = Sharing(state, folder, name, self.watch.shared)
        self.limits = Limits(rules, self.books, at_once, self._send, self.watch, self.sharing)  # type: ignore[arg-type]
        self.workers = [self._worker(number) for number in range(workers)]
        self._tick: asyncio.Task[None] | None = None
        self.dead = False

    def _worker(self, number: int) -> LeaseClient:
        def send(message: dict[str, Any]) -> None:
            asyncio.get_running_loop().call_soon(self._receive, number, message)

        return LeaseClient(send)

    def _receive(self, number: int, message: dict[str, Any]) -> None:
        if not self.dead:
            self.limits.receive(number, message)

    def _send(self, worker: int, message: dict[str, Any]) -> None:
        asyncio.get_running_loop().call_soon(self._pass, worker, message)

    def _pass(self, worker: int, message: dict[str, Any]) -> None:
        if not self.dead:
            self.workers[worker].receive(message)

    async def open(self, joined: bool = True) -> None:
        """`joined`: the store is there, so it is waited for, however slow the machine is."""
        await self.limits.restore()
        self._tick = asyncio.create_task(self._ticking())
        if joined:
            await until(lambda: not self.lost)

    async def _ticking(self) -> None:
        while True:
            await asyncio.sleep(0.1)
            await self.limits.tick()

    async def take(self, worker: int, *charges: tuple[LimitRule, str, int]) -> Outcome:
        client = self.workers[worker]
        try:
            return await client.take(
                tuple((client.bucket(rule, value), amount) for rule, value, amount in charges)
            )
        except FaultError as error:
            return error

    def settle(self, worker: int, hold: Hold, tokens: int = 0, micros: int = 0) -> None:
        self.workers[worker].settle(hold, tokens, micros)

    @property
    def lost(self) -> bool:
        return self.sharing._authority.upstream.lost

    def patience(self, seconds: float) -> None:
        """The store has so long for an answer from now on."""
        self.sharing._store.deadline = seconds

    @property
    def trips(self) -> int:
        return self.sharing._leases.trips

    async def close(self) -> None:
        """An orderly end: workers hand back what they have, then the replica does."""
        await self._stop()
        if not self.dead:
            for number in range(len(self.workers)):
                await self.limits.lost(number)()
            await self.limits.close()

    async def kill(self) -> None:
        """Without a word."""
        self.dead = True
        await self._stop()
        sharing = self.sharing
        if sharing._task is not None:
            sharing._task.cancel()
        await sharing._channel.close()
        await sharing._store.close()

    async def _stop(self) -> None:
        if self._tick is not None:
            self._tick.cancel()


@asynccontextmanager
async def replicas(
    url: str, folder: Path, rules: Iterable[LimitRule], count: int = 3, joined: bool = True, **rest: Any
) -> Any:
    """So many of them, opened together."""
    made = [Replica(url, folder / f"r{n}", rules, f"r{n}", **rest) for n in range(count)]
    await asyncio.gather(*(each.open(joined) for each in made))
    try:
        yield made
    finally:
        await asyncio.gather(*(each.close() for each in made))


async def until(done: Callable[[], object], seconds: float = 60.0) -> None:
    async with asyncio.timeout(seconds):
        while not done():
            await asyncio.sleep(0.01)


def admitted(outcomes: Iterable[Outcome]) -> int:
    return sum(isinstance(outcome, Hold) for outcome in outcomes)


async def burst(
    made: list[Replica], rule: LimitRule, count: int, value: str = "a", amount: int = 1
) -> list[Outcome]:
    """So many calls at once, spread over all workers of all replicas."""

    def one(n: int) -> Awaitable[Outcome]:
        replica = made[n % len(made)]
        return replica.take(n // len(made) % len(replica.workers), (rule, value, amount))

    return list(await asyncio.gather(*(one(n) for n in range(count))))
