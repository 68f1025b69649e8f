"""Asking without a task: `start` sends at once on a free connection, `then` tells when to look."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from gateway.net.exchange import HIGH_WATER, PooledExchange
from gateway.net.pool import Pool
from gateway.settings.schema import Deadlines
from tests.net.world import HELLO, OK, PATIENT, Peer, Script, Upstream, ask, fails, run, upstream

JSON = OK + b"Content-Type: application/json\r\n"


def after_hello(*pieces: bytes) -> Script:
    """Answers hello to the first request of a connection, and with these pieces, one by one, to the next."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.say(HELLO)
        if await peer.request():
            for piece in pieces:
                await peer.say(piece)
                await asyncio.sleep(0.01)  # so that it is read by itself
            await peer.gone()

    return script


@asynccontextmanager
async def warm(script: Script, timeout: Deadlines = PATIENT) -> AsyncIterator[tuple[Pool, Upstream]]:
    """A pool with one free connection."""
    async with upstream(script) as seen:
        pool = Pool("up", "127.0.0.1", seen.port, timeout)
        try:
            await (await pool.send(ask())).collect(100)
            yield pool, seen
        finally:
            await pool.close()


class News:
    """What was told, and how the exchange stood then."""

    def __init__(self, exchange: PooledExchange, look: Callable[[], None] = lambda: None) -> None:
        self.heard = asyncio.Event()
        self.times = 0
        self.size = -1
        self._exchange, self._look = exchange, look
        assert exchange.then(self._told)

    def _told(self) -> None:
        self.times += 1
        self.size = self._exchange.size
        self._look()
        self.heard.set()


def started(pool: Pool) -> PooledExchange:
    exchange = pool.start(ask())
    assert exchange is not None
    return exchange


def test_nothing_is_started_without_a_free_connection() -> None:
    async def scenario() -> None:
        async with upstream(after_hello()) as seen:
            pool = Pool("up", "127.0.0.1", seen.port, PATIENT)
            assert pool.start(ask()) is None
            assert seen.peers == [] and pool.counts == (0, 0, 0)
            await pool.close()

    run(scenario())


@pytest.mark.parametrize(
    "pieces",
    [
        (JSON + b"Content-Length: 7\r\n\r\n[1,2,3]",),
        (JSON + b"Content-Length: 7\r\n\r\n", b"[1,2,3]"),
        (JSON + b"Content-Length: 7\r\n\r\n[1,", b"2,", b"3]"),
        (JSON + b"Transfer-Encoding: chunked\r\n\r\n", b"3\r\n[1,\r\n", b"4\r\n2,3]\r\n0\r\n\r\n"),
        (JSON[:20], JSON[20:] + b"Content-Length: 7\r\n", b"\r\n[1,2,3]"),
    ],
)
def test_of_a_document_nothing_is_told_before_it_is_whole(pieces: tuple[bytes, ...]) -> None:
    async def scenario() -> None:
        async with warm(after_hello(*pieces)) as (pool, _):
            exchange = started(pool)
            news = News(exchange)
            await news.heard.wait()
            assert exchange.held(100) == b"[1,2,3]"
            assert news.times == 1 and pool.counts == (0, 1, 0)

    run(scenario())


@pytest.mark.parametrize(
    "head",
    [
        OK + b"Content-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n",
        JSON + b"Content-Length: %d\r\n\r\n" % (HIGH_WATER + 1),
    ],
)
def test_of_what_is_to_be_read_bit_by_bit_the_head_is_told(head: bytes) -> None:
    async def scenario() -> None:
        async with warm(after_hello(head)) as (pool, _):
            exchange = started(pool)
            news = News(exchange)
            await news.heard.wait()
            assert exchange.status == 200 and not exchange.done_at and exchange.held(100) is None
            assert await pool.arrived(exchange, ask()) is exchange
            exchange.close()
            assert news.times == 1

    run(scenario())


def test_a_document_of_unknown_length_is_told_once_it_is_too_long_to_be_held() -> None:
    async def scenario() -> None:
        big = b"20000\r\n" + b" " * 0x20000 + b"\r\n"
        async with warm(after_hello(JSON + b"Transfer-Encoding: chunked\r\n\r\n", big)) as (pool, _):
            exchange = started(pool)
            news = News(exchange)
            await news.heard.wait()
            assert news.size > HIGH_WATER and not exchange.done_at
            exchange.close()
            assert news.times == 1

    run(scenario())


def test_when_it_is_told_the_connection_is_free_for_the_next_request() -> None:
    async def scenario() -> None:
        async def script(peer: Peer) -> None:
            while await peer.request():
                await peer.say(HELLO)

        async with warm(script) as (pool, seen):
            following: list[PooledExchange | None] = []
            exchange = started(pool)
            news = News(exchange, lambda: following.append(pool.start(ask())))
            await news.heard.wait()
            (second,) = following
            assert second is not None
            again = News(second)
            await again.heard.wait()
            assert second.held(100) == b"hello" and len(seen.peers) == 1

    run(scenario())


def test_a_deadline_is_told() -> None:
    async def scenario() -> None:
        hasty = Deadlines(connect=30, first=2.0, idle=30, total=60)
        async with warm(after_hello(), hasty) as (pool, _):
            exchange = started(pool)
            await News(exchange).heard.wait()
            error = await fails(pool.arrived(exchange, ask()))
            assert error.code == "upstream_first_byte_timeout"

    run(scenario())


def test_what_is_closed_tells_nothing_and_cuts_its_connection() -> None:
    async def scenario() -> None:
        async with warm(after_hello()) as (pool, seen):
            exchange = started(pool)
            news = News(exchange)
            exchange.close()
            await seen.peers[0].ended.wait()
            assert news.times == 0 and pool.counts == (0, 0, 0)

    run(scenario())


def test_news_that_are_there_already_are_not_told() -> None:
    async def scenario() -> None:
        async with warm(after_hello(JSON + b"Content-Length: 2\r\n\r\n{}")) as (pool, _):
            exchange = started(pool)
            assert await pool.arrived(exchange, ask()) is exchange
            assert not exchange.then(lambda: pytest.fail("it was told"))
            assert await exchange.collect(10) == b"{}"

    run(scenario())
