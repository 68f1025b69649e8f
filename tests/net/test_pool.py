"""What the pool does beyond the contract: reuse, waiting, staleness, early answers."""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from gateway.net import pool
from gateway.net.pool import Pool
from gateway.settings.schema import Deadlines
from tests.net.world import (
    HELLO,
    OK,
    PATIENT,
    Basket,
    Peer,
    Script,
    Upstream,
    answering,
    ask,
    fails,
    once,
    run,
    upstream,
    whole,
)


@asynccontextmanager
async def pooled(
    script: Script, timeout: Deadlines = PATIENT, connections: int = 1024, keep: float = 60.0
) -> AsyncIterator[tuple[Pool, Upstream]]:
    async with upstream(script) as seen:
        pool = Pool("up", "127.0.0.1", seen.port, timeout, connections=connections, keep=keep)
        try:
            yield pool, seen
        finally:
            await pool.close()
            assert pool.counts == (0, 0, 0)
            assert pool.open == 0
            assert not pool.ticking


async def settled(pool: Pool, counts: tuple[int, int, int]) -> None:
    """Returns when the pool has come to these counts."""
    while pool.counts != counts:
        await asyncio.sleep(0)


def test_the_connection_used_last_is_used_next() -> None:
    async def scenario() -> None:
        used: list[int] = []

        async def script(peer: Peer) -> None:
            while await peer.request():
                used.append(peer.number)
                await peer.say(HELLO)

        async with pooled(script) as (pool, _):
            await asyncio.gather(*(whole(pool) for _ in range(3)))
            assert len(set(used)) == 3
            del used[:]
            for _ in range(3):
                await whole(pool)
            assert len(set(used)) == 1
            assert pool.counts == (0, 3, 0)

    run(scenario())


def test_an_answer_that_came_whole_is_collected_without_waiting() -> None:
    async def scenario() -> None:
        async with pooled(answering) as (pool, _):
            exchange = await pool.send(ask())
            with pytest.raises(StopIteration) as stopped:
                exchange.collect(100).send(None)
            assert stopped.value.value == b"hello"

    run(scenario())


def test_a_body_of_many_chunks_in_one_read_is_one_piece() -> None:
    async def scenario() -> None:
        answer = OK + b"Transfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 100 + b"0\r\n\r\n"
        async with pooled(once(answer)) as (pool, _):
            basket = Basket()
            await (await pool.send(ask())).pipe(basket)
            assert basket.data == b"x" * 100
            assert len(basket.pieces) < 10

    run(scenario())


def test_an_idle_connection_expires() -> None:
    async def scenario() -> None:
        async with pooled(answering, keep=0.5) as (pool, seen):
            await whole(pool)
            assert pool.counts == (0, 1, 0)
            await seen.peers[0].ended.wait()
            await settled(pool, (0, 0, 0))
            await whole(pool)
            assert len(seen.peers) == 2

    run(scenario())


def test_a_peer_that_keeps_connections_for_a_short_time_is_believed() -> None:
    async def scenario() -> None:
        async def script(peer: Peer) -> None:
            while await peer.request():
                await peer.say(OK + b"Keep-Alive: timeout=0\r\nContent-Length: 0\r\n\r\n")

        async with pooled(script) as (pool, seen):
            await whole(pool)
            await whole(pool)
            assert len(seen.peers) == 2

    run(scenario())


def test_a_connection_that_closed_while_idle_leaves_the_pool() -> None:
    async def scenario() -> None:
        async with pooled(once(HELLO)) as (pool, _):
            await whole(pool)
            await settled(pool, (0, 0, 0))

    run(scenario())


