"""What both transports promise: the pool, and httpx behind the same interface."""

from __future__ import annotations

import asyncio
import gzip
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from gateway.net.egress import transport
from gateway.net.port import Exchange, Transport
from gateway.settings.schema import BackendSettings, Deadlines
from gateway.settings.secret import Secret
from tests.net.forward import forward_proxy
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

Way = Callable[..., "AsyncIterator[tuple[Transport, Upstream]]"]


@pytest.fixture(params=["pool", "httpx", "proxy"])
def way(request: pytest.FixtureRequest) -> Way:
    """Makes an upstream and a transport to it."""

    @asynccontextmanager
    async def opened(script: Script, timeout: Deadlines = PATIENT, **more: object):  # type: ignore[no-untyped-def]
        async with upstream(script) as seen, forward_proxy() as proxy:
            ways = {"pool": {}, "httpx": {"http2": True}, "proxy": {"proxy": Secret(proxy)}}
            url = f"http://127.0.0.1:{seen.port}/v1"
            settings = BackendSettings("up", "openai", url, timeout=timeout, **ways[request.param], **more)
            made = transport(settings)
            try:
                yield made, seen
            finally:
                await made.close()

    return opened


CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
STREAM = CHUNKED + b"3\r\nabc\r\n4\r\ndefg\r\n0\r\n\r\n"


def test_an_exchange_knows_when_its_time_is_over(way: Way) -> None:
    async def scenario() -> None:
        async with way(once(STREAM), Deadlines(total=50.0)) as (client, _):
            before = time.monotonic()
            exchange = await client.send(ask())
            assert before + 50 <= exchange.until <= time.monotonic() + 50
            exchange.close()

    run(scenario())


def test_the_request_arrives_as_it_was_put_together(way: Way) -> None:
    async def scenario() -> None:
        got: list[bytes] = []

        async def script(peer: Peer) -> None:
            while request := await peer.request():
                got.append(request)
                await peer.say(HELLO)

        async with way(script) as (there, _):
            await whole(there, ask())
            await whole(there, ask(b"GET", b""))
            await whole(there, ask(b"POST", b""))
        head = b"/v1/x?y=1 HTTP/1.1\r\nhost: up.test\r\nx-fixed: 1\r\nx-passed: 2\r\n"
        assert got[0] == b"POST " + head + b'content-length: 13\r\n\r\n{"model":"m"}'
        assert got[1] == b"GET " + head + b"\r\n"
        assert got[2] == b"POST " + head + b"content-length: 0\r\n\r\n"

    run(scenario())


@pytest.mark.parametrize(
    ("answer", "length"),
    [
        (OK + b"Content-Length: 7\r\n\r\nabcdefg", 7),
        (STREAM, None),
        (OK + b"Connection: close\r\n\r\nabcdefg", None),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + STREAM, None),
    ],
)
@pytest.mark.parametrize("form", ["collect", "read", "pipe"])
def test_a_body_of_any_framing_comes_whole_in_any_form(
    way: Way, answer: bytes, length: int | None, form: str
) -> None:
    async def scenario() -> None:
        async with way(once(answer[:50], answer[50:])) as (there, _):
            exchange = await there.send(ask())
            assert (exchange.status, exchange.length) == (200, length)
            assert await FORMS[form](exchange) == b"abcdefg"
            assert await exchange.read() == b""
            assert exchange.sent_at <= exchange.first_byte_at <= exchange.done_at

    run(scenario())


async def _collect(exchange: Exchange) -> bytes:
    return await exchange.collect(7) or b""


async def _read(exchange: Exchange) -> bytes:
    pieces = []
    while piece := await exchange.read():
        pieces.append(piece)
    return b"".join(pieces)


async def _pipe(exchange: Exchange) -> bytes:
    basket = Basket()
    await exchange.pipe(basket)
    return basket.data


FORMS = {"collect": _collect, "read": _read, "pipe": _pipe}


def test_headers_are_lower_case_in_order_and_end_to_end_only(way: Way) -> None:
    async def scenario() -> None:
        head = OK + b"X-B: 1\r\nConnection: close, X-Named\r\nSet-Cookie: a\r\nX-Named: 1\r\n"
        rest = b"Keep-Alive: timeout=9\r\nSet-Cookie: b\r\nContent-Length: 0\r\n\r\n"
        async with way(once(head + rest)) as (there, _):
            exchange, _ = await whole(there)
            assert exchange.headers == [(b"x-b", b"1"), (b"set-cookie", b"a"), (b"set-cookie", b"b")]

    run(scenario())


