"""Drives the authority of one replica among several: its questions go to the shared store, answers come back.

Never waits on behalf of a call: while the store does not answer, the authority decides without it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from gateway.core.codec import JSONError, loads
from gateway.core.errors import LedgerError
from gateway.core.limit import LimitRule, Spent
from gateway.settings.schema import State
from gateway.settings.shared import store_url
from gateway.stores.leases import Question, Reply, SharedAuthority
from gateway.stores.leases.desk import Messages, Noticed
from gateway.stores.leases.share import LEASE
from gateway.stores.redis import Channel, Lost, Store
from gateway.stores.redis.leases import CHANNEL, Forgotten, Met, Overtaken, RedisLeases

log = logging.getLogger("penstock.shared")

PROBE = 0.5  # seconds between two tries while the store is lost
GREET = 1.0  # seconds between two greetings
TRIES = 2  # failures in a row that make a store lost
_AT_START = 3.0  # seconds to wait for the store before it is done without
_SLACK = 0.05  # seconds by which a record may date a call's end too early
_SEEN = "replicas"  # file in data_dir: how many replicas were there when last seen

Spend = Callable[[LimitRule, int, str | None], Awaitable[list[Spent]]]
Told = Callable[[bool, int, int, str], None]  # is it there, replicas, round trips so far, why not


class Sharing:
    """One store, one replica. `told` hears how it stands whenever that may have changed."""

    def __init__(self, state: State, data: Path, replica: str, told: Told) -> None:
        assert state.shared is not None
        self._told = told
        self._seen = data / _SEEN
        boot = secrets.token_hex(6)
        self._store = Store(store_url(state.shared.reveal()), state.timeout)
        self._leases = RedisLeases(self._store, replica, boot, LEASE)
        self._replica = replica
        self._boot = boot
        self._channel = Channel(self._store, [CHANNEL], self._hear)
        self._wake = asyncio.Event()
        self._joined = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._recounts: set[asyncio.Task[None]] = set()
        self._greeted = 0.0
        self._failures = 0
        self._fault = ""

    def authority(self, rules: Iterable[LimitRule], noticed: Noticed) -> SharedAuthority:
        """The authority that this drives."""
        self._authority = SharedAuthority(self._boot, rules, noticed=noticed)
        self._upstream = self._authority.upstream
        with contextlib.suppress(OSError, ValueError):
            self._upstream.replicas = max(int(self._seen.read_text()), 1)
        return self._authority

    # -- start and end

    async def learn_time(self) -> None:
        """The store's clock, before anything is dated. Where it can't be had, our own holds."""
        with contextlib.suppress(Lost):
            await self._store.connect()
            self._meet(await self._leases.greet(first=True))

    def shift(self) -> float:
        """Seconds by which the store's clock is ahead of ours."""
        return self._upstream.wall() - time.time()

    async def start(self, deliver: Callable[[Messages], None], spend: Spend) -> None:
        """Begin; returns once the store is joined, or after a while without it."""
        self._deliver = deliver
        self._spend = spend
        self._authority.forgotten()
        self._channel.open()
        self._task = asyncio.create_task(self._drive())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_AT_START):
                await self._joined.wait()

    async def close(self) -> None:
        """Hand back everything, say good-bye, let go. To be called once no worker is left."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            for recount in self._recounts:
                recount.cancel()
            if self._joined.is_set():
                await self._leave()
        await self._channel.close()
        await self._store.close()

    async def _leave(self) -> None:
        self._deliver = lambda messages: None
        try:
            self._authority.leave()
            await self._settle_in()
            await self._leases.greet(leaving=True)
        except (Lost, Forgotten):
            pass  # what is leased ends by itself

    # -- the loop

    def wake(self) -> None:
        """There may be something to ask."""
        self._wake.set()

    async def _drive(self) -> None:
        while True:
            try:
                if self._joined.is_set():
                    await self._turn()
                else:
                    await self._join()
            except (Lost, Forgotten) as error:
                self._lose("it is empty, or another one" if isinstance(error, Forgotten) else str(error))
                if isinstance(error, Lost):
                    await asyncio.sleep(PROBE)
            except Exception:
                log.exception("limits can't be shared; it is tried again")
                self._lose("a fault of ours")
                await asyncio.sleep(PROBE)

    async def _join(self) -> None:
        await self._store.connect()
        met = await self._leases.greet(first=True)
        if self._meet(met):
            await self._settle_in()
            await asyncio.sleep(met.grace)
            if self._meet(await self._leases.greet(first=True)):
                return
        self._failures = 0
        self._joined.set()
        self._deliver(self._authority.find())
        if self._fault:
            log.info("the shared store answers again")
        self._fault = ""
        self._told(True, self._upstream.replicas, self._leases.trips, "")

    async def _settle_in(self) -> None:
        """Ask all that is due now: tell an empty store what was used, or one that is left what goes back."""
        for _ in range(1000):
            questions = self._authority.questions()
            if not questions:
                return
            await self._exchange(questions)

    def _meet(self, met: Met) -> bool:
        """Take in a greeting; whether the store does not grant anything yet."""
        self._greeted = time.monotonic()
        self._upstream.heard_time(met.now)
        self._count(met)
        if met.forgotten:
            self._authority.forgotten()
        return met.grace > 0

    def _count(self, met: Met) -> None:
        """How many replicas there are: each one's part of a limit while the store is lost depends on it.

        A store that has come back knows those alone that have greeted it since: until it has been joined for
        a while there may be more of them, but no fewer.
        """
        if met.replicas > self._upstream.replicas or (
            met.replicas < self._upstream.replicas and self._joined.is_set() and met.grace <= 0
        ):
            self._upstream.replicas = met.replicas
            with contextlib.suppress(OSError):
                # Whole or not at all: who starts now and finds an empty file takes itself for the only one.
                draft = self._seen.with_name(f"{_SEEN}.new")
                draft.write_text(f"{met.replicas}\n")
                draft.replace(self._seen)

    async def _turn(self) -> None:
        """Ask what is due, or wait until something is."""
        if time.monotonic() >= self._greeted + GREET:
            met = await self._tried(self._leases.greet())
            if met is not None and (self._meet(met) or met.forgotten):
                raise Forgotten
            self._told(True, self._upstream.replicas, self._leases.trips, "")
        self._wake.clear()
        pause = self._upstream.pause()
        if pause > 0:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._wake.wait()
        if questions := self._authority.questions():
            await self._tried(self._exchange(questions))

    async def _tried(self, asking: Awaitable[Any]) -> Any:
        """A single failure is asked about again; several in a row are a loss."""
        try:
            found = await asking
        except Lost:
            self._failures += 1
            if self._failures >= TRIES:
                raise
            return None
        self._failures = 0
        return found

    async def _exchange(self, questions: Sequence[Question]) -> None:
        sent = time.monotonic()
        asked = [(q.account.rule, q.account.value, q.account.most, q.document) for q in questions]
        try:
            at, raw = await self._leases.exchange(asked, self._upstream.wall(), self._upstream.replicas)
        except Overtaken as late:
            self._upstream.heard_time(late.args[0])
            self._upstream.unanswered(questions)
            return
        except BaseException:
            self._upstream.unanswered(questions)
            raise
        self._upstream.heard_time(at)
        self._deliver(self._authority.answered(questions, [_reply(words) for words in raw], sent))
        for predecessor in self._authority.predecessors():
            self._recounts.add(task := asyncio.create_task(self._recount(predecessor)))
            task.add_done_callback(self._recounts.discard)

    async def _recount(self, predecessor: Any) -> None:
        """What this replica's last life had used and not told stands in the ledger, call by call."""
        rule = predecessor.account.rule
        single = replace(rule, calendar="", zone="UTC", seconds=3600.0)
        since = round((predecessor.since - self.shift() - _SLACK) * 1000)
        try:
            rows = await self._spend(single, since, predecessor.account.value)
        except LedgerError as error:
            log.error(
                "what was used before the restart can't be read; it counts as all that was leased: %s", error
            )
            rows = [Spent(predecessor.account.value, since, *[predecessor.units] * 5)]
        self._authority.adopt(predecessor, rows)
        self.wake()

    def _lose(self, why: str) -> None:
        self._joined.clear()
        self._failures = 0
        if not self._authority.upstream.lost:
            self._deliver(self._authority.lose())
        if not self._fault:
            log.warning("the shared store is lost: %s", why)
        self._fault = why
        self._told(False, self._upstream.replicas, self._leases.trips, why)

    # -- what other replicas say

    def _hear(self, channel: str, data: bytes) -> None:
        try:
            what, name, replica, *rest = loads(data)
            if replica == self._replica:
                return
            figure = rest[0]
            messages = (
                self._authority.recalled(str(name), str(figure))
                if what == "recall"
                else self._authority.opened(str(name), int(figure))
            )
        except (JSONError, ValueError, TypeError, IndexError):
            return  # not ours
        self._deliver(messages)
        self.wake()


def _reply(words: list[Any]) -> Reply:
    status = words[0].decode()
    if status != "ok":
        return Reply(status)
    _, granted, left, retry, others, used, near, reached, orphan, since = words
    return Reply(
        status, granted, left, retry / 1e6, others, used, bool(near), bool(reached), orphan, since / 1e6
    )
