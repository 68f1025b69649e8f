"""Calls that come in one turn of the loop: steps taken together, and what happens to a call between two."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from gateway.core.call import Call
from gateway.core.ports import Stage
from gateway.core.reply import Reply
from gateway.front import conversation, turn
from gateway.front.lane import LaneProtocol
from tests.front.door import JSON, Door, door, post
from tests.front.test_coming import Later, good, run

BODY = b'{"model":"%b","messages":[]}'


class Wire(asyncio.Transport):
    """A client's side of a connection, in memory."""

    def __init__(self, notes: list[str]) -> None:
        super().__init__()
        self.notes = notes
        self.got = b""
        self.aborted = False

    def write(self, data: bytes) -> None:  # type: ignore[override]
        self.notes.append("write")
        self.got += data

    def is_closing(self) -> bool:
        return self.aborted

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        pass

    def close(self) -> None:
        self.aborted = True

    def abort(self) -> None:
        self.aborted = True

    def get_write_buffer_size(self) -> int:
        return 0


class First(Stage):
    """The stage before the one that answers."""

    def __init__(self, notes: list[str]) -> None:
        self.notes = notes

    def admit(self, call: Call) -> None:  # type: ignore[override]
        self.notes.append(f"admit {call.model}")

    def settle(self, call: Call) -> None:  # type: ignore[override]
        self.notes.append(f"book {call.model}")


def asking(notes: list[str], answer: Callable[[Call], Any]) -> Callable[[Call], Any]:
    def ask(call: Call) -> Any:
        notes.append(f"ask {call.model}")
        return answer(call)

    return ask


def come(gate: Door, notes: list[str], count: int) -> tuple[list[LaneProtocol], list[Wire]]:
    wires = [Wire(notes) for _ in range(count)]
    clients = [gate.connect(wire) for wire in wires]
    for number, client in enumerate(clients):
        client.data_received(post(BODY % b"%d" % number))
    return clients, wires


def test_calls_of_one_turn_take_each_step_together() -> None:
    async def scenario() -> None:
        notes: list[str] = []
        later = [Later(good), Later(good)]
        ask = asking(notes, lambda call: later[int(call.model)])
        async with door(ask, (First(notes),)) as gate:
            _, wires = come(gate, notes, 2)
            assert not notes, "they wait for the turn's end"
            await asyncio.sleep(0)
            assert notes == ["admit 0", "admit 1", "ask 0", "ask 1"]
            notes.clear()
            for each in later:
                each.tell()
            assert not notes
            await asyncio.sleep(0)
            assert notes == ["book 0", "book 1", "write", "write"]
            assert [wire.got.split(b" ")[1] for wire in wires] == [b"200", b"200"]
            assert not gate.live.running

    run(scenario())


def test_a_call_is_booked_before_its_answer_goes_out() -> None:
    async def scenario() -> None:
        notes: list[str] = []
        later = Later(good)
        async with door(asking(notes, lambda call: later), (First(notes),)) as gate:
            come(gate, notes, 1)
            await asyncio.sleep(0)
            later.tell()
            await asyncio.sleep(0)
            assert notes[-2:] == ["book 0", "write"]

    run(scenario())


def test_more_calls_than_go_together_are_all_answered() -> None:
    async def scenario() -> None:
        notes: list[str] = []
        many = 2 * turn.MOST + 5
        later = [Later(good) for _ in range(many)]
        async with door(asking(notes, lambda call: later[int(call.model)])) as gate:
            _, wires = come(gate, notes, many)
            await asyncio.sleep(0)
            for each in later:
                each.tell()
            await asyncio.sleep(0)
            assert all(wire.got.startswith(b"HTTP/1.1 200") for wire in wires)
            assert len(gate.seen.settled) == many

    run(scenario())


def test_those_that_end_do_so_before_others_begin() -> None:
    async def scenario() -> None:
        notes: list[str] = []
        later = [Later(good), Later(good)]
        async with door(asking(notes, lambda call: later[int(call.model)]), (First(notes),)) as gate:
            come(gate, notes, 1)
            await asyncio.sleep(0)
            notes.clear()
            client = gate.connect(Wire(notes))
            client.data_received(post(BODY % b"1"))
            later[0].tell()
            await asyncio.sleep(0)
            assert notes == ["book 0", "write", "admit 1", "ask 1"]

    run(scenario())


