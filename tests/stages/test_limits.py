"""May they, now: reserved before, settled after, refused with what is left and when to come back."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.call import Call
from gateway.core.cost import Price, PriceList
from gateway.core.errors import PolicyError
from gateway.core.limit import Hold, LimitRule
from gateway.core.principal import KeyEntry
from gateway.core.route import Plan, Target
from gateway.core.usage import ESTIMATED, PROVIDER, UNKNOWN, Usage
from gateway.stages.limits import DEFAULT_OUTPUT, Limits
from tests.stages.given import Nowhere, call, entry, parts

PRICES = PriceList({"m": Price.of({"input": 1.0, "output": 2.0})})


def limits(*rules: LimitRule, **rest: Any) -> Limits:
    return Limits({}, parts(limits=rules, prices=rest.pop("prices", PRICES), **rest))


def chat(key: KeyEntry | None = None, target: Target | None = None, **document: Any) -> Call:
    made = call(document={"model": "m", "messages": [{"role": "user", "content": "Hello"}], **document})
    made.principal = call(key=key or entry()).principal
    made.plan = Plan((target or Target("up"),), "exact", "m")
    return made


def same(principal_of: Call, **document: Any) -> Call:
    """Another call of the same principal."""
    made = chat(**document)
    made.principal = principal_of.principal
    return made


def run(*steps: Any) -> list[Any]:
    """Run steps on one event loop, where the leases have their clock."""

    async def scenario() -> list[Any]:
        results = []
        for step in steps:
            result = step()
            results.append(await result if inspect.isawaitable(result) else result)
        return results

    return asyncio.run(scenario())


def refused(stage: Limits, calls: Sequence[Call]) -> PolicyError:
    with pytest.raises(PolicyError) as caught:
        run(*(lambda made=made: stage.admit(made) for made in calls))
    assert caught.value.status == 429
    return caught.value


def told(made: Call) -> dict[bytes, bytes]:
    """The x-ratelimit-* headers of a call's answer."""
    *lines, rest = made.memo["ratelimit"].split(b"\r\n")
    assert rest == b""
    return {name: value for name, _, value in (line.partition(b": ") for line in lines)}


def test_without_rules_the_hold_still_says_what_the_call_may_use() -> None:
    made = chat(max_tokens=100)
    run(lambda: limits().admit(made))
    assert made.hold is not None
    prompt = (len(made.body) + 3) // 4
    assert (made.hold.tokens, made.hold.micros) == (prompt + 100, prompt + 200)
    assert "ratelimit" not in made.memo


@pytest.mark.parametrize(
    ("bounds", "output"),
    [
        ({}, DEFAULT_OUTPUT),
        ({"max_tokens": 10}, 10),
        ({"max_completion_tokens": 20}, 20),
        ({"max_output_tokens": 30}, 30),
        ({"max_tokens": 10, "n": 3}, 30),
        ({"max_tokens": 10, "n": 10**9}, 1280),
        ({"max_tokens": -5}, DEFAULT_OUTPUT),
        ({"max_tokens": "many", "n": True}, DEFAULT_OUTPUT),
        ({"max_tokens": None, "n": None}, DEFAULT_OUTPUT),
    ],
)
def test_the_answer_is_reserved_as_long_as_the_caller_allows(bounds: dict[str, Any], output: int) -> None:
    made = chat(**bounds)
    run(lambda: limits().admit(made))
    assert made.hold is not None
    assert made.hold.tokens == (len(made.body) + 3) // 4 + output


def test_embeddings_reserve_no_answer_and_calls_without_a_model_nothing() -> None:
    embedding, listing = chat(), chat()
    embedding.endpoint = "embeddings"
    listing.document, listing.model = None, ""
    run(lambda: limits().admit(embedding), lambda: limits().admit(listing))
    assert embedding.hold is not None and embedding.hold.tokens == (len(embedding.body) + 3) // 4
    assert listing.hold is not None and (listing.hold.tokens, listing.hold.micros) == (0, 0)


def test_the_request_beyond_the_limit_is_refused_and_says_all_about_it() -> None:
    stage = limits(LimitRule("r", ("key",), "requests", 2, 60.0))
    first = chat()
    error = refused(stage, [first, same(first), same(first)])
    assert error.code == "policy_rate_limited"
    assert "2 requests in 60 s per key" in error.message and "0 requests left" in error.message
    assert error.retry_after is not None and 1 <= error.retry_after <= 61
    headers = dict(error.headers)
    assert headers[b"x-ratelimit-limit-requests"] == b"2"
    assert headers[b"x-ratelimit-remaining-requests"] == b"0"
    assert headers[b"x-ratelimit-reset-requests"] == b"60s"


