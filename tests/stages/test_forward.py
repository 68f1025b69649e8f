"""The stage that asks: who is asked in which order, and what is known of it afterwards."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from gateway.core.call import Call
from gateway.core.cost import Price, PriceList
from gateway.core.errors import UpstreamError
from gateway.core.reply import Coming, Reply
from gateway.core.route import Plan, Target
from gateway.pipeline import failure
from gateway.stages.forward import Forward
from tests.backends.given import COMPLETION, Upstream, backend, document, run, upstream
from tests.stages.given import call, parts

CHAT = {"model": "m", "messages": [{"role": "user", "content": "Hello"}]}
PLAN = Plan((Target("first"), Target("second")), "exact", "m")
GOOD = document(COMPLETION)


class Slots:
    """A journal that counts the calls that are open."""

    def __init__(self) -> None:
        self.opened = 0

    def begin(self, record: bytes) -> int:
        self.opened += 1
        return self.opened


@asynccontextmanager
async def two(*, first: list[bytes]) -> AsyncIterator[tuple[Forward, Upstream, Upstream, Slots]]:
    """A stage over two providers, of which the first gives these answers in turn and the second good ones."""
    async with (
        upstream(lambda seen: first.pop(0)) as one,
        upstream(lambda seen: GOOD) as other,
        backend(one.port) as near,
        backend(other.port) as far,
    ):
        slots: Any = Slots()
        given = replace(parts(backends={"first": near, "second": far}), journal=slots)
        yield Forward(None, given), one, other, slots


def made() -> Call:
    fresh = call(document=CHAT)
    fresh.passed, fresh.plan = b"content-type: application/json\r\n", PLAN
    return fresh


async def told(coming: Coming) -> None:
    news = asyncio.Event()
    if coming.then(news.set):
        await news.wait()


async def asked(stage: Forward, fresh: Call) -> Reply:
    verdict: Any = stage.admit(fresh)
    answer: Reply = await verdict
    return answer


def test_a_call_whose_connection_is_free_is_under_way_at_once_and_its_answer_taken_when_told() -> None:
    async def scenario() -> None:
        async with two(first=[GOOD, GOOD]) as (stage, one, other, slots):
            await asked(stage, made())
            fresh = made()
            coming: Any = stage.admit(fresh)
            assert isinstance(coming, Coming)
            await told(coming)
            answer = coming.now()
            assert answer is not None
            assert (answer.status, fresh.tries, fresh.target) == (200, 1, PLAN.targets[0])
            assert fresh.replied >= fresh.first_byte >= fresh.sent > 0
            assert fresh.usage.input == 11
            assert slots.opened == len(one.seen) == 2
            assert other.seen == []

    run(scenario())


@pytest.mark.parametrize(("status", "why"), [(500, "status_500"), (429, "status_429")])
def test_a_bad_answer_to_a_call_under_way_has_the_next_target_asked(status: int, why: str) -> None:
    async def scenario() -> None:
        bad = document({"error": {"message": "no"}}, status=status)
        async with two(first=[GOOD, bad]) as (stage, one, other, slots):
            await asked(stage, made())
            fresh = made()
            coming: Any = stage.admit(fresh)
            await told(coming)
            assert coming.now() is None
            answer = await coming
            assert (answer.status, fresh.tries, fresh.target) == (200, 2, PLAN.targets[1])
            assert why in str(fresh.reasons)
            assert (len(one.seen), len(other.seen), slots.opened) == (2, 1, 2)

    run(scenario())


def test_a_call_that_is_given_up_leaves_nothing_under_way_and_the_next_one_is_answered() -> None:
    async def scenario() -> None:
        async with two(first=[GOOD, GOOD, GOOD]) as (stage, one, _, _):
            await asked(stage, made())
            coming: Any = stage.admit(made())
            coming.close()
            fresh = made()
            answer = await asked(stage, fresh)
            assert (answer.status, fresh.tries) == (200, 1)
            assert len(one.seen) in (2, 3)  # the one given up may never have been read

    run(scenario())


def test_the_last_target_s_error_is_the_call_s() -> None:
    async def scenario() -> None:
        bad = document({"error": {"message": "no"}}, status=503)
        async with two(first=[GOOD, b"no HTTP at all\r\n\r\n", bad]) as (stage, *_):
            await asked(stage, made())
            broken = made()
            broken.plan = Plan(PLAN.targets[:1], "exact", "m")
            with pytest.raises(UpstreamError):
                await asked(stage, broken)
            refused = made()
            refused.plan = broken.plan
            answer = await asked(stage, refused)
            assert (answer.status, refused.code) == (503, "upstream_error_status")

    run(scenario())


def saying(*stated: str | None) -> list[bytes]:
    """Answers with 429 that state these times to wait."""
    lines = [() if each is None else (f"retry-after: {each}",) for each in stated]
    return [document({"error": {"message": "no"}}, *each, status=429) for each in lines]


@pytest.mark.parametrize(
    ("stated", "shortest"),
    [
        (["70"], 70),
        (["300", "70"], 70),
        (["70", "300"], 70),
        ([None, "70"], 70),
        (["Fri, 31 Dec 9999 23:59:59 GMT", "70"], 70),
        (["soon"], None),
        ([None], None),
    ],
)
def test_the_shortest_retry_after_goes_along_with_the_last_targets_error(
    stated: list[str | None], shortest: int | None
) -> None:
    async def scenario() -> None:
        async with two(first=saying(*stated)) as (stage, *_), backend(1) as gone:  # nobody listens there
            stage._backends = {**stage._backends, "gone": gone}
            fresh = made()
            fresh.plan = Plan((*(Target("first"),) * len(stated), Target("gone")), "exact", "m")
            with pytest.raises(UpstreamError) as failed:
                await asked(stage, fresh)
            answer = failure(fresh, failed.value)
            assert (answer.status, fresh.code) == (502, "upstream_connect_failed")
            sent = dict(answer.headers).get(b"retry-after")
            if shortest is None:
                assert sent is None
            else:  # less what has passed since it was stated
                assert sent is not None and shortest - 30 <= int(sent) <= shortest

    run(scenario())


@pytest.mark.parametrize(("status", "cost"), [(200, 40_000), (307, 0), (400, 0)])
def test_an_answer_without_usage_costs_the_price_of_a_call_where_it_is_one(status: int, cost: int) -> None:
    async def scenario() -> None:
        answer = document({"data": []}, status=status)
        async with two(first=[answer]) as (stage, *_):
            stage._prices = PriceList({"m": Price.of({"request": 0.04})})
            painted = made()
            painted.path, painted.endpoint = "/images/generations", "images/generations"
            painted.plan = Plan(PLAN.targets[:1], "exact", "m")
            assert (await asked(stage, painted)).status == status
            assert painted.cost == cost

    run(scenario())
