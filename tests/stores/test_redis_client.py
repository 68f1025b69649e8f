"""The shared store's client against real servers: deadlines, reconnecting, messages."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trustme

from gateway.settings.shared import store_url
from gateway.stores.redis import Channel, Lost, Script, Store
from tests.servers import redis as servers

pytestmark = pytest.mark.skipif(servers.found() is None, reason="redis-server is not installed")

ECHO = Script("return {KEYS[1], ARGV[1], 7}")


@pytest.fixture(autouse=True)
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the machine stands still for some seconds, a server that is there does not count as lost."""
    for name in ("client", "channel"):
        monkeypatch.setattr(f"gateway.stores.redis.{name}.CONNECT", 30.0)


@pytest.fixture
def server() -> Iterator[servers.Redis]:
    with servers.serving() as running:
        yield running


async def until(done: Callable[[], object], seconds: float = 60.0) -> None:
    async with asyncio.timeout(seconds):
        while not done():
            await asyncio.sleep(0.01)


def test_a_script_is_sent_once_and_again_after_the_server_forgot_it(server: servers.Redis) -> None:
    async def scenario() -> None:
        store = Store(store_url(server.url), 30.0)
        for _ in range(2):
            assert await store.run(ECHO, ["k"], ["a"]) == [b"k", b"a", 7]
            server.ask("SCRIPT", "FLUSH")
        await store.close()

    asyncio.run(scenario())


def test_a_server_that_stands_still_is_lost_within_the_deadline_and_comes_back(server: servers.Redis) -> None:
    async def scenario() -> None:
        store = Store(store_url(server.url), 0.2)
        await store.connect()
        server.signal(signal.SIGSTOP)
        with pytest.raises(Lost, match="no answer in time"):
            await store.run(ECHO, ["k"], ["late"])
        server.signal(signal.SIGCONT)
        store.deadline = 30.0
        assert await store.run(ECHO, ["k"], ["again"]) == [b"k", b"again", 7]
        await store.close()

    asyncio.run(scenario())


def test_a_dead_server_is_lost_and_a_new_one_is_found_at_its_place(server: servers.Redis) -> None:
    async def scenario() -> None:
        store = Store(store_url(server.url), 30.0)
        await store.connect()
        server.kill()
        with pytest.raises(Lost):
            await store.run(ECHO, ["k"], ["a"])
        server.start()
        assert await store.run(ECHO, ["k"], ["b"]) == [b"k", b"b", 7]
        await store.close()

    asyncio.run(scenario())


def test_messages_arrive_also_after_the_server_was_away(server: servers.Redis) -> None:
    async def scenario() -> None:
        store, heard, joined = Store(store_url(server.url), 30.0), [], []
        channel = Channel(
            store, ["a", "b"], lambda name, data: heard.append((name, data)), lambda: joined.append(1)
        )
        channel.open()
        await until(lambda: joined)
        await store.publish("a", "one")
        await store.publish("b", b"two")
        await until(lambda: len(heard) == 2)
        assert heard == [("a", b"one"), ("b", b"two")]
        server.kill()
        server.start()
        await until(lambda: len(joined) == 2)
        await store.publish("a", "three")
        await until(lambda: len(heard) == 3)
        await channel.close()
        await store.close()

    asyncio.run(scenario())


def test_a_cluster_of_which_nobody_answers_is_lost_and_listened_to_again_when_it_is_back() -> None:
    async def scenario() -> None:
        with servers.cluster() as nodes:
            joined = 0

            def join() -> None:
                nonlocal joined
                joined += 1

            store = Store(
                store_url("redis+cluster://" + ",".join(f"127.0.0.1:{n.port}" for n in nodes)), 30.0
            )
            channel = Channel(store, ["news"], lambda channel, data: None, join)
            channel.open()
            await until(lambda: joined)
            for node in nodes:
                node.kill()
            for asking in (
                store.connect,
                lambda: store.run(ECHO, ["k"], ["a"]),
                lambda: store.publish("n", ""),
            ):
                with pytest.raises(Lost):
                    await asking()
            fresh = Store(store.url)
            with pytest.raises(Lost, match="Connection refused"):
                await fresh.connect()
            await fresh.close()
            for node in nodes:
                node.start()
            await until(lambda: joined > 1)
            await channel.close()
            await store.close()

    asyncio.run(scenario())


def test_certificates_that_were_changed_are_read_when_the_old_ones_no_longer_do(tmp_path: Path) -> None:
    authority, other = trustme.CA(), trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    issued.private_key_pem.write_to_path(tmp_path / "server.key")
    issued.cert_chain_pems[0].write_to_path(tmp_path / "server.pem")
    authority.cert_pem.write_to_path(tmp_path / "clients.pem")
    other.cert_pem.write_to_path(tmp_path / "ca.pem")
    options = ["--tls-port", "{port}", "--tls-ca-cert-file", str(tmp_path / "clients.pem")]
    options += ["--tls-key-file", str(tmp_path / "server.key")]
    options += ["--tls-cert-file", str(tmp_path / "server.pem")]

    def client(by: trustme.CA) -> None:
        made = by.issue_cert("gateway.example")
        made.private_key_and_cert_chain_pem.write_to_path(tmp_path / "client.pem")

    async def scenario(port: int) -> None:
        files = f"ca={tmp_path}/ca.pem&cert={tmp_path}/client.pem&key={tmp_path}/client.pem"
        store = Store(store_url(f"rediss://127.0.0.1:{port}/0?{files}"), 30.0)
        with pytest.raises(Lost, match="certificate"):
            await store.connect()
        authority.cert_pem.write_to_path(tmp_path / "ca.pem")
        with pytest.raises(Lost):
            await store.run(ECHO, ["k"], ["a"])  # now it is the server that does not trust us
        client(authority)
        assert await store.run(ECHO, ["k"], ["a"]) == [b"k", b"a", 7]
        await store.close()

    client(other)
    with servers.serving(*options) as running:
        asyncio.run(scenario(running.port))


def test_what_is_told_of_a_failure_holds_no_password(server: servers.Redis) -> None:
    async def scenario() -> None:
        url = store_url(f"redis://somebody:canary@127.0.0.1:{server.port}/0")
        store = Store(url, 30.0)
        with pytest.raises(Lost) as lost:
            await store.connect()
        assert "canary" not in f"{lost.value!r} {lost.value} {store!r} {url!r}"
        assert lost.value.__cause__ is None
        await store.close()

    asyncio.run(scenario())
