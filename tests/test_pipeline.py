"""The one loop: who is asked, in which order, and what an error becomes."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import pytest

from gateway.core.call import Call, Origin
from gateway.core.errors import CallerError, FaultError, PolicyError
from gateway.core.keys import Keys
from gateway.core.ports import Stage
from gateway.core.principal import KeyEntry, Principal
from gateway.core.reply import Event, Reply
from gateway.core.route import Plan, Target
from gateway.live import Live
from gateway.pipeline import Emitter, Pipeline


class Note(Stage):
    """Writes down when its verbs are called; `reply` ends the walk."""

    def __init__(self, name: str, log: list[str], reply: Reply | Exception | None = None) -> None:
        self.name, self.log, self.reply = name, log, reply

    async def open(self) -> None:
        self.log.append(f"open {self.name}")
        if self.name == "broken":
            raise RuntimeError("can't open")

    async def close(self) -> None:
        self.log.append(f"close {self.name}")

    def admit(self, call: Call) -> Reply | None:  # type: ignore[override]
        self.log.append(f"admit {self.name}")
        if isinstance(self.reply, Exception):
            raise self.reply
        return self.reply

    def settle(self, call: Call) -> None:  # type: ignore[override]
        self.log.append(f"settle {self.name}")


class Waits(Note):
    """A plain admit that has to wait this once, and a settle that waits."""

    def admit(self, call: Call) -> Any:  # type: ignore[override]
        return self._later()

    async def _later(self) -> Reply | None:
        await asyncio.sleep(0)
        return super().admit(Call("", "", "", [], b""))

    async def settle(self, call: Call) -> None:
        await asyncio.sleep(0)
        self.log.append(f"settle {self.name}")


def call() -> Call:
    made = Call("POST", "/chat/completions", "chat/completions", [], b"{}")
    made.id = "req_1"
    return made


def answer(*stages: Stage) -> Reply:
    return asyncio.run(Pipeline(stages).answer(call()))


def test_the_first_stage_that_replies_answers() -> None:
    log: list[str] = []
    reply = answer(Note("a", log), Note("b", log, Reply(200, [], b"b")), Note("c", log))
    assert (reply.body, log) == (b"b", ["admit a", "admit b"])


def test_stages_settle_in_reverse_order_also_those_after_the_answer() -> None:
    async def scenario() -> None:
        log: list[str] = []
        pipeline = Pipeline([Note("a", log), Note("b", log), Waits("c", log)])
        pipeline.settle(call())
        for _ in range(4):
            await asyncio.sleep(0)
        assert log == ["settle b", "settle a", "settle c"]

    asyncio.run(scenario())


def test_a_plain_admit_may_wait_once() -> None:
    log: list[str] = []
    assert answer(Waits("a", log), Waits("b", log, Reply(200, [], b"b"))).body == b"b"


@pytest.mark.parametrize(
    ("error", "status", "kind", "outcome"),
    [
        (CallerError("bad"), 400, "invalid_request_error", "refused"),
        (CallerError("who", status=401, code="caller_no_key"), 401, "authentication_error", "refused"),
        (PolicyError("no"), 403, "permission_error", "refused"),
        (FaultError("later", retry_after=0.2), 503, "api_error", "failed"),
        (ValueError("inner words"), 500, "api_error", "failed"),
    ],
)
def test_errors_become_openai_shaped_replies(error: Exception, status: int, kind: str, outcome: str) -> None:
    made = call()
    reply = asyncio.run(Pipeline([Note("a", [], error)]).answer(made))  # type: ignore[arg-type]
    document = json.loads(reply.body or b"")["error"]
    assert (reply.status, document["type"], document["request_id"]) == (status, kind, "req_1")
    assert set(document) == {"message", "type", "param", "code", "request_id"}
    assert (made.outcome, made.code) == (outcome, document["code"])
    assert "inner words" not in document["message"]
    if status == 503:
        assert (b"retry-after", b"1") in reply.headers
    if status == 401:
        assert (b"www-authenticate", b"Bearer") in reply.headers


def test_a_walk_without_an_answer_is_a_fault() -> None:
    assert answer(Note("a", [])).status == 500


def test_a_stage_that_fails_to_settle_does_not_keep_the_others_from_it() -> None:
    class Broken(Note):
        def settle(self, call: Call) -> None:  # type: ignore[override]
            raise ValueError

    log: list[str] = []
    Pipeline([Note("a", log), Broken("b", log), Note("c", log)]).settle(call())
    assert log == ["settle c", "settle a"]


def test_only_overridden_verbs_are_compiled() -> None:
    class Silent(Stage):
        def __init__(self) -> None:
            pass

    pipeline = Pipeline([Silent(), Note("a", [])])
    assert (len(pipeline.admits), len(pipeline.emits), len(pipeline.settles)) == (1, 0, 1)


def test_stages_opened_are_closed_when_one_fails_to_open() -> None:
    log: list[str] = []
    with pytest.raises(RuntimeError):
        asyncio.run(Pipeline([Note("a", log), Note("broken", log), Note("c", log)]).open())
    assert log == ["open a", "open broken", "close a"]


def test_events_run_through_the_listeners_in_order_and_a_held_one_goes_no_further() -> None:
    seen: list[bytes] = []

    def first(call: Call, event: Event) -> Event | None:
        return None if b"drop" in event.data else Event(event.data + b"1")

    def second(call: Call, event: Event) -> Event | None:
        seen.append(event.data)
        return Event(event.data + b"2")

    emitter = Emitter(call(), (first, second), event_stream=False)
    assert [emitter.feed(b"a"), emitter.feed(b"drop"), emitter.finish()] == [b"a12", b"", b""]
    assert seen == [b"a1"]


def test_an_old_pipeline_retires_when_its_last_call_has_ended() -> None:
    old, new, retired = Pipeline([], "1"), Pipeline([], "2"), []
    live = Live(old)
    old.inflight += 1
    live.swap(new, retired.append)
    assert (live.pipeline, retired) == (new, [])
    old.leave()
    assert retired == [old]


def test_an_idle_pipeline_retires_at_once() -> None:
    old, retired = Pipeline([], "1"), []
    Live(old).swap(Pipeline([], "2"), retired.append)
    assert retired == [old]


class Steady(Note):
    """Says who calls; asked once for a head and model."""

    steady = True

    def __init__(self, name: str, log: list[str], plan: Plan, expires: float | None = None) -> None:
        super().__init__(name, log)
        self._plan = plan
        self._principal = Principal(KeyEntry(id="k", name="k", digest=b"d", expires=expires))

    def admit(self, call: Call) -> None:  # type: ignore[override]
        self.log.append(f"admit {self.name}")
        call.principal, call.plan, call.alias, call.tags = self._principal, self._plan, "m", ("t",)


def steadily(plan: Plan, expires: float | None = None) -> tuple[Pipeline, Keys, list[str]]:
    log: list[str] = []
    keys = Keys()
    stages = [Steady("who", log, plan, expires), Note("last", log, Reply(200, [], b""))]
    return Pipeline(stages, "r", keys), keys, log


def from_head(origin: Origin, model: str = "m") -> Call:
    made = call()
    made.origin, made.model, made.wall = origin, model, time.time()
    return made


PLAN = Plan((Target("b"),), "exact", "m")


def test_steady_stages_are_asked_once_for_a_head_and_model() -> None:
    pipeline, _, log = steadily(PLAN)
    origin = Origin()
    for model in ("m", "m", "n"):
        made = from_head(origin, model)
        asyncio.run(pipeline.answer(made))
        assert made.principal is not None and (made.plan, made.tags) == (PLAN, ("t",))
    assert log == ["admit who", "admit last", "admit last", "admit who", "admit last"]


def test_steady_stages_are_asked_again_when_a_key_changes() -> None:
    pipeline, keys, log = steadily(PLAN)
    origin = Origin()
    asyncio.run(pipeline.answer(from_head(origin)))
    keys.replace([])
    asyncio.run(pipeline.answer(from_head(origin)))
    assert log.count("admit who") == 2


def test_steady_stages_are_asked_again_by_another_pipeline() -> None:
    origin = Origin()
    for _ in range(2):
        pipeline, _, log = steadily(PLAN)
        asyncio.run(pipeline.answer(from_head(origin)))
        assert log == ["admit who", "admit last"]


def test_an_expired_key_is_looked_at_again() -> None:
    pipeline, _, log = steadily(PLAN, expires=time.time() - 1)
    origin = Origin()
    for _ in range(2):
        asyncio.run(pipeline.answer(from_head(origin)))
    assert log.count("admit who") == 2


def test_a_plan_that_was_drawn_is_drawn_for_each_call() -> None:
    pipeline, _, log = steadily(Plan((Target("b"),), "exact", "m", steady=False))
    origin = Origin()
    for _ in range(2):
        asyncio.run(pipeline.answer(from_head(origin)))
    assert log.count("admit who") == 2


def test_what_is_remembered_of_a_head_is_bounded() -> None:
    pipeline, _, _ = steadily(PLAN)
    origin = Origin()
    for number in range(500):
        asyncio.run(pipeline.answer(from_head(origin, f"m{number}")))
    assert len(origin.verdicts) <= 64


def test_a_caller_that_is_to_be_found_out_anew_is() -> None:
    pipeline, _, log = steadily(PLAN)
    pipeline.stages[0]._principal.until = time.time() - 1  # type: ignore[attr-defined]
    origin = Origin()
    for _ in range(2):
        asyncio.run(pipeline.answer(from_head(origin)))
    assert log.count("admit who") == 2


def test_a_steady_stage_that_waits_once_is_remembered_all_the_same() -> None:
    class Slow(Steady):
        def admit(self, call: Call) -> Any:  # type: ignore[override]
            return self._later(call)

        async def _later(self, call: Call) -> None:
            await asyncio.sleep(0)
            super().admit(call)

    log: list[str] = []
    stages = [Slow("who", log, PLAN), Note("last", log, Reply(200, [], b""))]
    pipeline, origin = Pipeline(stages, "r", Keys()), Origin()
    for _ in range(2):
        made = from_head(origin)
        assert asyncio.run(pipeline.answer(made)).status == 200
        assert made.principal is not None and made.plan is PLAN
    assert log == ["admit who", "admit last", "admit last"]


def test_a_challenge_of_its_own_takes_the_place_of_the_usual_one() -> None:
    error = CallerError("who", status=401, headers=((b"www-authenticate", b"Bearer error"),))
    reply = asyncio.run(Pipeline([Note("a", [], error)]).answer(call()))
    assert [value for name, value in reply.headers if name == b"www-authenticate"] == [b"Bearer error"]
