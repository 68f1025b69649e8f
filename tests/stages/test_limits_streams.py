"""Streams of unknown length: they end where the limit does, whatever they are made of."""

from __future__ import annotations

import asyncio
import gc
import json
import time
from dataclasses import replace
from typing import Any

import pytest

from gateway.core.call import Call
from gateway.core.errors import PolicyError
from gateway.core.limit import LimitRule
from gateway.core.prompt import guessed_text
from gateway.core.tap import ChatTap
from gateway.core.usage import PROVIDER, Usage
from gateway.stages.limits import Limits
from gateway.stages.limits.growth import Growth
from gateway.stores.leases import bounds
from tests.link.world import World
from tests.stages.given import parts
from tests.stages.test_limits import PRICES, chat, limits, run
from tests.stages.test_meter_guess import TEXTS

BYTES = 4  # a token of " tok"
DENSITY = 0.25  # tokens a byte, as the gateway guesses


def begun(rule: LimitRule, **document: Any) -> tuple[Call, ChatTap]:
    """A stream that is admitted, and the tap that its answer passes through."""
    made, tap = chat(stream=True, **document), ChatTap()
    run(lambda: limits(rule).admit(made))
    made.memo["growth"].watch(tap)
    return made, tap


def frame(text: str, **more: Any) -> bytes:
    chunk = {"id": "c", "choices": [{"index": 0, "delta": {"content": text}}], **more}
    return b"data: %b\n\n" % json.dumps(chunk).encode()


def passed(tap: ChatTap, text: str, most: int, **more: Any) -> tuple[int, PolicyError | None]:
    """How many such pieces pass before the stream is ended, and by what."""
    piece, number = frame(text, **more), 0
    try:
        for number in range(most):  # noqa: B007
            run(lambda: tap.feed(piece))
    except PolicyError as error:
        return number, error
    return most, None


def test_a_stream_longer_than_what_is_kept_of_it_is_ended_too() -> None:
    _, tap = begun(LimitRule("o", ("key",), "output_tokens", 100_000, 3600.0))
    pieces, error = passed(tap, " tok" * 1000, 300)
    assert error is not None and error.code == "policy_rate_limited"
    assert 65 <= pieces <= 102


@pytest.mark.parametrize("most", [10, 500])
def test_a_stream_whose_provider_ignores_its_bound_is_ended_where_the_limit_is(most: int) -> None:
    made, tap = begun(LimitRule("o", ("key",), "output_tokens", 3000, 3600.0), max_tokens=most)
    assert made.hold is not None and made.hold.output == most
    pieces, error = passed(tap, " tok" * 10, 900)
    assert error is not None and error.code == "policy_rate_limited"
    assert 290 <= pieces <= 310


def test_a_stream_that_may_have_kept_to_its_bound_holds_no_more_and_runs_on() -> None:
    rule = LimitRule("o", ("key",), "output_tokens", 1000, 3600.0)
    made, tap = begun(rule, max_tokens=1000)
    assert made.hold is not None and made.hold.output == 1000
    assert passed(tap, " tok" * 10, 200) == (200, None)
    assert made.hold.output == 1000


def test_a_stream_that_has_ended_leaves_nothing_to_the_garbage_collector() -> None:
    stage = limits(LimitRule("o", ("key",), "output_tokens", 100_000, 3600.0))

    def whole_call(**document: Any) -> None:
        made, tap = chat(stream=True, **document), ChatTap()
        run(lambda: stage.admit(made))
        made.memo["growth"].watch(tap)
        made.memo["tap"] = tap  # as whoever books it may keep it
        passed(tap, " tok" * 1000, 9)
        made.usage, made.outcome = Usage(input=9, output=9000, source=PROVIDER), "ok"
        stage.settle(made)

    gc.collect()
    gc.disable()
    try:
        for document in ({}, {"max_tokens": 500}):
            whole_call(**document)
        assert not [each for each in gc.get_objects() if type(each) is Growth]
    finally:
        gc.enable()


USAGE = {"prompt_tokens": 10, "total_tokens": 10}


@pytest.mark.parametrize("said", [0, 1])
@pytest.mark.parametrize("always", [False, True])
def test_a_usage_that_is_stated_too_early_switches_nothing_off(said: int, always: bool) -> None:
    _, tap = begun(LimitRule("o", ("key",), "output_tokens", 3000, 3600.0))
    more: dict[str, Any] = {"usage": {**USAGE, "completion_tokens": said}}
    tap.feed(frame("", **more))
    pieces, error = passed(tap, " tok" * 10, 900, **more if always else {})
    assert error is not None and 200 <= pieces <= 320


def test_counts_that_are_stated_all_along_are_believed_more_than_the_text() -> None:
    _, tap = begun(LimitRule("o", ("key",), "output_tokens", 3000, 3600.0))
    count = 0
    with pytest.raises(PolicyError, match="0 output tokens left, by what its provider has counted"):
        for count in range(0, 4000, 3):
            more = {**USAGE, "completion_tokens": count}
            run(lambda: tap.feed(frame("overconfident responsibility", usage=more)))  # noqa: B023
    assert 2950 <= count <= 3060


def test_what_comes_after_the_last_count_is_added_to_it() -> None:
    _, tap = begun(LimitRule("o", ("key",), "output_tokens", 3000, 3600.0))
    tap.feed(frame(" tok" * 600, usage={**USAGE, "completion_tokens": 600}))
    pieces, error = passed(tap, " tok" * 600, 9)
    assert error is not None and pieces in (2, 3, 4)