def test_what_is_left_is_told_with_each_answer() -> None:
    stage = limits(
        LimitRule("r", ("key",), "requests", 5, 60.0), LimitRule("t", ("key",), "tokens", 10_000, 60.0)
    )
    first, second = chat(max_tokens=10), chat(max_tokens=10)
    second.principal = first.principal
    run(lambda: stage.admit(first), lambda: stage.admit(second))
    one, two = told(first), told(second)
    assert (one[b"x-ratelimit-remaining-requests"], two[b"x-ratelimit-remaining-requests"]) == (b"4", b"3")
    assert one[b"x-ratelimit-limit-tokens"] == b"10000"
    assert int(two[b"x-ratelimit-remaining-tokens"]) < int(one[b"x-ratelimit-remaining-tokens"]) < 10_000


def test_the_tightest_of_several_rules_is_told() -> None:
    stage = limits(
        LimitRule("a", ("global",), "requests", 100, 60.0), LimitRule("b", ("key",), "requests", 3, 60.0)
    )
    made = chat()
    run(lambda: stage.admit(made))
    assert told(made)[b"x-ratelimit-limit-requests"] == b"3"


@pytest.mark.parametrize("rules", [1, 2])
@given(left=st.integers(-5, 15), free=st.integers(-5, 15), amount=st.integers(0, 10))
def test_what_is_told_is_how_the_leases_say_a_bucket_stands(
    rules: int, left: int, free: int, amount: int
) -> None:
    stage = limits(*(LimitRule(f"t{n}", ("key",), "tokens", amount, 59.5) for n in range(rules)))
    made = chat()
    terms = stage._compiler.compile(made.principal, made, {}, "")  # type: ignore[arg-type]
    for bucket in terms.buckets:
        bucket.left, bucket.free = left, free
    stage._keep(made, terms, None, Hold(0, 0))
    _, remaining, reset = stage._leases.standing(terms.buckets[0])  # type: ignore[misc]
    assert told(made) == {
        b"x-ratelimit-limit-tokens": b"%d" % amount,
        b"x-ratelimit-remaining-tokens": b"%d" % remaining,
        b"x-ratelimit-reset-tokens": b"60s" if reset else b"0s",
    }


def test_a_calendar_window_is_told_with_the_time_to_its_end() -> None:
    stage = limits(LimitRule("r", ("key",), "requests", 5, 0.0, "minute"))
    made = chat()
    run(lambda: stage.admit(made))
    assert told(made)[b"x-ratelimit-remaining-requests"] == b"4"
    assert 0 < int(told(made)[b"x-ratelimit-reset-requests"].removesuffix(b"s")) <= 60


def test_what_was_not_used_comes_back() -> None:
    stage = limits(LimitRule("t", ("key",), "tokens", 1100, 60.0))
    first = chat()
    second = same(first)

    def settle() -> None:
        first.usage = Usage(input=10, output=10, source=PROVIDER)
        stage.settle(first)

    run(lambda: stage.admit(first), settle, lambda: stage.admit(second))
    assert second.hold is not None and not second.hold.settled
    assert first.hold is not None and first.hold.settled


def test_unknown_usage_is_charged_as_it_was_held() -> None:
    stage = limits(LimitRule("t", ("key",), "tokens", 1100, 60.0))
    first = chat()

    def settle() -> None:
        first.usage = Usage(source=UNKNOWN)
        stage.settle(first)

    with pytest.raises(PolicyError):
        run(lambda: stage.admit(first), settle, lambda: stage.admit(same(first)))


def test_a_call_that_failed_upstream_is_charged_no_tokens() -> None:
    stage = limits(LimitRule("t", ("key",), "tokens", 1100, 60.0))
    first = chat()
    second = same(first)
    run(lambda: stage.admit(first), lambda: stage.settle(first), lambda: stage.admit(second))
    assert second.hold is not None


def test_money_is_held_at_its_ceiling_and_settled_at_its_cost() -> None:
    stage = limits(LimitRule("u", ("key",), "usd", 2200, 0.0, "month"))
    first = chat()
    second = same(first)

    def settle() -> None:
        first.usage, first.cost = Usage(input=10, output=10, source=ESTIMATED), 30
        stage.settle(first)

    run(lambda: stage.admit(first), settle, lambda: stage.admit(second))
    error = refused(stage, [same(first)])
    assert error.code == "policy_budget_exceeded"
    assert "$0.0022 per calendar month per key" in error.message


def test_a_model_without_a_price_holds_no_money_and_says_so() -> None:
    stage = limits(LimitRule("u", ("key",), "usd", 5, 0.0, "month"), prices=PriceList({}))
    made = chat()
    run(lambda: stage.admit(made))
    assert made.hold is not None and made.hold.micros == 0
    assert made.reasons == {"price": "unknown", "limits": "unpriced"}


