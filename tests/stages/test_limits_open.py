"""Nobody is shut out by a guess: what was learned, or is not known yet, never refuses what would fit."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.core.call import Call
from gateway.core.cost import Price, PriceList
from gateway.core.limit import Denial, LimitRule
from gateway.core.usage import PROVIDER, Usage
from gateway.stages.limits import Limits
from gateway.stages.limits.habit import LATELY, Habit
from tests.stages.given import entry
from tests.stages.test_limits import chat, limits, refused, run, same


def used(stage: Limits, made: Call, input: int, output: int) -> None:
    """Admit the call and have its provider state so much."""

    def settle() -> None:
        made.usage = Usage(input=input, output=output, source=PROVIDER)
        made.outcome = "ok"
        made.cost = input + 2 * output
        stage.settle(made)

    run(lambda: stage.admit(made), settle)


def window(amount: int, unit: str = "tokens") -> LimitRule:
    return LimitRule(unit[0], ("key",), unit, amount, 60.0)


@pytest.mark.parametrize("bounds", [{}, {"max_tokens": 4096}, {"stream": True}])
@pytest.mark.parametrize("rule", [window(200), window(60, "output_tokens"), window(200, "usd")])
def test_a_small_limit_lets_small_calls_pass(rule: LimitRule, bounds: dict[str, Any]) -> None:
    stage, first = limits(rule), chat(**bounds)
    for _ in range(3):
        used(stage, same(first, **bounds), 9, 9)


def test_embeddings_claim_no_answer_however_little_is_left() -> None:
    stage, first = limits(window(100)), chat()
    for _ in range(4):
        made = same(first)
        made.endpoint = "embeddings"
        used(stage, made, 20, 0)
        assert made.hold is not None and made.hold.output == 0


def test_a_small_limit_is_used_up_by_small_calls() -> None:
    stage, first, count = limits(window(400)), chat(), 0
    with pytest.raises(Exception, match="leaves no room"):
        for count in range(40):  # noqa: B007
            used(stage, same(first), 9, 11)
    assert 0.85 * 400 <= 20 * count <= 400


def test_a_prompt_that_the_provider_kept_says_nothing_of_others() -> None:
    stage, first = limits(window(50_000)), chat()
    used(stage, same(first, previous_response_id="resp_1"), 60_000, 5)
    later = limits(window(50_000))  # as when the window is over
    linked, plain = same(first, previous_response_id="resp_2"), same(first)
    run(lambda: later.admit(linked))
    assert linked.hold is not None and linked.hold.tokens > 40_000
    assert isinstance(refused(later, [same(first, previous_response_id="resp_3")]), Exception)
    run(lambda: limits(window(50_000)).admit(plain))
    assert plain.hold is not None and plain.hold.tokens < 2000


@pytest.mark.parametrize("tokens", [60_000, (1 << 40) - 1])
def test_what_was_learned_never_asks_for_more_than_the_limit_gives(tokens: int) -> None:
    first = chat(max_tokens=50)
    used(limits(window(50_000)), same(first, max_tokens=50), tokens, 5)
    for _ in range(2 * LATELY):  # each in a window of its own
        made = same(first, max_tokens=50)
        used(limits(window(50_000)), made, 9, 5)
        assert made.hold is not None and made.hold.tokens <= 50_000
    plain = same(first, max_tokens=50)
    run(lambda: limits(window(50_000)).admit(plain))
    assert plain.hold is not None and plain.hold.tokens < 200  # and it is forgotten


def test_long_answers_of_others_do_not_shut_out_who_has_had_none() -> None:
    stage = limits(LimitRule("t", ("key",), "tokens", 20_000, 60.0, match="b"))
    others = chat(key=entry(name="a", id="key_a", tenant="a"))
    for _ in range(25):
        used(stage, same(others), 10, 30_000)
    mine = chat(key=entry(name="b", id="key_b", tenant="b"))
    for _ in range(3):
        used(stage, same(mine), 10, 20)


def test_a_model_without_a_price_passes_where_money_is_overspent() -> None:
    rules = window(1000, "usd"), window(5)
    stage = limits(rules[0], LimitRule("r", ("key",), "requests", 5, 60.0), prices=priced("m"))
    first = chat()
    used(stage, first, 10, 5000)
    assert refused(stage, [same(first)]).code == "policy_budget_exceeded"
    free = same(first)
    free.model = "free"
    run(lambda: stage.admit(free))
    assert free.hold is not None


def priced(model: str) -> PriceList:
    return PriceList({model: Price.of({"input": 1.0, "output": 2.0})})


# -- streams


def test_a_stream_that_is_cut_by_a_guess_makes_the_guess_smaller() -> None:
    made = chat(stream=True)
    stage = limits(window(20_000))
    run(lambda: stage.admit(made))
    habit: Habit = made.memo["claim"].terms.habits[0]
    for size in (3200, 3200):
        habit.wrote(size, 18_000)
    lengths = []
    for _ in range(5):
        fresh, later = limits(window(20_000)), same(made, stream=True)
        run(lambda: fresh.admit(later))  # noqa: B023
        text = 0
        with pytest.raises(Exception, match="was reached"):
            while True:
                text += 2048
                run(lambda: later.memo["growth"].look(text, None))  # noqa: B023
        lengths.append(text)
    assert lengths[0] < 8000 and lengths == sorted(lengths) and lengths[-1] > 40_000


class Slowly:
    """An authority that answers later, and has so much."""

    degraded = unusual = False

    def __init__(self, has: int) -> None:
        self.has, self.waiting, self.asked = has, [], []  # type: ignore[var-annotated]

    def top_up(self, hold: Any, charges: Any, done: Any) -> None:
        self.asked.append(charges[0][1])
        self.waiting.append((charges, done))

    def answer(self) -> None:
        while self.waiting:
            charges, done = self.waiting.pop(0)
            bucket, amount = charges[0]
            if amount <= self.has:
                self.has -= amount
                done(None)
            else:
                done(Denial(bucket.rule, bucket.value, self.has, 1.0))


def test_a_stream_takes_what_little_is_left_also_where_the_authority_answers_later() -> None:
    made = chat(stream=True)
    stage = limits(window(100_000))
    run(lambda: stage.admit(made))
    growth = made.memo["growth"]
    growth._leases = slowly = Slowly(200)
    assert made.hold is not None
    before = made.hold.output
    growth.look(int(before / 0.35), None)
    slowly.answer()
    assert made.hold.output - before == 200 and slowly.has == 0
    assert len(slowly.asked) <= 4  # a refusal says how much is left: nobody tries all sizes