# ---------------------------------------------------------------- while the authority is asked


class Far(World):
    """Stages whose authority answers between two pieces, as it does over a link."""

    def __init__(self, rule: LimitRule, workers: int = 1) -> None:
        super().__init__([rule], workers)
        given = parts(limits=(rule,), prices=PRICES)
        self.stages = [Limits({}, replace(given, leases=client)) for client in self.clients.values()]

    def begin(self, number: int, principal_of: Call | None = None) -> tuple[Call, ChatTap]:
        """As `begun`, at one of the workers."""
        made, tap = chat(stream=True), ChatTap()
        if principal_of is not None:
            made.principal = principal_of.principal

        async def admitted() -> None:
            verdict = self.stages[number].admit(made)
            if verdict is not None:
                waiting = asyncio.ensure_future(verdict)
                while not waiting.done():
                    await asyncio.sleep(0)
                    self.pump()

        asyncio.run(admitted())
        made.memo["growth"].watch(tap)
        return made, tap

    def pass_on(self, tap: ChatTap, text: str, most: int = 10_000) -> int:
        """How many pieces pass before the stream is ended."""
        piece = frame(text)
        for number in range(most):
            try:
                tap.feed(piece)
            except PolicyError:
                return number
            self.wait(0.005)
        return most


RULES = [
    LimitRule("o", ("key",), "output_tokens", 2000, 3600.0),
    LimitRule("t", ("key",), "tokens", 2000, 3600.0),
    LimitRule("u", ("key",), "usd", 4000, 3600.0),
]


@pytest.mark.parametrize("rule", RULES, ids=["output", "tokens", "usd"])
@pytest.mark.parametrize("tokens", [1, 5, 50, 100, 400, 700])
def test_a_stream_alone_goes_beyond_the_limit_by_no_more_than_comes_between_two_looks(
    rule: LimitRule, tokens: int
) -> None:
    world = Far(rule)
    made, tap = world.begin(0)
    size = len(frame(" tok" * tokens))
    look = (2048 // size + 1) * tokens
    come = world.pass_on(tap, " tok" * tokens) * tokens
    assert 0.99 * 2000 - look <= come * BYTES * DENSITY <= 2000 + look * BYTES * DENSITY
    assert made.hold is not None and made.hold.output <= 2000


def test_a_stream_goes_on_with_what_another_call_has_given_back_meanwhile() -> None:
    rule = LimitRule("o", ("key",), "output_tokens", 3000, 3600.0)
    stage, (other, slow) = limits(rule), (chat(max_tokens=600), chat(stream=True))
    slow.principal = other.principal
    run(lambda: stage.admit(other), lambda: stage.admit(slow))
    growth, full = slow.memo["growth"], int(2400 / 0.35)  # so dense is what can't be looked at
    run(lambda: growth.look(full - 100, None))
    assert slow.hold is not None and slow.hold.output == 2400  # and no more was to be had
    other.usage, other.outcome = Usage(input=8, output=1, source=PROVIDER), "ok"
    run(lambda: stage.settle(other), lambda: growth.look(full + 100, None))
    assert slow.hold.output > 2400


# ---------------------------------------------------------------- by what is written, and what is said


@pytest.mark.parametrize("text", TEXTS)
def test_a_stream_is_ended_where_what_it_would_be_charged_reaches_the_limit(text: str) -> None:
    _, tap = begun(LimitRule("o", ("key",), "output_tokens", 20_000, 3600.0))
    pieces = [text[at : at + 40] for at in range(0, len(text), 40)] * 1000
    with pytest.raises(PolicyError):
        for piece in pieces:
            run(lambda: tap.feed(frame(piece)))  # noqa: B023
    assert 0.97 * 20_000 <= guessed_text(tap.text) <= 1.03 * 20_000


@pytest.mark.parametrize("rule", RULES, ids=["output", "tokens", "usd"])
def test_a_stream_that_used_a_limit_up_alone_says_that_the_window_has_to_pass(rule: LimitRule) -> None:
    _, tap = begun(rule)
    _, error = passed(tap, " tok" * 10, 900)
    assert error is not None and error.retry_after == 3660
    left = "$0" if rule.unit == "usd" else f"0 {rule.unit.replace('_', ' ')}"
    assert f"{left} left" in error.message and error.message.endswith("Try again in 3660 s.")
    assert f"The limit {rule.id} of" in error.message


def test_a_calendar_limit_says_when_its_period_ends() -> None:
    _, tap = begun(LimitRule("o", ("key",), "output_tokens", 2000, calendar="month"))
    _, error = passed(tap, " tok" * 10, 900)
    ends = bounds("month", time.time(), "UTC")[1] - time.time()
    assert error is not None and error.retry_after == pytest.approx(ends, abs=60)


def test_what_others_have_used_is_free_before_the_window_has_passed() -> None:
    world = Far(LimitRule("o", ("key",), "output_tokens", 2000, 3600.0))
    first, tap = world.begin(0)
    tap.feed(frame(" tok" * 800))
    first.usage, first.outcome = Usage(input=8, output=800, source=PROVIDER), "ok"
    world.stages[0].settle(first)
    world.wait(1800.0, 60.0)
    _, tap = world.begin(0, first)
    with pytest.raises(PolicyError) as caught:
        for _ in range(900):
            tap.feed(frame(" tok" * 10))
            world.wait(0.005)
    assert 1700 <= caught.value.retry_after <= 1870  # type: ignore[operator]
