"""The verbs of stages: a plugin's mistakes are told where they are made."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from gateway.core.call import Call
from gateway.core.ports import Stage
from gateway.core.reply import Event, Reply
from gateway.core.verbs import verbs
from gateway.pipeline import Emitter, Pipeline
from tests.stages.given import call

GOOD = Reply(200, [(b"a", b"b")], b"{}")


def stage(name: str, verb: Callable[..., Any]) -> Stage:
    return type("Plugin", (Stage,), {name: verb, "__init__": lambda self: None})()  # type: ignore[no-any-return]


def plain(said: Any) -> Callable[..., Any]:
    return lambda self, *given: said() if callable(said) else said


def waiting(said: Any) -> Callable[..., Any]:
    async def verb(self: Any, *given: Any) -> Any:
        await asyncio.sleep(0)
        return said() if callable(said) else said

    return verb


def later(said: Any) -> Callable[..., Any]:
    return lambda self, *given: waiting(said)(self, *given)


FORMS = [plain, waiting, later]


def nothing_left() -> Any:
    return next(iter(()))


async def answered(*stages: Stage) -> Reply:
    return await Pipeline(stages).answer(call(document={"model": "m"}))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "said",
    [
        nothing_left, "text", 7, Event(b""), Reply(600, [], b""), Reply(99, [], b""), Reply(200, [], None),
        Reply(200, [("a", "b")], b""), Reply(200, [(b"a",)], b""), lambda: Reply(200, [], "text"),
    ],
)  # fmt: skip
def test_an_admit_that_gives_no_answer_is_the_gateways_fault(form: Any, said: Any) -> None:
    first = stage("admit", waiting(None))
    for stages in ([], [first]):
        reply = asyncio.run(answered(*stages, stage("admit", form(said)), stage("admit", plain(GOOD))))
        assert reply.status == 500 and b"gateway_fault" in (reply.body or b"")


@pytest.mark.parametrize("form", FORMS)
def test_what_can_be_used_goes_on(form: Any) -> None:
    assert asyncio.run(answered(stage("admit", form(None)), stage("admit", form(GOOD)))) is GOOD


@pytest.mark.parametrize("said", [nothing_left, b"text", Reply(200, [], b""), lambda: Event("text")])  # type: ignore[arg-type]
def test_an_emit_that_gives_no_event_breaks_the_stream(said: Any) -> None:
    emits = verbs([stage("emit", plain(said))], "emit")
    with pytest.raises((RuntimeError, TypeError)) as caught:
        Emitter(call(), emits, False).feed(b"data")
    assert not isinstance(caught.value, StopIteration)


def test_what_waits_is_known_to() -> None:
    made = Pipeline([stage("emit", waiting(Event(b"x")))])
    assert made.waits and not Pipeline([stage("emit", plain(Event(b"x")))]).waits


def test_reasons_are_texts_whatever_a_plugin_notes() -> None:
    def noting(self: Any, made: Call) -> None:
        made.reasons["limits"] = 7  # type: ignore[assignment]

    made = call()
    (verb,) = verbs([stage("admit", noting)], "admit")
    assert verb(made) is None and made.reasons == {"limits": "7"}
