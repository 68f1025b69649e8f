"""Limits are shared through every kind of store: a cluster, behind Sentinel, with TLS and a user."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
import trustme

from gateway.core.limit import LimitRule
from tests.link.world import rule
from tests.servers import redis as servers
from tests.supervisor.replicas import admitted, burst, replicas, until

pytestmark = [
    pytest.mark.skipif(servers.found() is None, reason="redis-server is not installed"),
    pytest.mark.usefixtures("unhurried"),
]

HUNDRED = rule(amount=100, seconds=3600.0)
TENANT = LimitRule("tenant.requests", ("tenant",), "requests", 50, 3600.0)
# What a user of the store must be allowed, as docs/replicas.md says.
ALLOWED = "~penstock:* &penstock:* +@read +@write +@scripting +@pubsub +@connection +time -@dangerous"


def exact(url: str, folder: Path, count: int = 2) -> None:
    async def scenario() -> None:
        async with replicas(url, folder, [HUNDRED, TENANT], count) as made:
            assert not any(replica.lost for replica in made)
            for value in ("a", "b", "c"):
                assert admitted(await burst(made, HUNDRED, 160, value)) == 100
                assert admitted(await burst(made, TENANT, 80, value)) == 50

    asyncio.run(scenario())


def test_a_cluster(tmp_path: Path) -> None:
    with servers.cluster() as nodes:
        hosts = ",".join(f"127.0.0.1:{node.port}" for node in nodes)
        exact(f"redis+cluster://{hosts}", tmp_path)
        used = [node.ask("DBSIZE") for node in nodes]
        assert all(int(size[1:]) > 0 for size in used)  # spread over all of them


def test_a_cluster_keeps_all_of_a_tenant_in_one_slot() -> None:
    from gateway.stores.redis.leases import tag_of

    rules = [
        LimitRule("1", ("tenant",), "usd", 1, 60.0),
        LimitRule("2", ("tenant", "model"), "tokens", 1, 60.0),
        LimitRule("3", ("key", "tenant"), "requests", 1, 60.0),
    ]
    values = ["acme", "acme/meta/llama", "key_1/acme"]
    assert len({tag_of(rule, value) for rule, value in zip(rules, values, strict=True)}) == 1
    assert len({tag_of(rules[0], f"tenant {n}") for n in range(500)}) > 50


def test_a_primary_that_sentinel_knows_and_the_one_after_it(tmp_path: Path) -> None:
    async def scenario(primary: servers.Redis, watch: servers.Redis) -> None:
        url = f"redis+sentinel://127.0.0.1:{watch.port}/mymaster/0"
        async with replicas(url, tmp_path, [HUNDRED], 2) as made:
            assert admitted(await burst(made, HUNDRED, 40)) == 40
            primary.kill()
            await until(lambda: all(replica.lost for replica in made))
            await until(lambda: not any(replica.lost for replica in made))
            assert admitted(await burst(made, HUNDRED, 160)) == 60

    with servers.sentinel() as (primary, _, watch):
        asyncio.run(scenario(primary, watch))


@pytest.fixture
def certified(tmp_path: Path) -> Iterator[tuple[servers.Redis, Path]]:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    server = authority.issue_cert("127.0.0.1", "localhost")
    server.private_key_pem.write_to_path(tmp_path / "server.key")
    server.cert_chain_pems[0].write_to_path(tmp_path / "server.pem")
    options = ["--tls-port", "{port}", "--tls-auth-clients", "no"]
    options += [
        "--tls-cert-file",
        str(tmp_path / "server.pem"),
        "--tls-key-file",
        str(tmp_path / "server.key"),
    ]
    options += ["--tls-ca-cert-file", str(tmp_path / "ca.pem")]
    options += ["--user", "gateway", "on", ">pass/word", *ALLOWED.split(), "--user", "default", "off"]
    with servers.serving(*options) as running:
        yield running, tmp_path / "ca.pem"


def test_tls_and_a_user_that_may_do_no_more_than_it_must(
    certified: tuple[servers.Redis, Path], tmp_path: Path
) -> None:
    server, ca = certified
    password = quote("pass/word", safe="")
    exact(f"rediss://gateway:{password}@127.0.0.1:{server.port}/0?ca={quote(str(ca))}", tmp_path / "r")


def test_a_certificate_that_nobody_vouches_for_is_not_trusted(
    certified: tuple[servers.Redis, Path], tmp_path: Path
) -> None:
    server, _ = certified

    async def scenario() -> None:
        url = f"rediss://gateway:pass%2Fword@127.0.0.1:{server.port}/0"
        async with replicas(url, tmp_path, [HUNDRED], 1, joined=False) as (only,):
            await until(lambda: only.watch.stood)
            assert only.lost and not any(only.watch.stood)

    asyncio.run(scenario())


def test_a_unix_socket(tmp_path: Path) -> None:
    socket = tmp_path / "redis.sock"
    with servers.serving("--unixsocket", str(socket)):
        exact(f"unix://{socket}?db=2&prefix=mine", tmp_path / "r")
