"""Who should answer: exact names before globs, weights as stated, and nothing a caller sends moves a call."""

from __future__ import annotations

from collections import Counter
from random import Random
from typing import Any

import pytest

from gateway.core.call import Call
from gateway.core.errors import CallerError, FaultError
from gateway.core.route import ModelRule, Target
from gateway.stages.route import Route
from tests.stages.given import Nowhere, call, parts

A, B, C = Target("a"), Target("b", "mini"), Target("c")
BACKENDS = {name: Nowhere(name) for name in "abc"}


def route(*models: ModelRule, **rest: Any) -> Route:
    return Route({}, parts(models=models, backends=rest.pop("backends", BACKENDS)), Random(7))


def planned(stage: Route, made: Call) -> tuple[Target, ...]:
    assert stage.admit(made) is None
    assert made.plan is not None
    return made.plan.targets


def test_an_exact_name_wins_over_a_glob_and_a_long_glob_over_a_short_one() -> None:
    stage = route(ModelRule("*", (A,)), ModelRule("gpt-*", (B,)), ModelRule("gpt-4o", (C,)))
    for model, target, alias, reason in (
        ("gpt-4o", C, "gpt-4o", "exact"),
        ("gpt-4", B, "gpt-*", "glob"),
        ("claude", A, "*", "glob"),
    ):
        made = call(document={"model": model})
        assert planned(stage, made) == (target,)
        assert made.plan is not None
        assert (made.alias, made.plan.reason) == (alias, reason)


def test_fallbacks_follow_in_their_order_and_none_is_tried_twice() -> None:
    stage = route(ModelRule("m", (A,), (B, A, C)))
    assert planned(stage, call(document={"model": "m"})) == (A, B, C)


def test_an_unknown_model_is_a_404_in_openais_words() -> None:
    with pytest.raises(CallerError) as caught:
        route(ModelRule("m", (A,))).admit(call(document={"model": "nope"}))
    error = caught.value
    assert (error.status, error.code, error.param) == (404, "caller_model_not_found", "model")
    assert error.message == "The model `nope` does not exist or you do not have access to it."


def test_targets_are_drawn_by_their_weights() -> None:
    heavy, light, never = Target("a", weight=3), Target("b", weight=1), Target("c", weight=0)
    stage = route(ModelRule("m", (heavy, light, never)))
    drawn = Counter(planned(stage, call(document={"model": "m"}))[0].backend for _ in range(4000))
    assert set(drawn) == {"a", "b"}
    assert 2800 < drawn["a"] < 3200


def test_the_same_seed_draws_the_same_targets() -> None:
    def draw() -> list[str]:
        stage = route(ModelRule("m", (A, B)))
        return [planned(stage, call(document={"model": "m"}))[0].backend for _ in range(50)]

    assert draw() == draw()


@pytest.mark.parametrize("path", ["/files", "/batches", "/models", "/vector_stores"])
def test_a_call_without_a_model_goes_where_every_model_goes(path: str) -> None:
    stage = route(ModelRule("m", (A,)), ModelRule("*", (B,)))
    made = call(path, method="GET")
    assert planned(stage, made) == (Target("b"),)
    assert made.alias == ""


def test_or_to_the_first_backend() -> None:
    assert planned(route(ModelRule("m", (B,))), call("/files", method="GET")) == (Target("a"),)


def test_without_any_backend_nothing_can_be_done() -> None:
    with pytest.raises(FaultError):
        route(backends={}).admit(call("/files", method="GET"))


def test_the_caller_may_choose_among_the_backends_of_the_rule() -> None:
    stage = route(ModelRule("m", (A,), (B,)))
    made = call(document={"model": "m"})
    made.memo["route"] = "b"
    assert planned(stage, made) == (B, A)
    assert made.plan is not None and made.plan.reason == "asked"
    made = call("/files", method="GET")
    made.memo["route"] = "c"
    assert planned(stage, made) == (Target("c"),)


@pytest.mark.parametrize("wanted", ["c", "https://evil.example", "", "A"])
def test_the_caller_may_choose_no_other(wanted: str) -> None:
    made = call(document={"model": "m"})
    made.memo["route"] = wanted
    with pytest.raises(CallerError) as caught:
        route(ModelRule("m", (A,), (B,))).admit(made)
    assert (caught.value.status, caught.value.code) == (400, "caller_route_not_found")


@pytest.mark.parametrize(
    "field",
    ["api_base", "base_url", "api_key", "extra_headers", "custom_llm_provider", "api_type", "timeout"],
)
def test_nothing_in_a_call_changes_where_it_goes(field: str) -> None:
    stage = route(ModelRule("m", (A,)))
    evil = "https://evil.example"
    document = {"model": "m", field: evil, "metadata": {field: evil}, "extra_body": {field: evil}}
    header = (field.replace("_", "-").encode(), evil.encode())
    made = call(document=document, headers=[header])
    made.query = f"{field}={evil}".encode()
    before = made.body
    assert planned(stage, made) == (A,)
    assert made.body == before


def test_what_is_remembered_is_bounded() -> None:
    stage = route(ModelRule("*", (A,)))
    for number in range(3000):
        planned(stage, call(document={"model": f"m{number}"}))
    planned(stage, call(document={"model": "x" * 500}))
    assert len(stage._seen) <= 1024
