"""May they, now: reserved before, settled after, refused with what is left and when to come back."""

from __future__ import annotations

import asyncio
import inspect
import json
import re
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.call import Call
from gateway.core.cost import Price, PriceList
from gateway.core.endpoints import BOUNDS
from gateway.core.errors import PolicyError
from gateway.core.hold import Hold
from gateway.core.limit import Denial, LimitRule, Raise
from gateway.core.principal import KeyEntry
from gateway.core.route import ModelRule, Plan, Target
from gateway.core.usage import ESTIMATED, PROVIDER, UNKNOWN, Usage
from gateway.link.leases import local
from gateway.stages.limits import DEFAULT_OUTPUT, Limits
from gateway.stages.limits.refusal import refused as build_refusal
from gateway.stores.leases import Authority
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
        ({"max_output_tokens": 30}, DEFAULT_OUTPUT),  # means nothing to this endpoint
        ({"max_tokens": 10, "n": 3}, 30),
        ({"max_tokens": 10, "n": 10**9}, 1280),
        ({"max_tokens": 10, "n": 3.0}, 30),
        ({"max_tokens": 10, "n": " 3 "}, 30),
        ({"max_tokens": 10, "n": 10**400}, 1280),
        ({"max_tokens": 10, "n": "1e999"}, 1280),
        ({"max_tokens": 10, "n": "many"}, 10),
        ({"max_tokens": 10, "n": -5.0}, 10),
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


@pytest.mark.parametrize(
    ("endpoint", "name"),
    [
        ("chat/completions", "max_tokens"),
        ("chat/completions", "max_completion_tokens"),
        ("completions", "max_tokens"),
        ("messages", "max_tokens"),
        ("responses", "max_output_tokens"),
    ],
)
def test_no_bound_but_the_endpoints_own_makes_a_reservation_smaller(endpoint: str, name: str) -> None:
    foreign = {"max_tokens": 1, "max_completion_tokens": 1, "max_output_tokens": 1}
    for own in BOUNDS[endpoint]:
        del foreign[own]
    alone, beside = chat(**foreign), chat(**foreign, **{name: 700})
    alone.endpoint = beside.endpoint = endpoint
    stage = limits(ROOMY)
    run(lambda: stage.admit(alone), lambda: stage.admit(beside))
    assert alone.hold is not None and alone.hold.output == DEFAULT_OUTPUT
    assert beside.hold is not None and beside.hold.output == 700


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
    assert (
        "2 requests in 60 s per key" in error.message
        and "0 requests left, 1 request needed." in error.message
    )
    assert error.retry_after is not None and 1 <= error.retry_after <= 61
    headers = dict(error.headers)
    assert headers[b"x-ratelimit-limit-requests"] == b"2"
    assert headers[b"x-ratelimit-remaining-requests"] == b"0"
    assert headers[b"x-ratelimit-reset-requests"] == b"61s"


@pytest.mark.parametrize("unit", ["requests", "tokens", "usd"])
@pytest.mark.parametrize(
    "window",
    [{"seconds": 3600.0}, {"seconds": 59.5}, {"calendar": "hour"}, {"seconds": 60.0, "burst": 1}],
    ids=["rolling", "odd", "calendar", "burst"],
)
def test_no_answer_says_that_a_limit_is_whole_before_the_refusal_says_to_come_back(
    unit: str, window: dict[str, Any]
) -> None:
    if unit != "requests":
        window = {name: value for name, value in window.items() if name != "burst"}
    rule = LimitRule("r", ("key",), unit, 1 if unit == "requests" else 1000, **window)
    stage = limits(rule)
    first, second = chat(max_tokens=10), chat(max_tokens=10)
    second.principal = first.principal
    run(lambda: stage.admit(first))
    amount = {"requests": 1, "tokens": 1000, "usd": 1000}[unit]
    bucket = stage._leases.bucket(rule, first.principal.key.id)  # type: ignore[union-attr]
    denial = stage._leases.take(((bucket, amount),))

    async def taken() -> Any:
        return await denial

    refusal = asyncio.run(taken())
    assert isinstance(refusal, Denial)
    made = build_refusal(refusal, ((bucket, amount),), first.memo.get("ratelimit", b""))
    headers = dict(made.headers)
    assert made.retry_after is not None
    resets = {n: int(v.removesuffix(b"s")) for n, v in headers.items() if n.startswith(b"x-ratelimit-reset")}
    assert resets and all(reset >= made.retry_after for reset in resets.values())


