"""What the record and the answer say of a call's times where more than one target was asked."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from typing import Any

import pytest

from gateway.core.call import Call
from gateway.core.errors import UpstreamError
from gateway.core.record import settled
from gateway.core.reply import Reply
from gateway.core.route import Plan, Target
from gateway.front import head
from gateway.pipeline import failure
from gateway.stages.forward import Forward
from tests.stages.given import call, parts

OWN = 0.001  # seconds the gateway takes for each try
START = 1000.0


class Clock:
    """Monotonic seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.now = START

    def monotonic(self) -> float:
        return self.now

    def passes(self, seconds: float) -> float:
        self.now += seconds
        return self.now


class Slow:
    """A backend that takes its time to connect, to answer, and to send the rest; a status, or an error."""

    kind = "openai"

    def __init__(self, clock: Clock, connect: float, first: float, rest: float, status: int) -> None:
        self.clock = clock
        self.connect, self.first, self.rest, self.status = connect, first, rest, status

    def start(self, call: Call, target: Target) -> None:
        return None

    async def ask(self, call: Call, target: Target) -> Reply:
        clock = self.clock
        clock.passes(OWN)
        clock.passes(self.connect)
        if not self.first:
            raise UpstreamError("no connection", code="upstream_connect_failed", status=502)
        call.sent = clock.now
        clock.passes(self.first)
        if not self.rest:
            raise UpstreamError("no answer", code="upstream_first_byte_timeout", status=504)
        call.connect_time, call.first_byte = self.connect, clock.now
        clock.passes(self.rest)
        if not self.status:
            raise UpstreamError("half an answer", code="upstream_closed", status=502)
        return Reply(self.status, [], b"{}")


Tries = list[tuple[float, float, float, int]]

GOOD = (0.0, 0.25, 0.25, 200)
BAD = (0.5, 1.0, 0.5, 500)
REFUSED = (2.0, 0.0, 0.0, 0)
SILENT = (0.25, 4.0, 0.0, 0)
HALF = (0.25, 1.0, 2.0, 0)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(time, "monotonic", made.monotonic)
    return made


def recorded(clock: Clock, tries: Tries) -> tuple[dict[str, Any], float]:
    """The record, and the overhead in the answer's header in milliseconds, after these tries."""
    names = [f"b{number}" for number in range(len(tries))]
    backends: Any = {name: Slow(clock, *each) for name, each in zip(names, tries, strict=True)}
    fresh = call(document={"model": "m", "messages": []})
    fresh.received = fresh.arrived = fresh.began = START
    fresh.plan = Plan(tuple(map(Target, names)), "exact", "m")
    journal: Any = type("Journal", (), {"begin": lambda self, record: 0})()
    stage = Forward(None, replace(parts(backends=backends), journal=journal))

    verdict: Any = stage.admit(fresh)
    try:
        verdict.send(None)
    except StopIteration as done:
        fresh.status = done.value.status
    except UpstreamError as error:
        fresh.status = failure(fresh, error).status
    lines = dict(line.split(b": ") for line in head.own(fresh).split(b"\r\n") if line)
    return json.loads(settled(fresh, 0, clock.now, b"")), float(lines[b"x-penstock-overhead-ms"])


@pytest.mark.parametrize(
    "tries",
    [
        [GOOD],
        [BAD],
        [REFUSED],
        [SILENT],
        [HALF],
        [BAD, GOOD],
        [REFUSED, GOOD],
        [SILENT, GOOD],
        [HALF, GOOD],
        [BAD, BAD, GOOD],
        [BAD, SILENT],
        [BAD, REFUSED],
        [BAD, HALF],
        [SILENT, REFUSED, HALF],
    ],
)
def test_waiting_for_any_upstream_asked_is_none_of_the_gateways_own_time(clock: Clock, tries: Tries) -> None:
    record, shown = recorded(clock, tries)
    waited = sum(sum(each[:3]) for each in tries)
    assert record["total_us"] == pytest.approx((waited + OWN * len(tries)) * 1e6, abs=2)
    assert 0 <= record["overhead_us"] <= OWN * len(tries) * 1e6 + 1
    assert shown == pytest.approx(record["overhead_us"] / 1000, abs=0.01)


@pytest.mark.parametrize("last", [SILENT, REFUSED])
def test_a_first_byte_is_never_that_of_another_targets_answer(clock: Clock, last: Any) -> None:
    record, _ = recorded(clock, [BAD, last])
    assert record.get("first_byte_us", 0) == 0
    assert record["tries"] == 2
    assert record.get("connect_us", 0) == 0, "of the try before"


def test_the_times_of_the_try_that_was_answered_are_recorded(clock: Clock) -> None:
    record, _ = recorded(clock, [BAD, (0.5, 0.25, 0.125, 200)])
    assert (record["connect_us"], record["first_byte_us"]) == (500_000, 250_000)