def test_an_encoded_body_is_passed_as_it_is(way: Way) -> None:
    async def scenario() -> None:
        packed = gzip.compress(b"hello")
        head = OK + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(packed)
        async with way(once(head + packed)) as (there, _):
            exchange, body = await whole(there)
            assert body == packed
            assert (b"content-encoding", b"gzip") in exchange.headers

    run(scenario())


def test_an_error_status_is_an_answer(way: Way) -> None:
    async def scenario() -> None:
        async with way(once(b"HTTP/1.1 429 Slow\r\nRetry-After: 3\r\nContent-Length: 2\r\n\r\n{}")) as (
            there,
            _,
        ):
            exchange, body = await whole(there)
            assert (exchange.status, body) == (429, b"{}")

    run(scenario())


def test_a_redirect_is_not_followed(way: Way) -> None:
    async def scenario() -> None:
        answer = b"HTTP/1.1 307 Elsewhere\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n"
        async with way(once(answer)) as (there, _):
            assert (await whole(there))[0].status == 307

    run(scenario())


def test_a_longer_body_than_asked_for_stays_to_be_read(way: Way) -> None:
    async def scenario() -> None:
        for answer in (OK + b"Content-Length: 7\r\n\r\nabcdefg", STREAM):
            async with way(once(answer)) as (there, _):
                exchange = await there.send(ask())
                assert await exchange.collect(6) is None
                assert await _pipe(exchange) == b"abcdefg"

    run(scenario())


def test_connections_are_used_again(way: Way) -> None:
    async def scenario() -> None:
        async with way(answering) as (there, seen):
            first, _ = await whole(there)
            second, _ = await whole(there)
            assert len(seen.peers) == 1
            assert first.connect_time > 0.0
            assert second.connect_time == 0.0

    run(scenario())


def test_a_connection_that_closed_while_idle_is_replaced(way: Way) -> None:
    async def scenario() -> None:
        async with way(once(HELLO)) as (there, seen):
            for count in (1, 2, 3):
                assert (await whole(there))[1] == b"hello"
                await seen.peers[-1].ended.wait()
                assert len(seen.peers) == count

    run(scenario())


@pytest.mark.parametrize("answer", [HELLO, CHUNKED + b"5\r\nhello\r\n0\r\n\r\n", b"HTTP/1.1 204 No\r\n\r\n"])
@pytest.mark.parametrize("more", [b"x", b"\r\n\r\n", b"HTTP/1.1 2", OK + b"Content-Length: 6\r\n\r\npoison"])
def test_what_an_upstream_sends_behind_an_answer_is_nobodys_answer(
    way: Way, answer: bytes, more: bytes
) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.say(answer + more)
        await answering(peer)

    async def scenario() -> None:
        async with way(script) as (there, _):
            for _ in range(2):
                assert (await whole(there))[1] in (b"hello", b"")
            exchange, body = await whole(there)
            assert (exchange.status, body) in ((200, b"hello"), (204, b""))

    run(scenario())


def test_large_bodies_pass_both_ways(way: Way) -> None:
    async def scenario() -> None:
        async def script(peer: Peer) -> None:
            body = (await peer.request()).partition(b"\r\n\r\n")[2]
            await peer.say(OK + b"Content-Length: %d\r\n\r\n" % len(body))
            await peer.say(body)

        body = bytes(range(256)) * 8192 * 4
        async with way(script) as (there, _):
            assert (await whole(there, ask(body=body)))[1] == body

    run(scenario())


def test_many_calls_at_once(way: Way) -> None:
    async def scenario() -> None:
        async with way(answering) as (there, seen):
            for _ in range(3):
                answers = await asyncio.gather(*(whole(there) for _ in range(20)))
                assert [body for _, body in answers] == [b"hello"] * 20
            assert len(seen.peers) <= 20

    run(scenario())


@pytest.mark.parametrize("http2", [False, True])
def test_nobody_listening(http2: bool) -> None:
    async def scenario() -> None:
        server = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        server.close()
        await server.wait_closed()
        there = transport(BackendSettings("up", "openai", url, http2=http2))
        error = await fails(there.send(ask()))
        assert (error.code, error.status, error.sent) == ("upstream_connect_failed", 502, False)
        await there.close()

    run(scenario())


def stall(*pieces: bytes) -> Script:
    """Says these pieces and then nothing until the client leaves."""

    async def script(peer: Peer) -> None:
        await peer.request()
        for piece in pieces:
            await peer.say(piece)
        await peer.gone()

    return script