def test_bytes_that_nobody_asked_for_close_an_idle_connection() -> None:
    async def scenario() -> None:
        more = asyncio.Event()

        async def script(peer: Peer) -> None:
            await peer.request()
            await peer.say(HELLO)
            await more.wait()
            await peer.say(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged")
            await peer.gone()

        async with pooled(script) as (pool, seen):
            await whole(pool)
            assert pool.counts == (0, 1, 0)
            more.set()
            await seen.peers[0].ended.wait()
            assert pool.counts == (0, 0, 0)

    run(scenario())


def test_bytes_after_the_end_are_never_the_next_answer() -> None:
    async def scenario() -> None:
        async with pooled(once(HELLO + HELLO.replace(b"hello", b"wrong"))) as (pool, seen):
            for _ in range(3):
                assert (await whole(pool))[1] == b"hello"
            assert len(seen.peers) == 3

    run(scenario())


def test_calls_wait_in_the_order_they_came() -> None:
    async def scenario() -> None:
        async with pooled(answering, connections=1) as (pool, seen):
            order: list[int] = []

            async def call(number: int) -> None:
                await whole(pool)
                order.append(number)

            await asyncio.gather(*(call(number) for number in range(10)))
            assert order == list(range(10))
            assert len(seen.peers) == 1

    run(scenario())


def test_a_waiting_call_takes_the_place_of_a_connection_that_closed() -> None:
    async def scenario() -> None:
        async with pooled(once(OK + b"Connection: close\r\n\r\nbye"), connections=1) as (pool, seen):
            answers = await asyncio.gather(*(whole(pool) for _ in range(5)))
            assert [body for _, body in answers] == [b"bye"] * 5
            assert len(seen.peers) == 5

    run(scenario())


def test_a_call_that_gives_up_waiting_leaves_its_turn_to_the_next() -> None:
    async def scenario() -> None:
        release = asyncio.Event()

        async def script(peer: Peer) -> None:
            while await peer.request():
                await release.wait()
                await peer.say(HELLO)

        async with pooled(script, connections=1) as (pool, seen):
            calls = [asyncio.ensure_future(whole(pool)) for _ in range(4)]
            await settled(pool, (0, 0, 3))
            calls[1].cancel()
            await settled(pool, (1, 0, 2))
            release.set()
            await calls[0]
            calls[2].cancel()  # it may have been handed the connection in this very moment
            await asyncio.wait(calls)
            assert calls[3].result()[1] == b"hello"
            assert len(seen.peers) == 1

    run(scenario())


def test_failed_connects_give_their_places_back() -> None:
    async def scenario() -> None:
        with socket.socket() as unheard:
            unheard.bind(("127.0.0.1", 0))
            pool = Pool("up", "127.0.0.1", unheard.getsockname()[1], PATIENT, connections=2)
            for _ in range(6):
                assert (await fails(pool.send(ask()))).code == "upstream_connect_failed"
            assert pool.open == 0
            await pool.close()

    run(scenario())


@asynccontextmanager
async def deaf() -> AsyncIterator[int]:
    """A port whose accept queue is full: connecting to it hangs."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        address = listener.getsockname()
        fillers = [socket.socket() for _ in range(4)]
        try:
            for filler in fillers:
                filler.setblocking(False)
                filler.connect_ex(address)
            yield address[1]
        finally:
            for filler in fillers:
                filler.close()


def test_a_connect_that_hangs_meets_its_deadline() -> None:
    async def scenario() -> None:
        async with deaf() as port:
            pool = Pool("up", "127.0.0.1", port, Deadlines(connect=0.1))
            error = await fails(pool.send(ask()))
            assert (error.code, error.status, error.sent) == ("upstream_connect_timeout", 504, False)
            assert pool.open == 0
            await pool.close()

    run(scenario())


def test_cancelling_a_connect_leaves_nothing() -> None:
    async def scenario() -> None:
        async with deaf() as port:
            pool = Pool("up", "127.0.0.1", port, PATIENT)
            sending = asyncio.ensure_future(pool.send(ask()))
            while not pool.open:
                await asyncio.sleep(0)
            sending.cancel()
            await asyncio.wait([sending])
            assert pool.open == 0
            await pool.close()

    run(scenario())


def test_a_name_without_an_address() -> None:
    async def scenario() -> None:
        pool = Pool("up", "no-such-host.invalid", 80, Deadlines(connect=60))  # a resolver may be slow
        error = await fails(pool.send(ask()))
        assert (error.code, error.sent) == ("upstream_connect_failed", False)
        assert "no-such-host" not in error.message
        await pool.close()

    run(scenario())


class Blocking:
    """An upstream in a thread: what it does happens while the event loop stands still."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.listener.getsockname()[1]
        self.closed = threading.Event()
        self.close_now = threading.Event()
        self.requests: list[bytes] = []
        self.thread = threading.Thread(target=self._serve)

    def _serve(self) -> None:
        with self.listener:
            first, _ = self.listener.accept()
            with first:
                self.requests.append(first.recv(65536))
                first.sendall(HELLO)
                self.close_now.wait()
            self.closed.set()
            second, _ = self.listener.accept()
            with second:
                self.requests.append(second.recv(65536))
                second.sendall(HELLO)

    def __enter__(self) -> Blocking:
        self.thread.start()
        return self

    def __exit__(self, *unused: object) -> None:
        self.close_now.set()
        self.thread.join()


@pytest.mark.parametrize("method", [b"POST", b"GET"])
def test_a_connection_that_the_peer_had_closed_before_the_request_left_is_replaced_once(
    method: bytes,
) -> None:
    async def scenario() -> None:
        with Blocking() as there:
            pool = Pool("up", "127.0.0.1", there.port, PATIENT)
            await whole(pool)
            there.close_now.set()
            there.closed.wait()  # the loop stands still: the pool can't know yet
            exchange, body = await whole(pool, ask(method))
            assert body == b"hello"
            assert exchange.connect_time > 0
            assert len(there.requests) == 2
            await pool.close()

    run(scenario())


async def second_request_unanswered(peer: Peer) -> None:
    """Answers one request, takes another one and closes without a word; a second connection likewise."""
    await peer.request()
    await peer.say(HELLO)
    await peer.request()


def test_a_post_that_the_peer_has_read_is_never_sent_again() -> None:
    async def scenario() -> None:
        async with pooled(second_request_unanswered) as (pool, seen):
            await whole(pool)
            error = await fails(pool.send(ask()))
            assert (error.code, error.sent) == ("upstream_closed", True)
            assert len(seen.peers) == 1

    run(scenario())


def test_a_post_that_the_peer_has_read_before_a_reset_is_never_sent_again() -> None:
    async def scenario() -> None:
        async def script(peer: Peer) -> None:
            await peer.request()
            await peer.say(HELLO)
            if await peer.request():
                linger = struct.pack("ii", 1, 0)
                peer.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                peer.writer.transport.abort()

        async with pooled(script) as (pool, seen):
            for _ in range(20):
                await whole(pool)
                error = await fails(pool.send(ask()))
                assert (error.code, error.sent) == ("upstream_closed", True)
            assert len(seen.peers) == 20

    run(scenario())


def test_a_get_that_got_no_answer_on_a_used_connection_is_sent_again_once() -> None:
    async def scenario() -> None:
        async with pooled(second_request_unanswered) as (pool, seen):
            await whole(pool, ask(b"GET", b""))
            assert (await whole(pool, ask(b"GET", b"")))[1] == b"hello"
            assert len(seen.peers) == 2

    run(scenario())


def test_a_get_that_got_no_answer_on_a_new_connection_is_not_sent_again() -> None:
    async def scenario() -> None:
        async with pooled(once()) as (pool, seen):
            assert (await fails(pool.send(ask(b"GET", b"")))).code == "upstream_closed"
            assert len(seen.peers) == 1

    run(scenario())


def test_a_get_that_got_part_of_an_answer_is_not_sent_again() -> None:
    async def scenario() -> None:
        async def script(peer: Peer) -> None:
            await second_request_unanswered(peer)
            await peer.say(b"HTTP/1.1 2")

        async with pooled(script) as (pool, seen):
            await whole(pool, ask(b"GET", b""))
            assert (await fails(pool.send(ask(b"GET", b"")))).code == "upstream_closed"
            assert len(seen.peers) == 1

    run(scenario())


def test_an_answer_before_the_request_has_left_is_taken_and_the_connection_is_not_used_again() -> None:
    async def scenario() -> None:
        async def script(peer: Peer) -> None:
            await peer.reader.readexactly(10)
            await peer.say(b"HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nbig")
            peer.reader._transport.pause_reading()  # type: ignore[attr-defined]
            await asyncio.Event().wait()

        async with pooled(script) as (pool, _):
            exchange, body = await whole(pool, ask(body=bytes(64 << 20)))
            assert (exchange.status, body) == (413, b"big")
            assert pool.counts == (0, 0, 0)

    run(scenario())


def test_an_upstream_that_does_not_take_the_request_meets_the_first_byte_deadline() -> None:
    async def scenario() -> None:
        async def script(peer: Peer) -> None:
            peer.reader._transport.pause_reading()  # type: ignore[attr-defined]
            await asyncio.Event().wait()

        async with pooled(script, Deadlines(first=0.1)) as (pool, _):
            error = await fails(pool.send(ask(body=bytes(64 << 20))))
            assert error.code == "upstream_first_byte_timeout"

    run(scenario())


def test_a_head_that_drips_meets_the_first_byte_deadline() -> None:
    async def scenario() -> None:
        async def script(peer: Peer) -> None:
            await peer.request()
            while True:
                await peer.say(b"HTTP/1.1 102 Processing\r\n\r\n")
                await asyncio.sleep(0.01)

        async with pooled(script, Deadlines(first=0.1, idle=5)) as (pool, _):
            assert (await fails(pool.send(ask()))).code == "upstream_first_byte_timeout"

    run(scenario())


def test_a_stream_that_keeps_coming_is_not_idle() -> None:
    async def scenario() -> None:
        async def script(peer: Peer) -> None:
            await peer.request()
            await peer.say(OK + b"Content-Length: 30\r\n\r\n")
            for _ in range(30):
                await peer.say(b"x")
                await asyncio.sleep(0.1)

        async with pooled(script, Deadlines(idle=2.5)) as (pool, _):
            assert (await whole(pool))[1] == b"x" * 30

    run(scenario())


def test_a_paused_stream_is_not_idle() -> None:
    async def scenario() -> None:
        async def script(peer: Peer) -> None:
            await peer.request()
            await peer.say(OK + b"Content-Length: 2\r\n\r\nx")
            await on.wait()
            await peer.say(b"y")

        on = asyncio.Event()
        async with pooled(script, Deadlines(idle=2.0)) as (pool, _):
            exchange, basket = await pool.send(ask()), Basket()
            piping = asyncio.ensure_future(exchange.pipe(basket))
            await basket.filled()
            exchange.pause()
            await asyncio.sleep(2.5)
            assert not piping.done()
            on.set()
            exchange.resume()
            await piping
            assert basket.data == b"xy"

    run(scenario())


def test_a_standstill_of_this_process_is_not_the_upstreams_fault() -> None:
    async def scenario() -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            pool = Pool("up", "127.0.0.1", listener.getsockname()[1], Deadlines(idle=1.0))
            sending = asyncio.ensure_future(pool.send(ask()))
            while not pool.counts[0]:
                await asyncio.sleep(0)
            peer, _ = listener.accept()
            with peer:
                peer.sendall(OK + b"Content-Length: 6\r\n\r\nabc")
                exchange = await sending
                assert await exchange.read() == b"abc"
                while any(connection.stirred for connection in pool._connections):
                    await asyncio.sleep(0.001)
                peer.sendall(b"def")
                time.sleep(1.5)  # the loop stands still, longer than the deadline
                assert await exchange.read() == b"def"
            await pool.close()

    run(scenario())


def test_a_connection_paused_at_the_end_is_read_again() -> None:
    class Pausing(Basket):
        def write(self, data: bytes) -> None:
            super().write(data)
            exchange.pause()

    async def scenario() -> None:
        nonlocal exchange
        async with pooled(answering) as (pool, seen):
            for _ in range(3):
                exchange = await pool.send(ask())
                await exchange.pipe(Pausing())
            assert len(seen.peers) == 1

    exchange = None  # type: ignore[var-annotated]
    run(scenario())


def test_a_sink_may_close_the_exchange_from_inside_write() -> None:
    class Closing(Basket):
        def write(self, data: bytes) -> None:
            super().write(data)
            exchange.close()

    async def scenario() -> None:
        nonlocal exchange

        async def script(peer: Peer) -> None:
            await peer.request()
            await peer.say(OK + b"Content-Length: 10\r\n\r\n")
            await piping.wait()
            await peer.say(b"hello")
            await peer.gone()

        piping = asyncio.Event()
        async with pooled(script) as (pool, seen):
            exchange = await pool.send(ask())
            task = asyncio.ensure_future(exchange.pipe(Closing()))
            await asyncio.sleep(0)
            piping.set()
            assert (await fails(task)).code == "upstream_closed"
            await seen.peers[0].ended.wait()

    exchange = None  # type: ignore[var-annotated]
    run(scenario())


def test_hundreds_of_streams_at_once_leave_nothing() -> None:
    async def scenario() -> None:
        async def script(peer: Peer) -> None:
            await peer.request()
            await peer.say(OK + b"Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n")
            await on.wait()
            await peer.say(b"0\r\n\r\n")

        on = asyncio.Event()
        async with pooled(script) as (pool, _):
            exchanges = [await pool.send(ask()) for _ in range(400)]
            pipes = [asyncio.ensure_future(e.pipe(Basket())) for e in exchanges]
            await asyncio.sleep(0)
            for number, pipe in enumerate(pipes):
                if number % 2:
                    pipe.cancel()
            on.set()
            results = await asyncio.gather(*pipes, return_exceptions=True)
            assert sum(result is None for result in results) == 200
            await settled(pool, (0, pool.counts[1], 0))

    run(scenario())


def test_it_runs_on_asyncios_own_loop() -> None:
    async def scenario() -> None:
        async with pooled(answering) as (pool, _):
            for _ in range(3):
                assert (await whole(pool))[1] == b"hello"

        with Blocking() as there:
            pool = Pool("up", "127.0.0.1", there.port, PATIENT)
            await whole(pool)
            there.close_now.set()
            there.closed.wait()
            assert (await whole(pool))[1] == b"hello"
            await pool.close()

    asyncio.run(scenario())


def test_an_error_of_tls_that_has_no_name_is_told_by_its_kind() -> None:
    nameless = ssl.SSLZeroReturnError(6, "TLS/SSL connection has been closed (EOF)")
    nameless.reason = None  # type: ignore[assignment]  # as with codes that Python does not know
    told = pool._explained(nameless, "main")
    assert told.code == "upstream_tls_failed"
    assert "SSLZeroReturnError" in str(told)
