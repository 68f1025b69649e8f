"""Tokens seen before, and the wait for a key that may be new."""

from __future__ import annotations

import asyncio
import inspect
import time
from typing import Any

import pytest

from gateway.core.keys import Keys
from gateway.core.principal import Principal
from gateway.core.token import LONGEST, Jwt, KeySet
from gateway.net import tokens as module
from gateway.net.jwt import Checker
from gateway.net.tokens import Tokens
from tests.net.issuer import AUDIENCE, ISSUER, forged, public_jwk, token

RULE = Jwt(ISSUER, (AUDIENCE,), jwks="https://idp.example/jwks", cache=300.0, cooldown=30.0)


class World:
    """A gateway's tokens, and an identity provider that is asked through `ask`."""

    def __init__(self, *names: str, rule: Jwt = RULE) -> None:
        self.asked = 0
        self.checked = 0
        self.keys = Keys()
        self.key_set = KeySet(self._ask)
        self.key_set.replace([public_jwk(name) for name in names], 0.0)
        self.tokens = Tokens(rule, self.key_set, self.keys.caller)
        check = self.tokens._checker.check

        def counted(*arguments: Any) -> Any:
            self.checked += 1
            return check(*arguments)

        self.tokens._checker.check = counted  # type: ignore[method-assign]

    def _ask(self) -> None:
        self.asked += 1

    def find(self, made: bytes) -> Principal | None:
        found = self.tokens.find(made)
        assert not inspect.isawaitable(found)
        return found


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What time it is for the cache; changed by changing the list."""
    now = [time.time()]
    monkeypatch.setattr(time, "time", lambda: now[0])
    return now


def test_a_good_token_is_checked_once_until_its_time_is_up(clock: list[float]) -> None:
    world = World("one")
    made = token(exp=int(clock[0]) + 1000)
    first = world.find(made)
    assert first is not None and first.until == clock[0] + 300.0
    assert world.find(made) is first and world.checked == 1
    clock[0] += 301.0
    assert world.find(made) is not None and world.checked == 2


def test_it_is_never_remembered_beyond_its_expiry(clock: list[float]) -> None:
    world = World("one")
    made = token(exp=int(clock[0]) + 10)
    found = world.find(made)
    assert found is not None and found.until == found.key.expires
    clock[0] += 11.0
    assert world.find(made) is None


def test_a_flood_of_one_bad_token_costs_one_check(clock: list[float]) -> None:
    world = World("one")
    for _ in range(100):
        assert world.find(token(aud="else", jti="same", iat=1, exp=2)) is None
    assert world.checked == 1
    clock[0] += 6.0
    assert world.find(token(aud="else", jti="same", iat=1, exp=2)) is None and world.checked == 2


def test_the_whole_token_is_what_is_remembered() -> None:
    world = World("one")
    good = token(pad="x" * 5000)
    assert world.find(good) is not None
    assert world.find(good[:-4] + b"AAAA") is None
    assert world.find(good + b"A") is None
    other = world.find(token(pad="x" * 5000, sub="bob"))
    assert other is not None and other.key.user == "bob"


def test_what_is_remembered_is_bounded_and_holds_no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST", 50)
    world = World("one")
    made = [token(jti=str(number)) for number in range(120)]
    for each in made:
        world.find(each)
        world.find(each + b"A")
    assert len(world.tokens._good) <= 100 and len(world.tokens._bad) <= 50
    assert all(len(seen) == 32 for seen in [*world.tokens._good.young, *world.tokens._bad])


def test_a_token_that_is_too_long_is_refused_before_anything_is_done_with_it() -> None:
    world = World("one")
    assert world.find(b"eyJ." + b"A" * LONGEST + b".A") is None
    assert world.checked == 0 and not world.tokens._bad


def test_other_keys_or_tenants_mean_that_every_token_is_checked_again() -> None:
    world = World("one")
    made = token()
    assert world.find(made) is not None
    world.tokens.forget()
    assert world.find(made) is not None and world.checked == 2
    world.key_set.replace([public_jwk("two")], 30.0)
    assert world.find(made) is None


def test_one_identity_has_one_memo_whatever_its_tokens() -> None:
    world = World("one")
    one, two = world.find(token(jti="1")), world.find(token(jti="2"))
    assert one is not None and two is not None and one is not two
    assert one.memo is two.memo


def test_an_unknown_key_waits_for_a_fresh_set_and_many_wait_for_one_answer() -> None:
    async def scenario() -> None:
        world = World("one")
        waiting = [world.tokens.find(token("two", jti=str(number))) for number in range(20)]
        assert all(inspect.isawaitable(each) for each in waiting)
        tasks = [asyncio.ensure_future(each) for each in waiting]  # type: ignore[arg-type]
        while not world.asked:
            await asyncio.sleep(0)
        world.key_set.replace([public_jwk("one"), public_jwk("two")], 30.0)
        found = await asyncio.gather(*tasks)
        assert all(each is not None and each.key.user == "ada" for each in found)
        assert world.asked == 1

    asyncio.run(scenario())


def test_within_the_cool_down_an_unknown_key_is_refused_at_once() -> None:
    async def scenario() -> None:
        world = World("one")
        waiting = asyncio.ensure_future(world.tokens.find(token("two")))  # type: ignore[arg-type]
        while not world.asked:
            await asyncio.sleep(0)
        world.key_set.replace([public_jwk("one")], 30.0)
        assert await waiting is None
        for number in range(200):
            assert world.find(forged({"alg": "RS256", "kid": f"k{number}"}, {})) is None
        assert world.asked == 1

    asyncio.run(scenario())


def test_without_an_answer_nobody_waits_longer_than_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_WAIT", 0.05)

    async def scenario() -> None:
        world = World("one")
        assert await world.tokens.find(token("two", jti="1")) is None  # type: ignore[misc]
        assert world.find(token("two", jti="2")) is None
        assert world.asked == 1
        world.key_set.replace([public_jwk("two")], 30.0)  # late, but welcome
        assert world.find(token("two", jti="2")) is not None

    asyncio.run(scenario())


def test_where_nobody_fetches_keys_nothing_waits() -> None:
    key_set = KeySet()
    key_set.replace([public_jwk("one")], 0.0)
    found = Tokens(RULE, key_set, Keys().caller).find(token("two"))
    assert found is None


def test_the_same_keys_again_are_no_news() -> None:
    key_set = KeySet()
    assert key_set.replace([public_jwk("one")], 0.0)
    assert not key_set.replace([public_jwk("one")], 0.0)
    assert key_set.generation == 1


def test_keys_that_are_ready_are_not_made_again() -> None:
    key_set = KeySet()
    key_set.replace([public_jwk("one")], 0.0)
    check = Checker(RULE, key_set)
    check.check(token(), time.time())
    ready = dict(check._ready)
    check.check(token(jti="x"), time.time())
    assert check._ready == ready
