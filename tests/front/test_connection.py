"""Bounds of one connection: clients that send ahead without end, and clients that read nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from gateway.front.connection import AHEAD
from tests.front.door import Door, Wire, door, post

BODY = b'{"model":"m","messages":[]}'
PATHS = [b"/v1/chat/completions", b"/v1/audio/speech"]
ANSWER = b"HTTP/1.1 200 OK"


def kept_alive(path: bytes) -> bytes:
    return post(BODY, path).replace(b"Connection: close\r\n", b"")


async def until(done: Callable[[], object]) -> None:
    async with asyncio.timeout(30):
        while not done():
            await asyncio.sleep(0)


@pytest.mark.parametrize("path", PATHS)
def test_what_is_sent_ahead_is_bounded_and_all_of_it_is_answered(path: bytes) -> None:
    async def scenario() -> None:
        request = kept_alive(path)
        piece = request * (AHEAD // len(request))
        async with door() as gate:
            wire = Wire()
            connection = gate.connect(wire)
            intake = connection.intake
            sent = 0
            for _ in range(2):
                await until(lambda: wire.reading)
                while wire.reading:
                    connection.data_received(piece)
                    sent += 1
                assert len(connection._held) <= AHEAD + len(piece)
                assert intake._held >= len(connection._held)
            await until(lambda: wire.written.count(ANSWER) == sent * piece.count(request))
            assert wire.reading
            assert intake._held == 0
            connection.connection_lost(None)

    asyncio.run(scenario())


def test_a_client_that_leaves_while_it_is_kept_out_leaves_nothing_reserved() -> None:
    async def scenario() -> None:
        async with door() as gate:
            connection = gate.connect(Wire())
            connection.data_received(kept_alive(PATHS[0]) * (AHEAD // 50))
            assert connection.intake._held > AHEAD
            connection.connection_lost(None)
            assert connection.intake._held == 0

    asyncio.run(scenario())


def test_without_room_for_what_is_sent_ahead_the_connection_ends_with_the_answer_under_way() -> None:
    async def scenario() -> None:
        async with door(memory=1024) as gate:
            wire = Wire()
            connection = gate.connect(wire)
            connection.data_received(kept_alive(PATHS[0]) * (AHEAD // 50))
            await until(lambda: wire.ended)
            assert wire.written.count(ANSWER) == 1
            assert b"connection: close" in wire.written
            connection.connection_lost(None)

    asyncio.run(scenario())


@pytest.mark.parametrize("path", PATHS)
def test_a_client_that_leaves_its_answers_unread_gets_no_more_of_them(path: bytes) -> None:
    async def scenario() -> None:
        async with door() as gate:
            wire = Wire()
            connection = gate.connect(wire)
            connection.data_received(kept_alive(path))
            connection.pause_writing()
            connection.data_received(kept_alive(path) * 2)
            await until(lambda: gate.seen.calls)
            for _ in range(50):  # turns in which nothing may happen
                await asyncio.sleep(0)
            assert len(gate.seen.calls) == 1
            connection.resume_writing()
            await until(lambda: wire.written.count(ANSWER) == 3)
            connection.connection_lost(None)

    asyncio.run(scenario())


def unread(gate: Door) -> tuple[Wire, asyncio.Protocol]:
    """A connection that is being closed while its client has read nothing of an answer."""
    wire = Wire()
    connection = gate.connect(wire)
    wire.unread = 100_000
    connection.overdue()
    assert wire.ended and not wire.aborted
    return wire, connection


def test_a_client_that_never_reads_is_cut() -> None:
    async def scenario() -> None:
        async with door() as gate:
            wire, connection = unread(gate)
            assert connection.deadline > 0  # type: ignore[attr-defined]
            connection.overdue()  # type: ignore[attr-defined]
            assert wire.aborted
            connection.connection_lost(None)

    asyncio.run(scenario())


def test_a_client_that_reads_slowly_is_not_cut_while_it_reads() -> None:
    async def scenario() -> None:
        async with door() as gate:
            wire, connection = unread(gate)
            for left in (90_000, 10, 0):
                wire.unread = left
                connection.overdue()  # type: ignore[attr-defined]
                assert not wire.aborted
            assert connection.deadline == 0.0  # type: ignore[attr-defined]
            connection.connection_lost(None)

    asyncio.run(scenario())


def test_an_answer_of_the_cold_lane_that_was_cut_off_and_is_not_read_leaves_no_connection_behind() -> None:
    async def never() -> None:
        await asyncio.Event().wait()

    async def scenario() -> None:
        async with door(lambda call: never()) as gate:
            wire = Wire()
            connection = gate.connect(wire)
            connection.data_received(kept_alive(PATHS[1]))
            await until(lambda: gate.live.running)
            connection.overdue()
            assert connection.deadline > 0 and not wire.ended  # the call goes on
            wire.unread = 1000
            wire.close()
            connection.overdue()
            assert connection.deadline > 0 and not wire.aborted
            connection.overdue()
            assert wire.aborted
            connection.connection_lost(None)
            await until(lambda: not gate.live.running)

    asyncio.run(scenario())


def test_a_refused_client_that_never_reads_why_is_cut() -> None:
    async def scenario() -> None:
        async with door() as gate:
            wire = Wire()
            connection = gate.connect(wire)
            wire.unread = 1000
            connection.data_received(b"nonsense\r\n\r\n")
            assert wire.written.startswith(b"HTTP/1.1 400")
            connection.overdue()
            assert wire.aborted
            connection.connection_lost(None)

    asyncio.run(scenario())


def test_a_request_that_is_refused_while_its_body_comes_in_is_no_call() -> None:
    async def scenario() -> None:
        async with door() as gate:
            head = b"POST /v1/files HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
            wire = Wire()
            connection = gate.connect(wire)
            connection.data_received(head + b"3\r\nabc\r\n")
            await until(lambda: gate.live.running)
            connection.data_received(b"zz\r\n")
            await until(lambda: not gate.live.running)
            assert wire.written.startswith(b"HTTP/1.1 400")
            assert gate.seen.calls == gate.seen.settled == []
            connection.connection_lost(None)

    asyncio.run(scenario())


CHUNKED = (
    b"POST %b HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"
)


@pytest.mark.parametrize(
    "sent",
    [b"POST /v1/chat", kept_alive(PATHS[0])[:-3], CHUNKED % PATHS[0] + b"3\r\n{}"],
    ids=["half a head", "half a body", "half a chunk"],
)
def test_a_request_that_is_not_whole_when_the_drain_time_is_over_is_waited_for_no_longer(sent: bytes) -> None:
    async def scenario() -> None:
        async with door() as gate:
            wire = Wire()
            connection = gate.connect(wire)
            connection.data_received(sent)
            connection.shutdown()
            assert not wire.ended  # it may still come, and be answered
            connection.expire()
            assert wire.ended
            assert wire.written.startswith(b"HTTP/1.1 503 ") and b"gateway_draining" in wire.written
            assert not gate.seen.calls
            connection.connection_lost(None)

    asyncio.run(scenario())


def test_connections_without_a_half_sent_request_are_left_alone_when_the_drain_time_is_over() -> None:
    async def scenario() -> None:
        async with door() as gate:
            wire = Wire()
            connection = gate.connect(wire)
            connection.expire()
            assert not wire.written and not wire.ended
            connection.connection_lost(None)

    asyncio.run(scenario())