def test_a_reset_that_another_clock_told_is_not_before_the_retry() -> None:
    rule = LimitRule("r", ("key",), "requests", 10, calendar="minute")
    wire = b"x-ratelimit-limit-requests: 10\r\nx-ratelimit-reset-requests: 4s\r\n"
    wire += b"x-ratelimit-reset-tokens: 9s\r\n"
    headers = dict(build_refusal(Denial(rule, "k", 0, 29.2), (), wire).headers)
    assert headers[b"x-ratelimit-reset-requests"] == b"30s"
    assert headers[b"x-ratelimit-reset-tokens"] == b"9s" and headers[b"x-ratelimit-limit-requests"] == b"10"


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
        b"x-ratelimit-reset-tokens": b"61s" if reset else b"0s",
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

    second = same(first)
    run(lambda: stage.admit(first), settle, lambda: stage.admit(second))
    assert first.hold is not None and second.hold is not None
    assert first.hold.tokens > 1024 and second.hold.tokens <= 1100 - first.hold.tokens


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
    error = refused(stage, [same(first) for _ in range(99)])
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
    long = chat(max_tokens=5000, messages=[{"role": "user", "content": "Hello " * 400}])
    error = refused(limits(LimitRule("t", ("key",), "tokens", 100, 60.0)), [long])
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


# ---------------------------------------------------------------- scopes and units


def charged(made: Call) -> dict[str, int]:
    """What the hold of a call takes of each bucket, by "rule|value"."""
    assert made.hold is not None
    return {f"{bucket.rule.id}|{bucket.value}": amount for bucket, amount in made.hold.charges}


def test_each_tag_of_a_call_has_a_bucket_of_its_own_and_all_are_charged() -> None:
    rules = [
        LimitRule("g", ("tag",), "requests", 100, 60.0),
        LimitRule("b", ("tenant", "tag"), "requests", 100, 60.0, match="acme/workflow:*"),
    ]
    made, untagged = chat(key=entry(tenant="acme")), chat(key=entry(tenant="acme"))
    made.tags = ("workflow:a", "blue", "workflow:a")
    stage = limits(*rules)
    run(lambda: stage.admit(made), lambda: stage.admit(untagged))
    assert charged(made) == {"g|workflow:a": 1, "g|blue": 1, "b|acme/workflow:a": 1}
    assert charged(untagged) == {}


def test_calls_of_one_caller_with_other_tags_are_counted_apart() -> None:
    stage = limits(LimitRule("g", ("tag",), "requests", 1, 60.0))
    first = chat()
    calls = [first, same(first), same(first)]
    for made, tags in zip(calls, (("a",), ("b",), ("b",)), strict=True):
        made.tags = tags
    error = refused(stage, calls)
    assert "1 request " in error.message and calls[1].hold is not None


def test_tokens_are_counted_by_side() -> None:
    stage = limits(
        LimitRule("i", ("key",), "input_tokens", 10**6, 60.0),
        LimitRule("o", ("key",), "output_tokens", 10**6, 60.0),
        LimitRule("t", ("key",), "tokens", 10**6, 60.0),
    )
    made = chat(max_tokens=100)

    def settle() -> None:
        made.usage = Usage(input=30, cached_input=10, output=5, reasoning=2, source=PROVIDER)
        stage.settle(made)

    run(lambda: stage.admit(made), settle)
    held = charged(made)
    assert held["o|key_1"] == 100 and held["i|key_1"] + 100 == held["t|key_1"]
    spent = {bucket.rule.id: 10**6 - bucket.left - bucket.free for bucket, _ in made.hold.charges}  # type: ignore[union-attr, attr-defined]
    assert spent == {"i": 40, "o": 7, "t": 47}


# ---------------------------------------------------------------- how much is claimed


def learned(stage: Limits, output: int, calls: int = 40, **document: Any) -> Call:
    """A caller whose answers have had this length; gives a call to go on from."""
    first = chat(**document)
    for _ in range(calls):
        made = same(first, **document)
        run(lambda made=made: stage.admit(made))
        made.usage, made.outcome = Usage(input=20, output=output, source=PROVIDER), "ok"
        stage.settle(made)
    return first


ROOMY = LimitRule("t", ("key",), "tokens", 10**7, 60.0)


def test_an_answer_that_nobody_bounds_is_held_as_long_as_answers_usually_are() -> None:
    stage = limits(ROOMY)
    made = same(learned(stage, 300))
    run(lambda: stage.admit(made))
    assert made.hold is not None and 300 <= made.hold.output <= 375


