"""The key set's keeper: one request at a time, a pause after each, and the old set while it fails."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest

from gateway.core.token import Jwt
from gateway.link.protocol import Message
from gateway.supervisor import jwks as module
from gateway.supervisor.jwks import Jwks

RULE = Jwt("https://idp.example", ("p",), jwks="https://idp.example/jwks?secret=1", cooldown=30.0)
ONE, TWO = [{"kid": "one"}], [{"kid": "two"}]


class World:
    """A keeper with an identity provider that the test plays."""

    def __init__(self) -> None:
        self.keys: list[dict[str, Any]] | Exception = ONE
        self.asked: list[str] = []
        self.told: list[Message] = []
        self.failures: list[tuple[str, str]] = []
        self.counts: list[tuple[str, ...]] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.keeper = Jwks(self.told.append, self._failed, self._count, self._fetch)

    async def _fetch(self, url: str, ca: str) -> list[dict[str, Any]]:
        self.asked.append(url)
        await self.gate.wait()
        if isinstance(self.keys, Exception):
            raise self.keys
        return self.keys

    def _failed(self, url: str, why: str) -> None:
        self.failures.append((url, why))

    def _count(self, *labels: str) -> None:
        self.counts.append(labels)

    async def until(self, true: Callable[[], object]) -> None:
        end = time.monotonic() + 30
        while not true():
            assert time.monotonic() < end, (self.asked, self.told)
            await asyncio.sleep(0.001)

    def forget_the_pause(self) -> None:
        """As if the cool-down were over."""
        self.keeper._not_before = 0.0


def play(scenario: Callable[[World], Any]) -> None:
    async def whole() -> None:
        world = World()
        await scenario(world)
        await world.keeper.close()

    asyncio.run(whole())


def test_it_is_fetched_at_once_and_told_with_the_pause() -> None:
    async def scenario(world: World) -> None:
        world.keeper.configure(RULE)
        await world.until(lambda: len(world.told) == 2)
        assert [told["keys"] for told in world.told] == [[], ONE]
        assert 20 < world.told[-1]["pause"] <= 30 and world.counts == [("jwks_fetches", "ok")]

    play(scenario)


def test_however_many_ask_there_is_one_request_per_cool_down() -> None:
    async def scenario(world: World) -> None:
        world.keeper.configure(RULE)
        await world.until(lambda: len(world.told) == 2)
        for _ in range(500):
            world.keeper.asked()
        assert len(world.asked) == 1
        assert world.told[-1]["keys"] == ONE and world.told[-1]["pause"] > 20  # an answer all the same
        world.keys = TWO
        world.forget_the_pause()
        for _ in range(500):
            world.keeper.asked()
        await world.until(lambda: world.told[-1]["keys"] == TWO)
        assert len(world.asked) == 2

    play(scenario)


def test_those_that_ask_during_a_request_get_its_answer_and_no_second_one() -> None:
    async def scenario(world: World) -> None:
        world.gate.clear()
        world.keeper.configure(RULE)
        await world.until(lambda: world.asked)
        world.keeper.asked()
        world.gate.set()
        await world.until(lambda: world.told[-1]["keys"] == ONE)
        world.forget_the_pause()
        for _ in range(20):
            await asyncio.sleep(0)
        assert len(world.asked) == 1

    play(scenario)


def test_while_it_fails_the_set_before_goes_on_and_it_is_told_once() -> None:
    async def scenario(world: World) -> None:
        world.keeper.configure(RULE)
        await world.until(lambda: len(world.told) == 2)
        world.keys = RuntimeError("no route")
        for number in (3, 4):
            world.forget_the_pause()
            world.keeper.asked()
            await world.until(lambda number=number: len(world.told) == number)
        assert world.told[-1]["keys"] == ONE
        assert world.failures == [("https://idp.example/jwks", "no route")]
        world.keys = TWO
        world.forget_the_pause()
        world.keeper.asked()
        await world.until(lambda: world.told[-1]["keys"] == TWO)
        assert [labels[1] for labels in world.counts] == ["ok", "failed", "failed", "ok"]

    play(scenario)


def test_it_is_fetched_anew_after_its_time_and_sooner_after_a_failure() -> None:
    async def scenario(world: World) -> None:
        quick = Jwt("i", ("p",), jwks="https://idp.example/jwks", refresh=0.02, cooldown=0.01)
        world.keys = RuntimeError("not yet")
        world.keeper.configure(quick)
        await world.until(lambda: len(world.asked) == 2)
        world.keys = ONE
        await world.until(lambda: len(world.asked) == 5)
        assert world.told[-1]["keys"] == ONE

    play(scenario)


def test_another_place_means_other_keys_from_that_moment() -> None:
    async def scenario(world: World) -> None:
        world.keeper.configure(RULE)
        await world.until(lambda: len(world.told) == 2)
        world.keeper.configure(RULE)
        assert len(world.told) == 2
        world.gate.clear()
        world.keeper.configure(Jwt("i", ("p",), jwks="https://other.example/jwks"))
        assert world.told[-1]["keys"] == [] and world.told[-1]["pause"] == 0
        await world.until(lambda: world.asked[-1] == "https://other.example/jwks")

    play(scenario)


@pytest.mark.parametrize("rule", [None, Jwt("i", ("p",), key="PEM")])
def test_without_a_place_nothing_is_fetched(rule: Jwt | None) -> None:
    async def scenario(world: World) -> None:
        world.keeper.configure(rule)
        world.keeper.asked()
        await asyncio.sleep(0)
        assert not world.asked and not world.told
        world.keeper.configure(RULE)
        await world.until(lambda: len(world.told) == 2)
        world.keeper.configure(rule)
        assert world.keeper.message()["keys"] == []

    play(scenario)


def test_the_modules_behind_a_request_are_loaded_with_the_first() -> None:
    assert not hasattr(module, "httpx") and not hasattr(module, "fetch")
