"""A backend with `http2 = true`, against a server that speaks HTTP/2."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from gateway.net.egress import transport
from gateway.net.port import Transport
from gateway.settings.schema import BackendSettings, Deadlines
from tests.net.certificate import authority
from tests.net.h2server import Seen, h2_server
from tests.net.world import PATIENT, Basket, ask, fails, run, whole


@asynccontextmanager
async def opened(folder: Path, timeout: Deadlines = PATIENT) -> AsyncIterator[tuple[Transport, Seen]]:
    trusted = authority(folder)
    async with h2_server(trusted.server("localhost", alpn="h2")) as seen:
        url = f"https://localhost:{seen.port}"
        there = transport(BackendSettings("up", "openai", url, timeout=timeout, ca=trusted.pem, http2=True))
        try:
            yield there, seen
        finally:
            await there.close()


def test_a_call_over_http2(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with opened(tmp_path) as (there, seen):
            exchange, body = await whole(there, ask(target=b"/whole"))
            assert (exchange.status, body) == (200, b"hello")
            assert exchange.headers == [(b"x-one", b"1"), (b"content-type", b"a/b")]
            assert seen.body == ask().body
            assert dict(seen.heads[0])[b":authority"] == b"up.test"
            assert dict(seen.heads[0])[b"x-passed"] == b"2"

    run(scenario())


def test_calls_share_a_connection(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with opened(tmp_path) as (there, seen):
            await whole(there, ask(target=b"/whole"))
            answers = await asyncio.gather(*(whole(there, ask(target=b"/whole")) for _ in range(20)))
            assert [body for _, body in answers] == [b"hello"] * 20
            assert seen.connections == 1

    run(scenario())


def test_closing_resets_the_stream_and_spares_the_others(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with opened(tmp_path) as (there, seen):
            exchange = await there.send(ask(target=b"/stall"))
            assert await exchange.read() == b"hel"
            exchange.close()
            await seen.reset.wait()
            assert (await whole(there, ask(target=b"/whole")))[1] == b"hello"
            assert seen.connections == 1

    run(scenario())


def test_a_call_that_is_cancelled_at_any_step_spares_the_others(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with opened(tmp_path) as (there, seen):
            await whole(there, ask(target=b"/whole"))
            other = await there.send(ask(target=b"/stall"))
            assert await other.read() == b"hel"
            for steps in range(30):
                calling = asyncio.ensure_future(there.send(ask(target=b"/silence", body=bytes(1 << 10))))
                for _ in range(steps):
                    await asyncio.sleep(0)
                calling.cancel()
                await asyncio.wait([calling])
                assert (await whole(there, ask(target=b"/whole")))[1] == b"hello"
            other.close()
            assert seen.connections == 1

    run(scenario())


def test_what_is_left_unread_takes_nothing_from_the_window_of_the_connection(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with opened(tmp_path) as (there, seen):
            for _ in range(20):
                exchange = await there.send(ask(target=b"/large"))
                assert (await whole(there, ask(target=b"/whole")))[1] == b"hello"  # after it on the wire
                exchange.close()
            assert seen.connections == 1

    run(scenario())


@pytest.mark.parametrize("path", [b"/silence", b"/stall"])
def test_cancelling_resets_the_stream(tmp_path: Path, path: bytes) -> None:
    async def scenario() -> None:
        async with opened(tmp_path) as (there, seen):
            calling = asyncio.ensure_future(whole(there, ask(target=path)))
            await seen.asked.wait()
            calling.cancel()
            await asyncio.wait([calling])
            assert calling.cancelled()
            await seen.reset.wait()

    run(scenario())


def test_a_stream_that_stalls_is_given_up(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with opened(tmp_path, Deadlines(idle=1.0)) as (there, seen):
            exchange, basket = await there.send(ask(target=b"/stall")), Basket()
            assert (await fails(exchange.pipe(basket))).code == "upstream_idle_timeout"
            assert basket.data == b"hel"
            await seen.reset.wait()

    run(scenario())


def test_a_stream_that_the_server_resets_is_closed(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with opened(tmp_path) as (there, _):
            assert (await fails(there.send(ask(target=b"/reset")))).code == "upstream_closed"

    run(scenario())