def test_a_client_that_leaves_before_its_call_has_begun_is_recorded_as_one_that_left() -> None:
    async def scenario() -> None:
        notes: list[str] = []
        later = Later(good)
        async with door(asking(notes, lambda call: later), (First(notes),)) as gate:
            (client,), (wire,) = come(gate, notes, 1)
            client.connection_lost(None)
            assert [call.outcome for call in gate.seen.settled] == ["client_gone"]
            assert later.closed == 1 and not gate.live.running
            await asyncio.sleep(0)
            assert notes.count("ask 0") == 1 and not wire.got

    run(scenario())


def test_a_client_that_leaves_when_its_answer_is_here_pays_for_it() -> None:
    async def scenario() -> None:
        notes: list[str] = []
        later = Later(good)
        async with door(asking(notes, lambda call: later)) as gate:
            (client,), _ = come(gate, notes, 1)
            await asyncio.sleep(0)
            later.tell()
            client.connection_lost(None)
            assert [call.outcome for call in gate.seen.settled] == ["ok"]
            assert later.closed == 0 and not gate.live.running
            await asyncio.sleep(0)
            assert len(gate.seen.settled) == 1

    run(scenario())


def test_the_drain_ends_a_call_that_has_not_begun_with_an_answer() -> None:
    async def scenario() -> None:
        notes: list[str] = []
        later = Later(good)
        async with door(asking(notes, lambda call: later)) as gate:
            _, (wire,) = come(gate, notes, 1)
            gate.live.expire()
            assert wire.got.startswith(b"HTTP/1.1 503") and b"gateway_draining" in wire.got
            assert len(gate.seen.settled) == 1 and not gate.live.running

    run(scenario())


def test_a_step_that_fails_ends_its_own_call_only(monkeypatch: pytest.MonkeyPatch) -> None:
    real = conversation.render

    def render(call: Call, *rest: Any) -> bytes:
        if call.model == "0":
            raise RuntimeError("this can't be")
        return real(call, *rest)

    async def scenario() -> None:
        notes: list[str] = []
        async with door(lambda call: Reply(200, [JSON], b"{}")) as gate:
            monkeypatch.setattr(conversation, "render", render)
            _, wires = come(gate, notes, 3)
            await asyncio.sleep(0)
            assert [wire.aborted for wire in wires] == [True, False, False]
            assert [wire.got[:12] for wire in wires] == [b"", b"HTTP/1.1 200", b"HTTP/1.1 200"]
            assert sorted(call.code for call in gate.seen.settled) == ["", "", "gateway_fault"]
            assert not gate.live.running

    run(scenario())


def test_a_call_whose_asking_fails_half_way_ends_once_whatever_is_told_of_it_later() -> None:
    class Half(Later):
        def then(self, told: Callable[[], None]) -> bool:
            super().then(told)
            raise RuntimeError("this can't be")

    async def scenario() -> None:
        notes: list[str] = []
        half = Half(good)
        async with door(asking(notes, lambda call: half)) as gate:
            _, (wire,) = come(gate, notes, 1)
            await asyncio.sleep(0)
            assert wire.aborted and half.closed == 1
            assert half.told is None, "nothing can be told any more"
            assert len(gate.seen.settled) == 1 and not gate.live.running
            assert gate.live.pipeline.inflight == 0

    run(scenario())


def test_a_call_whose_connection_fails_to_close_is_given_back_once() -> None:
    class Stuck(Wire):
        def write_eof(self) -> None:
            raise RuntimeError("this can't be")

    async def scenario() -> None:
        notes: list[str] = []
        async with door(lambda call: Reply(200, [JSON], b"{}")) as gate:
            wire = Stuck(notes)
            gate.connect(wire).data_received(post(BODY % b"0"))
            await asyncio.sleep(0)
            assert wire.got.startswith(b"HTTP/1.1 200") and wire.aborted
            assert len(gate.seen.settled) == 1 and gate.live.pipeline.inflight == 0

    run(scenario())


def test_a_client_that_leaves_while_an_early_stage_has_to_wait_leaves_nothing_unawaited() -> None:
    class Waits(Stage):
        def __init__(self) -> None:
            pass

        async def admit(self, call: Call) -> None:
            raise AssertionError("the client has gone before")

    async def scenario() -> None:
        notes: list[str] = []
        async with door(asking(notes, lambda call: Later(good)), (Waits(),)) as gate:
            (client,), _ = come(gate, notes, 1)
            client.connection_lost(None)
            assert [call.outcome for call in gate.seen.settled] == ["client_gone"]
            await asyncio.sleep(0)
            assert not notes and not gate.live.running

    run(scenario())
