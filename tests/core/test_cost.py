"""Money: integer micro-dollars, rounded once."""

from __future__ import annotations

from fractions import Fraction
from types import SimpleNamespace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from gateway.core.call import Call
from gateway.core.cost import Price, PriceList, of_call
from gateway.core.route import Target
from gateway.core.usage import KINDS, PROVIDER, Usage

usd = st.decimals(min_value=0, max_value=1000, places=4).map(float)
tokens = st.integers(min_value=0, max_value=10**7)


def usage_of(counts: list[int]) -> Usage:
    return Usage(**dict(zip(KINDS, counts, strict=True)))  # type: ignore[arg-type]


def call_of(model: str, usage: Usage, target: Target) -> Call:
    call = Call("POST", "/chat/completions", "chat/completions", [], b"")
    call.model, call.usage, call.target = model, usage, target
    return call


def backends(kind: str = "openai") -> Any:
    return {"up": SimpleNamespace(kind=kind)}


def test_a_known_price_gives_the_known_cost() -> None:
    price = Price.of({"input": 0.15, "cached_input": 0.075, "output": 0.60})
    assert price.micros(Usage(input=1000, cached_input=2000, output=500)) == 150 + 150 + 300


def test_kinds_without_a_price_cost_what_their_like_does() -> None:
    price = Price.of({"input": 2.0, "output": 8.0})
    assert price.micros(Usage(reasoning=10)) == 80
    assert price.micros(Usage(cache_write=10, audio_input=10)) == 40


def test_a_price_per_request_is_added_once() -> None:
    assert Price.of({"request": 0.01}).micros(Usage()) == 10_000


def test_an_answer_without_usage_costs_the_price_of_a_call() -> None:
    prices = PriceList({"image": Price.of({"request": 0.04})})
    painted = call_of("image", Usage(), Target("up"))
    assert of_call(painted, backends(), prices) == 40_000
    assert of_call(painted, backends("echo"), prices) == 0
    painted.code = "upstream_error_status"
    assert of_call(painted, backends(), prices) == 0
    painted.code, painted.status = "", 307
    assert of_call(painted, backends(), prices) == 0


def test_what_asks_no_model_costs_nothing_where_calls_of_its_target_do() -> None:
    prices = PriceList({"image": Price.of({"request": 0.04})})
    upload = call_of("", Usage(), Target("up", model="image"))
    assert of_call(upload, backends(), prices) == 0
    listed = call_of("image", Usage(), Target("up"))
    listed.method = "GET"
    assert of_call(listed, backends(), prices) == 0
    unpriced = call_of("speech", Usage(), Target("up"))
    assert (of_call(unpriced, backends(), prices), unpriced.reasons) == (0, {})


@given(st.fixed_dictionaries({"input": usd, "output": usd}), st.lists(tokens, min_size=7, max_size=7))
def test_the_cost_is_the_exact_one_rounded_half_up(rates: dict[str, float], counts: list[int]) -> None:
    price = Price.of(rates)
    exact = sum(Fraction(n * rate, 10**6) for n, rate in zip(counts, price.rates, strict=True))
    assert price.micros(usage_of(counts)) == (exact + Fraction(1, 2)).__floor__()


def test_exact_names_win_over_globs_and_long_globs_over_short_ones() -> None:
    exact, long, short = (Price.of({"input": rate}) for rate in (1.0, 2.0, 3.0))
    prices = PriceList({"gpt-4o": exact, "gpt-4o*": long, "gpt-*": short})
    assert prices.find("gpt-4o") is exact
    assert prices.find("gpt-4o-mini") is long
    assert prices.find("gpt-3.5") is short
    assert prices.find("claude") is None


def test_the_price_is_that_of_the_model_that_answered() -> None:
    prices = PriceList({"mini": Price.of({"input": 1.0}), "fast": Price.of({"input": 9.0})})
    call = call_of("fast", Usage(input=10, source=PROVIDER), Target("up", "mini"))
    assert of_call(call, backends(), prices) == 10


def test_a_model_without_a_price_costs_nothing_and_says_so() -> None:
    call = call_of("x", Usage(input=10, source=PROVIDER), Target("up"))
    assert of_call(call, backends(), PriceList({})) == 0
    assert call.reasons == {"price": "unknown"}


def test_the_echo_is_free() -> None:
    call = call_of("x", Usage(input=10, source=PROVIDER), Target("up"))
    assert of_call(call, backends("echo"), PriceList({"x": Price.of({"input": 1.0})})) == 0
    assert call.reasons == {}
