"""Answers that are on their way: told of, they go out without a task; everything else gets one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator
from typing import Any

import pytest

from gateway.core.call import Call
from gateway.core.errors import UpstreamError
from gateway.core.reply import Coming, Reply
from tests.front.door import JSON, Door, door, post

ASK = post(b'{"model":"m","messages":[]}')
STAY = ASK.replace(b"Connection: close\r\n", b"")


class Later(Coming):
    """An answer that a test lets come."""

    def __init__(self, at_once: Callable[[], Reply | None], whole: Reply | Exception | None = None) -> None:
        self.told: Callable[[], None] | None = None
        self.closed = 0
        self.awaited = 0
        self.asked = asyncio.Event()
        self._now, self._whole = at_once, whole

    def then(self, told: Callable[[], None]) -> bool:
        self.told = told
        self.asked.set()
        return True

    def now(self) -> Reply | None:
        return self._now()

    def close(self) -> None:
        self.closed += 1
        self.told = None

    def __await__(self) -> Generator[Any, Any, Reply]:
        return self._come().__await__()

    async def _come(self) -> Reply:
        self.awaited += 1
        if self._whole is None:
            await asyncio.get_running_loop().create_future()
        if isinstance(self._whole, Exception):
            raise self._whole
        assert self._whole is not None
        return self._whole

    def tell(self) -> None:
        assert self.told is not None
        told, self.told = self.told, None
        told()


def good() -> Reply:
    return Reply(200, [JSON], b'{"ok":true}')


async def settled(gate: Door) -> Call:
    while not gate.seen.settled:
        await asyncio.sleep(0)
    (call,) = gate.seen.settled
    return call


def run(scenario: Any) -> None:
    asyncio.run(asyncio.wait_for(scenario, 60))


def test_an_answer_that_is_told_of_goes_out_without_a_task() -> None:
    async def scenario() -> None:
        later = Later(good)
        async with door(lambda call: later) as gate:
            client = asyncio.ensure_future(gate.ask(ASK))
            await later.asked.wait()
            before = asyncio.all_tasks()
            later.tell()
            assert asyncio.all_tasks() == before
            status, _, body = await client
            assert (status, body) == (200, b'{"ok":true}') and later.awaited == 0
            assert (await settled(gate)).outcome == "ok"
            assert not gate.live.running

    run(scenario())


@pytest.mark.parametrize(
    ("whole", "status"),
    [(good(), 200), (UpstreamError("It broke.", code="upstream_closed", status=502), 502)],
)
def test_an_answer_that_is_no_whole_one_yet_is_awaited(whole: Reply | Exception, status: int) -> None:
    async def scenario() -> None:
        later = Later(lambda: None, whole)
        async with door(lambda call: later) as gate:
            client = asyncio.ensure_future(gate.ask(ASK))
            await later.asked.wait()
            later.tell()
            assert (await client)[0] == status and later.awaited == 1
            assert (await settled(gate)).status == status

    run(scenario())


def test_a_fault_while_it_is_taken_is_answered_and_settled() -> None:
    async def scenario() -> None:
        later = Later(lambda: 1 // 0)  # type: ignore[arg-type,return-value]
        async with door(lambda call: later) as gate:
            client = asyncio.ensure_future(gate.ask(ASK))
            await later.asked.wait()
            later.tell()
            status, _, body = await client
            assert status == 500 and b"gateway_fault" in body
            assert (await settled(gate)).code == "gateway_fault"

    run(scenario())


@pytest.mark.parametrize("told", [False, True], ids=["before the news", "after the news"])
def test_a_client_that_leaves_closes_what_is_coming_and_is_settled_once(told: bool) -> None:
    async def scenario() -> None:
        later = Later(lambda: None)
        async with door(lambda call: later) as gate:
            _, writer = await asyncio.open_connection("127.0.0.1", gate.port)
            writer.write(STAY)
            await later.asked.wait()
            if told:
                later.tell()
            writer.transport.abort()
            call = await settled(gate)
            assert (call.outcome, call.status) == ("client_gone", 499)
            assert later.closed == (later.awaited == 0)
            await asyncio.sleep(0)
            assert len(gate.seen.settled) == 1 and not gate.live.running

    run(scenario())


def test_at_the_drain_deadline_a_client_that_waits_is_told_so() -> None:
    async def scenario() -> None:
        later = Later(good)
        async with door(lambda call: later) as gate:
            client = asyncio.ensure_future(gate.ask(ASK))
            await later.asked.wait()
            (conversation,) = gate.live.running
            conversation.expire()
            status, _, body = await client
            assert status == 503 and b"gateway_draining" in body
            assert later.closed == 1 and len(gate.seen.settled) == 1

    run(scenario())


def test_the_next_request_on_the_connection_follows() -> None:
    async def scenario() -> None:
        waiting: list[Later] = []

        def answer(call: Call) -> Later:
            waiting.append(Later(good))
            return waiting[-1]

        async with door(answer) as gate:
            reader, writer = await asyncio.open_connection("127.0.0.1", gate.port)
            writer.write(STAY + STAY)  # the second one is sent ahead
            for number in (1, 2):
                while len(waiting) < number:
                    await asyncio.sleep(0)
                await waiting[-1].asked.wait()
                waiting[-1].tell()
                assert b"200 OK" in await reader.readuntil(b'{"ok":true}')
            writer.close()
            await writer.wait_closed()

    run(scenario())
