"""Plain calls far from any limit: bounded in few steps, never by less than their measured claim."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.call import Call
from gateway.core.limit import LimitRule
from gateway.core.usage import PROVIDER, Usage
from gateway.stages.limits import Limits
from gateway.stages.limits.ample import WELL, ample
from gateway.stages.limits.claim import Claim
from gateway.stages.limits.terms import Terms
from tests.stages.given import parts
from tests.stages.test_limits import PRICES, chat, run, same

TOKENS = LimitRule("t", ("key",), "tokens", 100_000_000, 3600.0)
IMAGE = {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://a/b.png"}}]}


def known(rule: LimitRule = TOKENS, **document: Any) -> tuple[Limits, Call, Terms]:
    """A stage that has seen many answers to a caller, and one call of theirs."""
    stage = Limits({}, parts(limits=[rule], prices=PRICES))
    first = chat(max_tokens=50, **document)
    many(stage, first, WELL + 3)
    assert first.principal is not None
    (terms,) = first.principal.memo["limits"][1].values()
    assert terms.habits[0].seen >= WELL
    return stage, first, terms


def many(stage: Limits, first: Call, count: int) -> list[Call]:
    """Calls, one after the other."""
    return run(*[lambda: done(stage, same(first, max_tokens=50)) for _ in range(count)])


async def done(stage: Limits, made: Call) -> Call:
    waits = stage.admit(made)
    if waits is not None:
        await waits
    made.usage, made.outcome = Usage(input=9, output=20, source=PROVIDER), "ok"
    stage.settle(made)
    return made


def test_three_of_four_are_bounded_and_one_is_measured_and_learned_from() -> None:
    stage, first, terms = known()
    seen = terms.habits[0].seen
    bounded = many(stage, first, 40)
    assert len([made for made in bounded if "claim" not in made.memo]) == 30
    assert terms.habits[0].seen == seen + 10
    assert all(b"x-ratelimit-remaining-tokens" in made.memo["ratelimit"] for made in bounded)


def test_who_comes_near_the_end_of_a_limit_is_measured_each_time() -> None:
    stage, first, _ = known(LimitRule("t", ("key",), "tokens", 12_000, 3600.0))
    assert all("claim" in made.memo for made in many(stage, first, 8))


@pytest.mark.parametrize(
    "document",
    [
        {"max_tokens": 50, "n": 2},
        {"max_tokens": 50, "best_of": 2},
        {"stream": True},  # it may have to be topped up, also where its provider ignores a bound
        {"max_tokens": 50, "stream": True},
        {"max_tokens": 50, "messages": [IMAGE]},
        {"max_tokens": 50, "messages": [{"role": "user", "content": "a"}] * 17},
        {"max_tokens": 50, "messages": "a"},
        {"max_tokens": 50, "messages": [1]},
        {"max_tokens": 10**30},
    ],
    ids=str,
)
def test_what_is_not_plain_is_measured(document: dict[str, Any]) -> None:
    _, first, terms = known()
    made = same(first, **document)
    assert [ample(made, terms) for _ in range(4)] == [None] * 4


def test_other_endpoints_are_measured() -> None:
    _, first, terms = known()
    made = same(first, max_tokens=50)
    made.endpoint = "embeddings"
    assert [ample(made, terms) for _ in range(4)] == [None] * 4


def test_a_new_model_is_measured_until_its_answers_are_known() -> None:
    _, first, terms = known()
    terms.habits[0].seen = WELL - 1
    assert [ample(same(first, max_tokens=50), terms) for _ in range(4)] == [None] * 4


@given(
    texts=st.lists(st.text(max_size=60) | st.text("aä€\n", max_size=3000), max_size=6),
    bounds=st.dictionaries(
        st.sampled_from(["max_tokens", "max_completion_tokens", "max_output_tokens"]),
        st.integers(-1, 5000),
    ),
    overhead=st.integers(0, 500),
    cap=st.integers(0, 3000),
)
def test_the_bound_is_never_below_the_measured_claim(
    texts: list[str], bounds: dict[str, int], overhead: int, cap: int
) -> None:
    _, first, terms = KNOWN
    terms.habits[0].overhead, terms.cap, terms.habits[0].turn = overhead, cap, 0
    made = same(first, messages=[{"role": "user", "content": text} for text in texts], **bounds)
    found = ample(made, terms)
    assert found is not None
    claim = Claim(made, terms)
    requests, tokens, micros, calls, input, output = found
    assert (requests, calls, output) == (1, 1, claim.output)
    assert tokens == input + output >= claim.tokens and input >= claim.input and micros >= claim.micros()


KNOWN = known()