@pytest.mark.parametrize(
    ("pieces", "timeout", "code"),
    [
        ([], Deadlines(first=0.1), "upstream_first_byte_timeout"),
        ([OK], Deadlines(first=0.1), "upstream_first_byte_timeout"),
        ([], Deadlines(total=1.0), "upstream_total_timeout"),
        ([CHUNKED + b"3\r\nabc\r\n"], Deadlines(idle=0.1), "upstream_idle_timeout"),
        ([CHUNKED + b"3\r\nabc\r\n"], Deadlines(total=1.0), "upstream_total_timeout"),
    ],
)
def test_an_upstream_that_stalls_is_given_up(
    way: Way, pieces: list[bytes], timeout: Deadlines, code: str
) -> None:
    async def scenario() -> None:
        async with way(stall(*pieces), timeout) as (there, seen):
            error = await fails(whole(there))
            assert (error.code, error.status, error.sent) == (code, 504, True)
            await seen.peers[0].ended.wait()

    run(scenario())


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (b"", "upstream_closed"),
        (b"HTTP/1.1 200 O", "upstream_closed"),
        (OK + b"Content-Length: 10\r\n\r\nabc", "upstream_closed"),
        (CHUNKED + b"5\r\nabc", "upstream_closed"),
        (CHUNKED + b"3\r\nabc\r\n", "upstream_closed"),
        (b"SSH-2.0-OpenSSH_9\r\n\r\n", "upstream_protocol_error"),
        (OK + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nab", "upstream_protocol_error"),
        (OK + b"X: a\x00b\r\n\r\n", "upstream_protocol_error"),
        (b"HTTP/1.1 999 Odd\r\nContent-Length: 2\r\n\r\nab", "upstream_protocol_error"),
        (CHUNKED + b"xyz\r\nabc\r\n", "upstream_protocol_error"),
        (OK + b"X: " + b"v" * 200_000 + b"\r\n\r\n", "upstream_protocol_error"),
    ],
)
def test_an_upstream_that_breaks_off_or_talks_nonsense(way: Way, answer: bytes, code: str) -> None:
    async def scenario() -> None:
        async with way(once(answer)) as (there, _):
            error = await fails(whole(there))
            assert (error.code, error.status, error.sent) == (code, 502, True)

    run(scenario())


@pytest.mark.parametrize("form", ["collect", "read", "pipe"])
@pytest.mark.parametrize(
    ("rest", "code"), [(b"", "upstream_closed"), (b"no chunk\r\n", "upstream_protocol_error")]
)
def test_what_came_before_the_break_is_delivered(way: Way, form: str, rest: bytes, code: str) -> None:
    async def scenario() -> None:
        async with way(once(CHUNKED + b"3\r\nabc\r\n" + rest)) as (there, _):
            exchange = await there.send(ask())
            basket = Basket()
            if form == "pipe":
                assert (await fails(exchange.pipe(basket))).code == code
                assert basket.data == b"abc"
            elif form == "read":
                assert await exchange.read() == b"abc"
                assert (await fails(exchange.read())).code == code
            else:
                assert (await fails(exchange.collect(100))).code == code

    run(scenario())


def test_close_cuts_the_connection(way: Way) -> None:
    async def scenario() -> None:
        async with way(stall(CHUNKED + b"3\r\nabc\r\n")) as (there, seen):
            exchange = await there.send(ask())
            assert await exchange.read() == b"abc"
            exchange.close()
            exchange.close()
            await seen.peers[0].ended.wait()
            assert (await fails(exchange.read())).code == "upstream_closed"

    run(scenario())


def test_close_ends_a_pipe_that_waits(way: Way) -> None:
    async def scenario() -> None:
        async with way(stall(CHUNKED + b"3\r\nabc\r\n")) as (there, seen):
            exchange, basket = await there.send(ask()), Basket()
            piping = asyncio.ensure_future(exchange.pipe(basket))
            await basket.filled()
            exchange.close()
            assert (await fails(piping)).code == "upstream_closed"
            await seen.peers[0].ended.wait()

    run(scenario())


def test_cancelling_the_wait_for_the_head_cuts_the_connection(way: Way) -> None:
    async def scenario() -> None:
        asked = asyncio.get_running_loop().create_future()

        async def script(peer: Peer) -> None:
            await peer.request()
            asked.set_result(None)
            await peer.gone()

        async with way(script) as (there, seen):
            sending = asyncio.ensure_future(there.send(ask()))
            await asked
            sending.cancel()
            await asyncio.wait([sending])
            assert sending.cancelled()
            await seen.peers[0].ended.wait()

    run(scenario())


