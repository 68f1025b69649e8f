"""TLS on both transports: verification, SNI, extra roots, and a tunnel through a forward proxy."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

import pytest

from gateway.net.egress import transport
from gateway.settings.schema import BackendSettings, Deadlines
from gateway.settings.secret import Secret
from tests.net.certificate import authority
from tests.net.forward import forward_proxy
from tests.net.world import OK, PATIENT, Peer, answering, ask, fails, run, upstream, whole

BOTH = pytest.mark.parametrize("http2", [False, True])


def to(port: int, host: str = "localhost", **more: object) -> BackendSettings:
    return BackendSettings("up", "openai", f"https://{host}:{port}/v1", timeout=PATIENT, **more)  # type: ignore[arg-type]


@BOTH
def test_a_good_certificate_is_accepted_and_the_name_is_sent(tmp_path: Path, http2: bool) -> None:
    async def scenario() -> None:
        trusted = authority(tmp_path)
        names: list[str | None] = []
        context = trusted.server("localhost")
        context.sni_callback = lambda _socket, name, _context: names.append(name)
        async with upstream(answering, context) as seen:
            there = transport(to(seen.port, ca=trusted.pem, http2=http2))
            for _ in range(2):
                assert (await whole(there))[1] == b"hello"
            assert names == ["localhost"]
            await there.close()

    run(scenario())


@BOTH
def test_a_certificate_of_an_unknown_authority_is_refused(tmp_path: Path, http2: bool) -> None:
    async def scenario() -> None:
        async with upstream(answering, authority(tmp_path).server("localhost")) as seen:
            there = transport(to(seen.port, http2=http2))
            error = await fails(there.send(ask()))
            assert (error.code, error.status, error.sent) == ("upstream_tls_failed", 502, False)
            await there.close()

    run(scenario())


@BOTH
def test_a_certificate_for_another_name_is_refused(tmp_path: Path, http2: bool) -> None:
    async def scenario() -> None:
        trusted = authority(tmp_path)
        async with upstream(answering, trusted.server("other.test")) as seen:
            there = transport(to(seen.port, ca=trusted.pem, http2=http2))
            assert (await fails(there.send(ask()))).code == "upstream_tls_failed"
            await there.close()

    run(scenario())


@BOTH
def test_a_port_that_does_not_speak_tls(http2: bool) -> None:
    async def scenario() -> None:
        async def script(peer: Peer) -> None:
            await peer.reader.read(1)
            await peer.say(OK + b"\r\n")

        async with upstream(script) as seen:
            there = transport(to(seen.port, http2=http2))
            assert (await fails(there.send(ask()))).code == "upstream_tls_failed"
            await there.close()

    run(scenario())


@BOTH
def test_a_handshake_that_hangs_meets_the_connect_deadline(http2: bool) -> None:
    async def scenario() -> None:
        async with upstream(Peer.gone) as seen:
            settings = BackendSettings(
                "up", "openai", f"https://localhost:{seen.port}", timeout=Deadlines(connect=1.0), http2=http2
            )
            there = transport(settings)
            assert (await fails(there.send(ask()))).code == "upstream_connect_timeout"
            await seen.peers[0].ended.wait()
            await there.close()

    run(scenario())


def test_tls_below_1_2_is_refused(tmp_path: Path) -> None:
    async def scenario() -> None:
        trusted = authority(tmp_path)
        context = trusted.server("localhost")
        context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
        context.maximum_version = ssl.TLSVersion.TLSv1_1
        async with upstream(answering, context) as seen:
            there = transport(to(seen.port, ca=trusted.pem))
            assert (await fails(there.send(ask()))).code == "upstream_tls_failed"
            await there.close()

    with pytest.warns(DeprecationWarning, match="TLSv1_1 is deprecated"):
        run(scenario())


@BOTH
def test_cancelling_a_handshake_cuts_the_connection(http2: bool) -> None:
    async def scenario() -> None:
        begun = asyncio.Event()

        async def script(peer: Peer) -> None:
            await peer.reader.read(1)
            begun.set()
            await peer.gone()

        async with upstream(script) as seen:
            there = transport(to(seen.port, http2=http2))
            sending = asyncio.ensure_future(there.send(ask()))
            await begun.wait()
            sending.cancel()
            await asyncio.wait([sending])
            await seen.peers[0].ended.wait()
            await there.close()

    run(scenario())


def test_cancelling_over_tls_cuts_the_connection(tmp_path: Path) -> None:
    async def scenario() -> None:
        trusted = authority(tmp_path)
        asked = asyncio.Event()

        async def script(peer: Peer) -> None:
            await peer.request()
            asked.set()
            await peer.gone()

        async with upstream(script, trusted.server("localhost")) as seen:
            there = transport(to(seen.port, ca=trusted.pem))
            sending = asyncio.ensure_future(there.send(ask()))
            await asked.wait()
            sending.cancel()
            await asyncio.wait([sending])
            await seen.peers[0].ended.wait()
            await there.close()

    run(scenario())


def test_a_tunnel_through_a_forward_proxy(tmp_path: Path) -> None:
    async def scenario() -> None:
        trusted = authority(tmp_path)
        heads: list[bytes] = []
        got: list[bytes] = []

        async def script(peer: Peer) -> None:
            while request := await peer.request():
                got.append(request)
                await peer.say(OK + b"Content-Length: 0\r\n\r\n")

        async with upstream(script, trusted.server("localhost")) as seen, forward_proxy(heads) as proxy:
            there = transport(to(seen.port, ca=trusted.pem, proxy=Secret(proxy)))
            await whole(there)
            await there.close()
        assert heads[0].startswith(b"CONNECT localhost:%d HTTP/1.1" % seen.port)
        assert b"proxy-authorization: basic" in heads[0].lower()
        assert b"proxy" not in got[0].lower()

    run(scenario())


def test_a_proxy_that_refuses_is_a_failed_connect_and_no_password_is_told(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with forward_proxy() as proxy:
            there = transport(to(1, ca=authority(tmp_path).pem, proxy=Secret(proxy)))
            error = await fails(there.send(ask()))
            assert (error.code, error.sent) == ("upstream_connect_failed", False)
            cause: BaseException | None = error
            while cause is not None:
                assert "canary" not in repr(cause) + str(cause)
                cause = cause.__cause__ or cause.__context__
            await there.close()

    run(scenario())


def test_a_proxy_that_says_nothing_meets_the_connect_deadline() -> None:
    async def scenario() -> None:
        async with upstream(Peer.gone) as proxy:
            url = Secret(f"http://127.0.0.1:{proxy.port}")
            settings = BackendSettings(
                "up", "openai", "https://localhost:1", timeout=Deadlines(connect=1.0), proxy=url
            )
            there = transport(settings)
            error = await fails(there.send(ask()))
            assert (error.code, error.sent) == ("upstream_connect_timeout", False)
            await proxy.peers[0].ended.wait()
            await there.close()

    run(scenario())