def test_a_new_key_is_taken_to_be_like_the_others() -> None:
    stage = limits(ROOMY)
    learned(stage, 300, key=entry(id="key_1", tenant="acme"))
    other = chat(key=entry(id="key_2", tenant="acme"))
    run(lambda: stage.admit(other))
    assert other.hold is not None and 300 <= other.hold.output <= 375


def test_a_models_cap_bounds_what_is_held() -> None:
    rule = ModelRule("m", (Target("up"),), max_output=64)
    made = chat(max_tokens=100_000)
    run(lambda: limits(ROOMY, models=[rule]).admit(made))
    assert made.hold is not None and made.hold.output == 64
    assert made.document is not None and made.document["max_tokens"] == 100_000


def test_while_there_is_plenty_the_whole_bound_is_held_and_the_body_is_left_alone() -> None:
    made = chat(max_tokens=32_000)
    before = made.body
    run(lambda: limits(ROOMY).admit(made))
    assert made.hold is not None and made.hold.output == 32_000
    assert made.body is before and made.reasons == {}


@pytest.mark.parametrize(
    ("endpoint", "name"),
    [
        ("chat/completions", "max_tokens"),
        ("chat/completions", "max_completion_tokens"),
        ("responses", "max_output_tokens"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_where_it_is_not_plenty_the_provider_is_asked_for_no_more_than_is_held(
    endpoint: str, name: str, stream: bool
) -> None:
    stage = limits(LimitRule("t", ("key",), "tokens", 20_000, 60.0))
    made = chat(**{name: 32_000}, stream=stream)
    made.endpoint = endpoint
    run(lambda: stage.admit(made))
    assert made.hold is not None and made.document is not None
    bound = made.document[name]
    assert DEFAULT_OUTPUT <= bound < 20_000 and made.hold.output == bound
    assert json.loads(made.body) == made.document
    assert made.reasons == {"limits": "bounded"}


def test_each_of_several_answers_is_bounded_and_all_are_held() -> None:
    stage = limits(LimitRule("t", ("key",), "tokens", 20_000, 60.0))
    made = chat(max_tokens=8000, n=4)
    run(lambda: stage.admit(made))
    assert made.hold is not None and made.document is not None
    assert made.document["max_tokens"] * 4 == made.hold.output <= 20_000


@pytest.mark.parametrize(
    ("prompt", "answers"),
    [("one", 1), (["one"], 1), (["one", "two", "three"], 3), ([1, 2, 3], 1), ([[1, 2], [3]], 2), ([], 1)],
)
def test_each_of_several_prompts_has_answers_of_its_own(prompt: Any, answers: int) -> None:
    made, few = chat(prompt=prompt, max_tokens=100, n=2), chat(prompt=prompt, max_tokens=100, n=2)
    made.endpoint = few.endpoint = "completions"
    run(lambda: limits(ROOMY).admit(made))
    assert made.hold is not None and made.hold.output == 100 * 2 * answers
    run(lambda: limits(LimitRule("t", ("key",), "tokens", 900, 60.0)).admit(few))
    assert few.hold is not None and few.document is not None
    assert few.document["max_tokens"] * 2 * answers == few.hold.output


def test_a_thinking_budget_stays_below_the_bound() -> None:
    stage = limits(LimitRule("t", ("key",), "tokens", 30_000, 60.0))
    first = learned(stage, 100, max_tokens=1000)
    made = same(first, max_tokens=16_000, thinking={"type": "enabled", "budget_tokens": 10_000})
    run(lambda: stage.admit(made))
    assert made.document is not None and 10_000 < made.document["max_tokens"] < 16_000


@given(
    limit=st.integers(1, 60_000),
    calls=st.lists(
        st.tuples(st.integers(1, 40_000), st.integers(1, 3), st.booleans(), st.floats(0, 1)), max_size=30
    ),
    unit=st.sampled_from(["tokens", "usd", "output_tokens"]),
)
def test_with_a_stated_bound_no_more_than_the_limit_is_ever_used(
    limit: int, calls: list[tuple[int, int, bool, float]], unit: str
) -> None:
    """Whatever the provider makes of what it is asked for, and however many run at once."""
    stage = limits(LimitRule("l", ("key",), unit, limit, 60.0))
    first, spent, going = chat(), 0, []

    async def scenario() -> None:
        nonlocal spent
        for most, answers, ends, part in calls:
            made = same(first, max_tokens=most, n=answers)
            try:
                waiting = stage.admit(made)
                if waiting is not None:
                    await waiting
            except PolicyError:
                continue
            assert made.document is not None
            output = int(made.document["max_tokens"] * answers * (part if part < 0.8 else 1))
            usage = Usage(input=8, output=output, source=PROVIDER)  # as providers count that prompt
            cost = PRICES.find("m").micros(usage)  # type: ignore[union-attr]
            spent += {"tokens": usage.total, "usd": cost, "output_tokens": output}[unit]
            made.usage, made.cost, made.outcome = usage, cost, "ok"
            going.append(made)
            if ends:
                stage.settle(going.pop(0))
            assert spent <= limit

    asyncio.run(scenario())


def test_money_is_held_by_the_dearest_target_of_the_plan() -> None:
    prices = PriceList({"m": Price.of({"output": 1.0}), "dear": Price.of({"output": 50.0})})
    made = chat(max_tokens=1000)
    made.plan = Plan((Target("up"), Target("up", "dear")), "exact", "m")
    run(lambda: limits(ROOMY, prices=prices).admit(made))
    assert made.hold is not None and made.hold.micros == 50_000


# ---------------------------------------------------------------- models without a price


def test_a_limit_of_money_says_when_it_can_not_count() -> None:
    given = parts(limits=(LimitRule("u", ("key",), "usd", 5, 0.0, "month"),), prices=PriceList({}))
    made = chat()
    run(lambda: Limits({}, given).admit(made))
    assert given.counts == {("limits", "u", "unpriced"): 1}
    assert made.reasons["limits"] == "unpriced"


def test_a_limit_of_money_can_refuse_what_it_can_not_count() -> None:
    rule = LimitRule("u", ("key",), "usd", 5_000_000, 0.0, "month", unpriced="refuse")
    made, priced = chat(target=Target("up", "nobody-knows")), chat()
    made.model = made.alias = "nobody-knows"
    with pytest.raises(PolicyError) as caught:
        run(lambda: limits(rule).admit(made))
    assert (caught.value.status, caught.value.code) == (403, "policy_model_unpriced")
    assert "nobody-knows" in caught.value.message and made.hold is None
    run(lambda: limits(rule).admit(priced))


# ---------------------------------------------------------------- streams that grow


def growing(limit: int, **rest: Any) -> tuple[Limits, Call]:
    stage = limits(LimitRule("t", ("key",), "tokens", limit, 60.0), **rest)
    made = chat(stream=True)
    run(lambda: stage.admit(made))
    return stage, made


def test_a_stream_that_outgrows_its_hold_takes_more() -> None:
    stage, made = growing(50_000)
    assert made.hold is not None and made.hold.output == DEFAULT_OUTPUT
    before = made.hold.tokens
    run(lambda: made.memo["growth"].look(3000 * 3, None))
    assert made.hold.output > 3000 and made.hold.tokens - before == made.hold.output - DEFAULT_OUTPUT
    assert charged(made)["t|key_1"] == made.hold.tokens
    made.usage, made.outcome = Usage(input=20, output=2500, source=PROVIDER), "ok"
    stage.settle(made)
    assert all(bucket.left + bucket.free == 50_000 - 2520 for bucket, _ in made.hold.charges)


def test_a_stream_is_ended_where_nothing_is_left() -> None:
    _, made = growing(2000)
    growth = made.memo["growth"]
    with pytest.raises(PolicyError) as caught:
        run(*(lambda come=come: growth.look(come, None) for come in range(1000, 10_000, 300)))
    assert (
        caught.value.code == "policy_rate_limited"
        and "while this answer was streaming" in caught.value.message
    )
    assert made.reasons == {"limits": "cut", "limit": "t"}
    assert made.hold is not None and made.hold.tokens <= 2000


def test_a_count_that_the_provider_states_meanwhile_is_believed() -> None:
    _, made = growing(50_000)
    run(lambda: made.memo["growth"].look(100, Usage(input=20, output=9000, source=PROVIDER)))
    assert made.hold is not None and made.hold.output >= 9000


def test_a_stream_takes_more_than_its_bound_only_where_that_is_beyond_doubt() -> None:
    made = chat(stream=True, max_tokens=1000)
    run(lambda: limits(ROOMY).admit(made))
    assert made.hold is not None
    growth = made.memo["growth"]
    growth.look(6500, None)  # not certainly as many tokens as that
    assert made.hold.output == 1000
    run(lambda: growth.look(10_000, None))
    assert made.hold.output > 3000


def test_without_limits_of_tokens_or_money_no_stream_is_watched() -> None:
    made = chat(stream=True)
    run(lambda: limits(LimitRule("r", ("key",), "requests", 9, 60.0)).admit(made))
    assert "growth" not in made.memo and "claim" not in made.memo


# ---------------------------------------------------------------- what refusals say


@pytest.mark.parametrize(
    ("rule", "told"),
    [
        (LimitRule("i", ("key",), "input_tokens", 10, 60.0), {b"x-ratelimit-limit-input-tokens": b"10"}),
        (LimitRule("u", ("key",), "usd", 10, 0.0, "day"), {b"x-ratelimit-remaining-usd": b"0.00001"}),
    ],
    ids=["input", "usd"],
)
def test_every_refusal_says_what_is_left_of_the_limit(rule: LimitRule, told: dict[bytes, bytes]) -> None:
    error = refused(limits(rule), [chat()])
    assert told.items() <= dict(error.headers).items()
    assert f"limit {rule.id} of" in error.message


def test_a_refused_call_names_the_limit_in_its_record() -> None:
    made = chat()
    refused(limits(LimitRule("daily", ("key",), "tokens", 1, 60.0)), [made])
    assert made.reasons["limit"] == "daily"


def test_the_refusal_that_the_documentation_shows_is_what_is_said() -> None:
    page = (Path(__file__).parents[2] / "docs" / "limits.md").read_text()
    (shown,) = re.findall(r'^\{"error": \{"message": "(.*)",$', page, re.M)
    configured = re.findall(r"^```toml\n(.*?)^```", page, re.M | re.S)[0]
    assert "acme-models" in configured
    rule = LimitRule("acme-models", ("tenant", "model"), "tokens", 2_000_000, 86_400.0, match="acme/*")
    bucket = limits(rule)._leases.bucket(rule, "acme/m")
    assert build_refusal(Denial(rule, "acme/m", 812, 939.2), ((bucket, 1100),), b"").message == shown


@pytest.mark.parametrize("burst", [0, 15])
def test_a_raise_shows_in_what_is_told_and_in_the_refusal(burst: int) -> None:
    rule = LimitRule("r", ("key",), "requests", 10, 3600.0, burst=burst)
    authority = Authority((rule,))
    stage = Limits({}, replace(parts(limits=(rule,), prices=PRICES), leases=local(authority)))
    first = chat()
    run(lambda: stage.admit(first))
    assert told(first)[b"x-ratelimit-limit-requests"] == b"10"

    def deliver(messages: list[tuple[int, dict[str, Any]]]) -> None:
        for _, message in messages:
            stage._leases.receive(message)  # type: ignore[attr-defined]

    deliver(authority.replace_raises([Raise("a", "r", 5, time.time() + 3600)]))
    later = [same(first) for _ in range(14)]
    run(*[lambda call=call: stage.admit(call) for call in later])
    assert [told(call)[b"x-ratelimit-limit-requests"] for call in later] == [b"15"] * 14
    assert [told(call)[b"x-ratelimit-remaining-requests"] for call in later] == [
        b"%d" % n for n in range(13, -1, -1)
    ]
    error = refused(stage, [same(first)])
    assert "limit r of 15 requests in" in error.message
    assert dict(error.headers)[b"x-ratelimit-limit-requests"] == b"15"
    deliver(authority.replace_raises([]))
    error = refused(stage, [same(first)])
    assert "limit r of 10 requests in" in error.message
    assert dict(error.headers)[b"x-ratelimit-limit-requests"] == b"10"


def test_a_raise_of_a_unit_that_refusals_alone_tell_shows_there() -> None:
    rule = LimitRule("r", ("key",), "usd", 2_000_000, calendar="month")
    error = build_refusal(Denial(rule, "k", 0, 60.0, raised=500_000), (), b"")
    assert "limit r of $2.5 per calendar month" in error.message
    assert dict(error.headers)[b"x-ratelimit-limit-usd"] == b"2.5"


@pytest.mark.parametrize("lost", [True, False])
def test_an_answer_says_that_the_shared_store_is_lost(lost: bool) -> None:
    stage = limits(LimitRule("r", ("key",), "requests", 9, 60.0))
    stage._leases.degraded = stage._leases.unusual = lost
    made = chat()
    run(lambda: stage.admit(made))
    assert made.reasons.get("limits") == ("store_lost" if lost else None)
