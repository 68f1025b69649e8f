"""Waiting for the first piece of a body alone, over both transports: the pool, and httpx."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from gateway.net.egress import transport
from gateway.net.port import Transport
from gateway.settings.schema import BackendSettings, Deadlines
from tests.net.world import OK, PATIENT, Basket, Peer, Script, Upstream, ask, fails, run, upstream

CHUNKED = OK + b"Content-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
PIECE = b"3\r\nabc\r\n"
END = b"0\r\n\r\n"

Way = Callable[..., "AsyncIterator[tuple[Transport, Upstream]]"]


@pytest.fixture(params=["pool", "httpx"])
def way(request: pytest.FixtureRequest) -> Way:
    """Makes an upstream and a transport to it."""

    @asynccontextmanager
    async def opened(script: Script, timeout: Deadlines = PATIENT):  # type: ignore[no-untyped-def]
        async with upstream(script) as seen:
            url = f"http://127.0.0.1:{seen.port}/v1"
            settings = BackendSettings("up", "openai", url, timeout=timeout, http2=request.param == "httpx")
            made = transport(settings)
            try:
                yield made, seen
            finally:
                await made.close()

    return opened


def after_the_head(headed: asyncio.Event, rest: bytes, stays: bool = False) -> Script:
    """Sends the head, and the rest once a test has taken it; then closes, or `stays` until the other goes."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.say(CHUNKED)
        await headed.wait()
        await peer.say(rest)
        if stays:
            await peer.gone()

    return script


@pytest.mark.parametrize("form", ["read", "pipe"])
def test_the_first_piece_is_waited_for_and_kept(way: Way, form: str) -> None:
    async def scenario() -> None:
        headed = asyncio.Event()
        async with way(after_the_head(headed, PIECE + END)) as (there, _):
            exchange = await there.send(ask())
            beginning = asyncio.ensure_future(exchange.begun())
            await asyncio.sleep(0)
            assert not beginning.done()
            headed.set()
            assert await beginning
            assert await exchange.begun()
            if form == "read":
                assert await exchange.read() == b"abc"
            else:
                basket = Basket()
                await exchange.pipe(basket)
                assert basket.data == b"abc"
            assert await exchange.read() == b""

    run(scenario())


def test_a_body_that_ends_without_a_byte_has_not_begun(way: Way) -> None:
    async def scenario() -> None:
        headed = asyncio.Event()
        async with way(after_the_head(headed, END)) as (there, _):
            exchange = await there.send(ask())
            headed.set()
            assert not await exchange.begun()
            assert await exchange.read() == b""

    run(scenario())


@pytest.mark.parametrize(
    ("rest", "code"), [(b"", "upstream_closed"), (b"no chunk\r\n", "upstream_protocol_error")]
)
def test_a_body_that_breaks_before_its_first_byte_is_an_error(way: Way, rest: bytes, code: str) -> None:
    async def scenario() -> None:
        headed = asyncio.Event()
        async with way(after_the_head(headed, rest)) as (there, _):
            exchange = await there.send(ask())
            headed.set()
            assert (await fails(exchange.begun())).code == code
            assert (await fails(exchange.begun())).code == code

    run(scenario())


@pytest.mark.parametrize(
    ("timeout", "code"),
    [
        (Deadlines(first=0.2, idle=30, total=60), "upstream_first_byte_timeout"),
        (Deadlines(first=30, idle=0.2, total=60), "upstream_idle_timeout"),
        (Deadlines(first=30, idle=30, total=0.5), "upstream_total_timeout"),
    ],
)
def test_the_deadline_that_passes_before_the_first_byte_is_the_one_told(
    way: Way, timeout: Deadlines, code: str
) -> None:
    async def scenario() -> None:
        async with way(after_the_head(asyncio.Event(), b""), timeout) as (there, seen):
            error = await fails(beginning(there))
            assert (error.code, error.status) == (code, 504)
            assert len(seen.peers) == 1

    run(scenario())


async def beginning(there: Transport) -> bool:
    return await (await there.send(ask())).begun()


def test_the_first_byte_s_deadline_does_not_bind_a_body_that_has_begun(way: Way) -> None:
    timeout = Deadlines(first=1, idle=30, total=60)

    async def scenario() -> None:
        headed, later = asyncio.Event(), asyncio.Event()

        async def script(peer: Peer) -> None:
            await peer.request()
            await peer.say(CHUNKED)
            await headed.wait()
            await peer.say(PIECE)
            await later.wait()
            await peer.say(PIECE + END)

        async with way(script, timeout) as (there, _):
            exchange = await there.send(ask())
            headed.set()
            assert await exchange.begun()
            assert await exchange.read() == b"abc"
            reading = asyncio.ensure_future(exchange.read())
            await asyncio.wait([reading], timeout=1.5)  # well past the deadline
            later.set()
            assert await reading == b"abc"

    run(scenario())


def test_cancelling_the_wait_for_the_first_piece_cuts_the_connection(way: Way) -> None:
    async def scenario() -> None:
        headed = asyncio.Event()
        headed.set()
        async with way(after_the_head(headed, b"", stays=True)) as (there, seen):
            exchange = await there.send(ask())
            beginning = asyncio.ensure_future(exchange.begun())
            await asyncio.sleep(0)
            beginning.cancel()
            await asyncio.wait([beginning])
            assert beginning.cancelled()
            await seen.peers[0].ended.wait()

    run(scenario())
