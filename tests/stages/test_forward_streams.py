"""A stream is an answer once a byte of its body is here: till then another target can be asked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from gateway.core.call import Call
from gateway.core.errors import UpstreamError
from gateway.core.route import Plan, Target
from gateway.settings.schema import Deadlines
from gateway.stages.forward import Forward
from tests.backends.given import backend, chunked, run, whole
from tests.net.world import PATIENT, Peer, Script, Upstream, fails, upstream
from tests.stages.given import call, parts

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
PING = b"8\r\n: ping\n\n\r\n"
EVENT = b'data: {"choices":[{"index":0,"delta":{"content":"hi"}}]}\n\n'
DONE = b"data: [DONE]\n\n"
PLAN = Plan((Target("first"), Target("second")), "exact", "m")

Then = Callable[[Peer, Call], Awaitable[None]]


async def headed(fresh: Call) -> None:
    """Until the gateway has the head of an answer."""
    while not fresh.first_byte:
        await asyncio.sleep(0)


async def nothing(peer: Peer, fresh: Call) -> None:
    """Closes with the head, both in one."""


async def close(peer: Peer, fresh: Call) -> None:
    await headed(fresh)


async def reset(peer: Peer, fresh: Call) -> None:
    await headed(fresh)
    peer.writer.transport.abort()


async def end(peer: Peer, fresh: Call) -> None:
    await headed(fresh)
    await peer.say(b"0\r\n\r\n")


async def garbage(peer: Peer, fresh: Call) -> None:
    await headed(fresh)
    await peer.say(b"no chunk\r\n")


async def stall(peer: Peer, fresh: Call) -> None:
    await peer.gone()


async def good(peer: Peer) -> None:
    while await peer.request():
        await peer.say(chunked([EVENT, DONE]))


def made() -> Call:
    fresh = call(document={"model": "m", "messages": [], "stream": True})
    fresh.passed, fresh.plan = b"content-type: application/json\r\n", PLAN
    return fresh


def heads(fresh: Call, then: Then) -> Script:
    """Sends the head of a stream, and goes on in this way."""

    async def script(peer: Peer) -> None:
        if await peer.request():
            await peer.say(HEAD)
            await then(peer, fresh)

    return script


@asynccontextmanager
async def two(
    first: Script, timeout: Deadlines = PATIENT, **rest: Any
) -> AsyncIterator[tuple[Forward, Upstream, Upstream]]:
    """A stage over two providers, of which the second is good."""
    async with (
        upstream(first) as one,
        upstream(good) as other,
        backend(one.port, timeout=timeout, **rest) as near,
        backend(other.port) as far,
        backend(1) as gone,  # nobody listens there
    ):
        journal: Any = type("Journal", (), {"begin": lambda self, record: 0})()
        backends = {"first": near, "second": far, "gone": gone}
        yield Forward(None, replace(parts(backends=backends), journal=journal)), one, other


@pytest.mark.parametrize("rest", [{}, {"http2": True}], ids=["pool", "httpx"])
@pytest.mark.parametrize(
    ("then", "timeout", "why"),
    [
        (nothing, PATIENT, "upstream_closed"),
        (close, PATIENT, "upstream_closed"),
        (reset, PATIENT, "upstream_closed"),
        (end, PATIENT, "upstream_closed"),
        (garbage, PATIENT, "upstream_protocol_error"),
        (stall, Deadlines(first=0.2, idle=30, total=60), "upstream_first_byte_timeout"),
        (stall, Deadlines(first=30, idle=0.2, total=60), "upstream_idle_timeout"),
    ],
)
def test_a_stream_that_fails_between_its_head_and_its_first_byte_has_the_next_target_asked(
    then: Then, timeout: Deadlines, why: str, rest: dict[str, Any]
) -> None:
    async def scenario() -> None:
        fresh = made()
        async with two(heads(fresh, then), timeout, **rest) as (stage, _, other):
            answer = await _asked(stage, fresh)
            assert await whole(answer) == EVENT + DONE
            assert (fresh.target, fresh.tries, len(other.peers)) == (PLAN.targets[1], 2, 1)
            assert fresh.reasons == {"fallback": f"first:{why}", "route": "fallback"}

    run(scenario())


async def _asked(stage: Forward, fresh: Call) -> Any:
    verdict: Any = stage.admit(fresh)
    return await verdict


def test_a_comment_is_a_first_byte_and_what_breaks_after_it_is_not_asked_again() -> None:
    async def scenario() -> None:
        fresh, read = made(), asyncio.Event()

        async def ping(peer: Peer, fresh: Call) -> None:
            await headed(fresh)
            await peer.say(PING)
            await read.wait()

        async with two(heads(fresh, ping)) as (stage, _, other):
            answer = await _asked(stage, fresh)
            assert await answer.source.read() == b": ping\n\n"
            read.set()
            assert (await fails(answer.source.read())).code == "upstream_closed"
            assert (fresh.tries, other.peers, fresh.reasons) == (1, [], {})

    run(scenario())


@pytest.mark.parametrize(
    "targets", [(Target("first"),), (Target("gone"), Target("first"))], ids=["the only one", "the last one"]
)
def test_a_target_behind_which_there_is_no_other_has_its_head_taken_at_once(
    targets: tuple[Target, ...],
) -> None:
    async def scenario() -> None:
        fresh = made()
        fresh.plan = Plan(targets, "exact", "m")
        async with two(heads(fresh, stall)) as (stage, one, other):
            answer = await _asked(stage, fresh)
            assert (answer.status, answer.event_stream, fresh.tries) == (200, True, len(targets))
            assert other.peers == []
            answer.source.close()
            await one.peers[0].ended.wait()

    run(scenario())


def test_where_all_fail_so_the_last_one_s_error_is_told_in_the_stream() -> None:
    async def scenario() -> None:
        fresh = made()
        fresh.plan = Plan((Target("first"), Target("first")), "exact", "m")
        async with two(heads(fresh, close)) as (stage, one, _):
            answer = await _asked(stage, fresh)
            with pytest.raises(UpstreamError, match="closed the connection"):
                await answer.source.read()
            assert (len(one.peers), fresh.tries) == (2, 2)

    run(scenario())


def test_a_call_cancelled_before_the_first_byte_has_its_upstream_cut_and_nobody_else_asked() -> None:
    async def scenario() -> None:
        fresh = made()
        async with two(heads(fresh, stall)) as (stage, one, other):
            asking = asyncio.ensure_future(_asked(stage, fresh))
            await headed(fresh)
            asking.cancel()
            await asyncio.wait([asking])
            assert asking.cancelled()
            await one.peers[0].ended.wait()
            assert (fresh.tries, other.peers) == (1, [])

    run(scenario())