def test_calls_at_once_are_counted_and_let_go() -> None:
    stage = limits(LimitRule("c", ("key",), "concurrent", 1))
    first = chat()
    second, third = same(first), same(first)
    caught: list[str] = []

    run(lambda: stage.admit(first), lambda: _refused_now(stage, second, caught), lambda: stage.settle(first),
        lambda: stage.admit(third))  # fmt: skip
    assert caught == ["policy_concurrency_limited"]
    assert third.hold is not None


async def _refused_now(stage: Limits, made: Call, caught: list[str]) -> None:
    try:
        verdict = stage.admit(made)
        if inspect.isawaitable(verdict):
            await verdict
    except PolicyError as error:
        caught.append(error.code)


def test_a_call_larger_than_the_limit_is_not_told_to_wait() -> None:
    error = refused(limits(LimitRule("t", ("key",), "tokens", 100, 60.0)), [chat(max_tokens=5000)])
    assert error.retry_after is None
    assert "larger than the limit itself" in error.message


def test_rules_apply_by_scope_and_match() -> None:
    rules = [
        LimitRule("g", ("global",), "requests", 100, 60.0),
        LimitRule("t", ("tenant",), "requests", 100, 60.0, match="acme"),
        LimitRule("o", ("tenant",), "requests", 100, 60.0, match="other"),
        LimitRule("tm", ("tenant", "model"), "requests", 100, 60.0, match="acme/*"),
        LimitRule("b", ("backend",), "requests", 100, 60.0),
        LimitRule("u", ("user",), "requests", 100, 60.0),
    ]
    made = chat(key=entry(tenant="acme"))
    run(lambda: limits(*rules).admit(made))
    assert made.hold is not None
    assert [(b.rule.id, b.value) for b, _ in made.hold.charges] == [
        ("g", ""),
        ("t", "acme"),
        ("tm", "acme/m"),
        ("b", "up"),
    ]


def test_a_new_revision_brings_its_own_rules_to_known_callers() -> None:
    old, new = limits(LimitRule("r", ("key",), "requests", 9, 60.0)), limits()
    first = chat()
    second = same(first)
    run(lambda: old.admit(first), lambda: new.admit(second))
    assert first.hold is not None and len(first.hold.charges) == 1
    assert second.hold is not None and second.hold.charges == ()


def test_a_rule_in_shadow_mode_refuses_nothing() -> None:
    stage = limits(LimitRule("r", ("key",), "requests", 1, 60.0, mode="shadow"))
    first = chat()
    calls = [first, same(first), same(first)]
    run(*(lambda made=made: stage.admit(made) for made in calls))
    assert all(made.hold is not None for made in calls)


def test_the_echo_costs_nothing() -> None:
    echo = Nowhere("echo")
    echo.kind = "echo"
    made = chat(target=Target("echo"))
    run(lambda: limits(backends={"echo": echo}, prices=PriceList({})).admit(made))
    assert made.hold is not None and made.hold.micros == 0
    assert made.reasons == {}


def test_what_is_compiled_is_bounded() -> None:
    stage = limits(LimitRule("m", ("model",), "requests", 10**6, 60.0))
    first = chat()
    calls = [same(first) for _ in range(600)]
    for number, made in enumerate(calls):
        made.model = f"m{number}"
    run(*(lambda made=made: stage.admit(made) for made in calls))
    assert first.principal is not None
    assert len(first.principal.memo["limits"][1]) <= 256


def test_settling_twice_or_without_a_hold_does_nothing() -> None:
    stage = limits(LimitRule("r", ("key",), "requests", 2, 60.0))
    made = chat()
    run(
        lambda: stage.settle(made),
        lambda: stage.admit(made),
        lambda: stage.settle(made),
        lambda: stage.settle(made),
    )
    assert made.hold is not None and made.hold.settled


def test_a_rule_over_keys_is_matched_by_the_keys_name() -> None:
    rules = [
        LimitRule("named", ("key",), "requests", 9, 60.0, match="ci-*"),
        LimitRule("other", ("key",), "requests", 9, 60.0, match="web-*"),
    ]
    made = chat(key=replace(entry(), name="ci-nightly"))
    run(lambda: limits(*rules).admit(made))
    assert made.hold is not None and [b.rule.id for b, _ in made.hold.charges] == ["named"]


def test_a_shadow_rule_is_not_told_to_the_caller() -> None:
    stage = limits(
        LimitRule("s", ("key",), "requests", 3, 60.0, mode="shadow"),
        LimitRule("e", ("key",), "requests", 6, 60.0),
    )
    made = chat()
    run(lambda: stage.admit(made))
    assert told(made)[b"x-ratelimit-limit-requests"] == b"6"


def test_refusals_are_counted_by_rule() -> None:
    given = parts(limits=(LimitRule("r", ("key",), "requests", 1, 60.0),), prices=PRICES)
    first = chat()
    refused(Limits({}, given), [first, same(first), same(first)])
    assert given.counts == {("limits", "r", "refused"): 1}