@pytest.mark.parametrize("form", ["collect", "read", "pipe"])
def test_cancelling_the_wait_for_the_body_cuts_the_connection(way: Way, form: str) -> None:
    async def scenario() -> None:
        async with way(stall(CHUNKED)) as (there, seen):
            exchange = await there.send(ask())
            taking = asyncio.ensure_future(FORMS[form](exchange))
            await asyncio.sleep(0.01)
            taking.cancel()
            await asyncio.wait([taking])
            assert taking.cancelled()
            await seen.peers[0].ended.wait()

    run(scenario())


def test_a_sink_that_takes_nothing_has_until_the_time_is_over(way: Way) -> None:
    async def scenario() -> None:
        async with way(stall(CHUNKED + b"3\r\nabc\r\n"), Deadlines(total=1.0)) as (there, _):
            exchange = await there.send(ask())

            class Slow:
                def write(self, data: bytes) -> None:
                    exchange.pause()

            error = await fails(exchange.pipe(Slow()))
            assert error.code == "upstream_total_timeout"

    run(scenario())


def test_a_sink_that_fails_ends_the_pipe_with_its_error(way: Way) -> None:
    class Broken:
        def write(self, data: bytes) -> None:
            raise LookupError("no room")

    async def scenario() -> None:
        async with way(stall(CHUNKED + b"3\r\nabc\r\n")) as (there, seen):
            exchange = await there.send(ask())
            with pytest.raises(LookupError, match="no room"):
                await exchange.pipe(Broken())
            await seen.peers[0].ended.wait()

    run(scenario())


def test_closing_the_transport_leaves_what_is_under_way(way: Way) -> None:
    async def scenario() -> None:
        go_on = asyncio.get_running_loop().create_future()

        async def script(peer: Peer) -> None:
            while await peer.request():
                await peer.say(OK + b"Content-Length: 5\r\n\r\nhe")
                await go_on
                await peer.say(b"llo")

        async with way(script) as (there, seen):
            exchange = await there.send(ask())
            await there.close()
            go_on.set_result(None)
            assert await exchange.collect(5) == b"hello"
            await seen.peers[0].ended.wait()
            assert (await whole(there))[1] == b"hello"

    run(scenario())


def test_a_paused_exchange_makes_the_upstream_wait(way: Way) -> None:
    async def scenario() -> None:
        sent = 0

        async def script(peer: Peer) -> None:
            nonlocal sent
            await peer.request()
            await peer.say(OK + b"\r\n")
            while sent < 64:
                await peer.say(b"x" * (1 << 20))
                sent += 1

        async with way(script) as (there, _):
            exchange, basket = await there.send(ask()), Basket()
            piping = asyncio.ensure_future(exchange.pipe(basket))
            await basket.filled()
            exchange.pause()
            held = -1
            while held != sent:  # until the upstream does not get on any more
                held = sent
                await asyncio.sleep(0.05)
            assert sent < 40
            assert len(basket.data) < 32 << 20
            exchange.resume()
            await piping
            assert len(basket.data) == 64 << 20

    run(scenario())


def test_a_reader_that_does_not_read_makes_the_upstream_wait(way: Way) -> None:
    async def scenario() -> None:
        sent = 0

        async def script(peer: Peer) -> None:
            nonlocal sent
            await peer.request()
            await peer.say(OK + b"\r\n")
            while sent < 64:
                await peer.say(b"x" * (1 << 20))
                sent += 1

        async with way(script) as (there, _):
            exchange = await there.send(ask())
            held = -1
            while held != sent:
                held = sent
                await asyncio.sleep(0.05)
            assert sent < 40
            assert len(await _read(exchange)) == 64 << 20

    run(scenario())


def test_full_connections_refuse_a_call_after_its_connect_deadline(way: Way) -> None:
    async def scenario() -> None:
        timeout = Deadlines(connect=1.0)
        async with way(stall(CHUNKED), timeout, connections=1) as (there, _):
            exchange = await there.send(ask())
            error = await fails(there.send(ask()))
            assert (error.code, error.status, error.sent) == ("upstream_overloaded", 503, False)
            assert error.retry_after
            exchange.close()

    run(scenario())


def test_a_call_waits_its_turn_when_all_connections_are_taken(way: Way) -> None:
    async def scenario() -> None:
        async with way(answering, connections=2) as (there, seen):
            answers = await asyncio.gather(*(whole(there) for _ in range(20)))
            assert [body for _, body in answers] == [b"hello"] * 20
            assert len(seen.peers) <= 2

    run(scenario())
