"""Replicas with a ledger each agree through a real Redis: in step, after loss, whoever was away."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from gateway.core.errors import LedgerError
from gateway.core.principal import KeyEntry, document_of
from gateway.core.records import KEY, RAISE, TENANT, Actor, Change, Conflict, Deed, Entity
from gateway.settings.schema import Settings
from gateway.settings.shared import store_url
from gateway.stores.redis import Channel, Store
from gateway.stores.redis.entities import CHANNEL, Entities
from gateway.stores.sqlite import SqliteLedger
from gateway.supervisor.directory import Directory, News
from gateway.supervisor.replicas import Replicas
from tests.servers import redis as servers

pytestmark = [
    pytest.mark.skipif(servers.found() is None, reason="no Redis: apt-get install redis-server"),
    pytest.mark.usefixtures("unhurried"),
]


@pytest.fixture(scope="module")
def server() -> Iterator[servers.Redis]:
    with servers.serving() as server:
        yield server


@pytest.fixture
def redis(server: servers.Redis) -> servers.Redis:
    """A server that runs and is empty."""
    if server.process is None:
        server.start()
    server.ask("FLUSHALL")
    return server


class Replica:
    """A ledger, and what a supervisor has around it. `heard` are the news for its workers."""

    def __init__(self, path: Path, url: str, listening: bool) -> None:
        self.ledger = SqliteLedger(path / "ledger.db")
        self.ledger.chain = path.name
        self.store = Store(store_url(url), 30.0)
        self.heard: list[News] = []
        replicas = self.others = Replicas(Entities(self.store), self.ledger, self.do)
        self.directory = Directory(self.ledger, self.do, Settings(), self._told, None, replicas)
        self.channel = Channel(
            self.store, [CHANNEL], lambda name, data: self.directory.nudge(), self.directory.nudge
        )
        self.listening = listening

    def _told(self, directory: Directory, news: News) -> None:
        self.heard.append(news)

    async def do(self, work: Callable[[], Any]) -> Any:
        return work()

    async def open(self) -> None:
        self.ledger.open()
        await self.directory.poll()
        if self.listening:
            self.channel.open()

    async def close(self) -> None:
        if self.listening:
            await self.channel.close()
        await self.store.close()
        self.ledger.close()

    async def put(self, id: str, kind: str = TENANT, expect: int | None = None, **document: Any) -> Entity:
        deed = Deed(Actor("token", "admin"), f"{kind}.put", f"{kind}/{id}")
        whole = {"name": id, **document} if kind == TENANT else {"id": id, **document}
        unique = () if kind == RAISE else ("name",)
        return await self.directory.change(Change(kind, id, whole, deed, expect, unique))

    async def revoke(self, id: str) -> None:
        here = self.ledger.entity(KEY, id)
        assert here is not None
        await self.put(**{**here.document, "revoked": True, "kind": KEY})

    def knows(self) -> dict[str, Any]:
        return {
            f"{each.kind}:{each.id}": (each.version, each.deleted, each.document)
            for each in self.ledger.since(0)
        }


Made = Callable[..., Awaitable[Replica]]


@asynccontextmanager
async def replicas(tmp_path: Path, url: str) -> AsyncIterator[Made]:
    async with AsyncExitStack() as stack:

        async def make(name: str, listening: bool = False) -> Replica:
            (tmp_path / name).mkdir(exist_ok=True)
            replica = Replica(tmp_path / name, url, listening)
            await replica.open()
            stack.push_async_callback(replica.close)
            return replica

        yield make


def key(id: str, **more: Any) -> dict[str, Any]:
    entry = KeyEntry(id, id, id.encode().ljust(32, b"."), origin="ledger")
    return {**document_of(entry), **more, "id": id, "kind": KEY}


async def until(what: str, done: Callable[[], bool], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline, what
        await asyncio.sleep(0.01)


def run(test: Awaitable[None]) -> None:
    async def within() -> None:
        async with asyncio.timeout(100):
            await test

    asyncio.run(within())


def test_what_one_changes_the_others_know_and_tell_their_workers(
    tmp_path: Path, redis: servers.Redis
) -> None:
    async def test() -> None:
        async with replicas(tmp_path, redis.url) as make:
            one, two = await make("one"), await make("two")
            await one.put("acme", tags=["x"])
            await one.put(**key("key_1"))
            await two.directory.poll()
            assert two.knows() == one.knows() and len(two.knows()) == 2
            known = two.directory.keys()
            assert [entry.id for entry in known] == ["key_1"]
            assert [tenant.name for tenant in two.directory.tenants()] == ["acme"]
            assert (two.heard[-1].whole, [entry.id for entry in two.heard[-1].keys]) == (False, ["key_1"])
            await two.revoke("key_1")
            await one.directory.poll()
            assert one.heard[-1].keys[0].revoked
            await one.put("r1", RAISE, rule="limit", amount=5, until=9e9, value="*")
            await two.directory.poll()
            assert [each.rule for each in two.directory.raises()] == ["limit"] and two.heard[-1].raises

    run(test())


def test_who_listens_hears_of_it_without_polling(tmp_path: Path, redis: servers.Redis) -> None:
    async def test() -> None:
        async with replicas(tmp_path, redis.url) as make:
            one, two = await make("one", True), await make("two", True)
            await until("both listen", lambda: b"2" in subscribers(redis).encode())
            await one.put("acme")
            await until("two has heard", lambda: "tenant:acme" in two.knows())
            for id in subscriptions(redis):
                redis.ask("CLIENT", "KILL", "ID", id)
            await two.put("umbrella")
            await until("one has listened again, and looked", lambda: "tenant:umbrella" in one.knows())

    run(test())


def subscribers(redis: servers.Redis) -> str:
    return redis.ask("PUBSUB", "NUMSUB", f"penstock:{CHANNEL}").splitlines()[-1]


def subscriptions(redis: servers.Redis) -> list[str]:
    lines = [line for line in redis.ask("CLIENT", "LIST", "TYPE", "pubsub").splitlines() if "id=" in line]
    return [line.split()[0].removeprefix("id=") for line in lines]


def test_a_version_counts_across_replicas(tmp_path: Path, redis: servers.Redis) -> None:
    async def test() -> None:
        async with replicas(tmp_path, redis.url) as make:
            one, two = await make("one"), await make("two")
            await one.put("acme", expect=0)
            with pytest.raises(Conflict, match="is at version 1, not at version 0"):
                await two.put("acme", expect=0)  # though it had not looked
            assert (await two.put("acme", expect=1, tags=["x"])).version == 2
            with pytest.raises(Conflict, match="exists already"):
                await one.put("other", name="acme")

    run(test())


def test_of_those_who_change_the_same_version_at_once_one_wins(tmp_path: Path, redis: servers.Redis) -> None:
    async def test() -> None:
        async with replicas(tmp_path, redis.url) as make:
            all_of = [await make(str(n)) for n in range(4)]
            for turn in range(5):
                tried = [each.put("acme", expect=turn, by=n) for n, each in enumerate(all_of)]
                outcomes = await asyncio.gather(*tried, return_exceptions=True)
                assert sorted(type(outcome).__name__ for outcome in outcomes) == ["Conflict"] * 3 + ["Entity"]
            made = [each.put(f"t{n}-{m}") for m in range(5) for n, each in enumerate(all_of)]
            await asyncio.gather(*made)
            for each in all_of:
                await each.directory.poll()
                assert each.knows() == all_of[0].knows() and len(each.knows()) == 21

    run(test())


def test_without_the_store_each_changes_its_own_and_later_they_agree(
    tmp_path: Path, redis: servers.Redis
) -> None:
    async def test() -> None:
        async with replicas(tmp_path, redis.url) as make:
            one, two = await make("one"), await make("two")
            await one.put(**key("key_1"))
            await two.directory.poll()
            redis.kill()
            await one.revoke("key_1")
            await two.put(**key("key_1", tags=["edited"]))
            await two.put(**key("key_1", tags=["edited", "twice"]))
            await one.put("acme", by="one")
            await two.put("acme", by="two")
            assert one.others.lost and two.others.lost
            redis.start()
            for each in (one, two, one, two):
                await each.directory.poll()
            assert one.knows() == two.knows()
            version, _, document = one.knows()["key:key_1"]
            assert (version, document["revoked"], document["tags"]) == (3, True, ["edited", "twice"])
            merges = [r.action for each in (one, two) for r in each.ledger.audit() if "merge" in r.action]
            assert "tenant.merge" in merges and "key.merge" in merges
            assert not one.others.lost

    run(test())


def test_a_store_that_comes_back_empty_is_filled_again(tmp_path: Path, redis: servers.Redis) -> None:
    async def test() -> None:
        async with replicas(tmp_path, redis.url) as make:
            one, two = await make("one"), await make("two")
            for n in range(250):
                await one.put(f"t{n}")
            await two.directory.poll()
            redis.ask("FLUSHALL")
            await two.put("late")
            await one.directory.poll()
            three = await make("three")
            assert three.knows() == one.knows() and len(three.knows()) == 251

    run(test())


def test_a_store_that_comes_back_with_an_older_state_loses_nothing(
    tmp_path: Path, redis: servers.Redis
) -> None:
    async def test() -> None:
        async with replicas(tmp_path, redis.url) as make:
            one, two = await make("one"), await make("two")
            await one.put("old")
            await two.directory.poll()
            names = [f"penstock:{{entities}}:{name}" for name in ("era", "n", "texts", "order")]
            before = {name: redis.ask("COPY", name, f"kept:{name}") for name in names}
            assert all(":1" in answer for answer in before.values())
            await one.put("new")
            await one.put(**key("key_1"))
            for name in names:
                redis.ask("COPY", f"kept:{name}", name, "REPLACE")
            # One that has seen less writes first, and takes the counter beyond where the other had read.
            for n in range(5):
                await two.put(f"grown{n}")
            for _ in range(2):
                await one.directory.poll()
                await two.directory.poll()
            assert one.knows() == two.knows() and len(one.knows()) == 8

    run(test())


def test_what_was_written_before_a_kill_is_told_at_the_next_start(
    tmp_path: Path, redis: servers.Redis
) -> None:
    async def test() -> None:
        async with replicas(tmp_path, redis.url) as make:
            one, two = await make("one"), await make("two")
            await one.put(**key("key_1"))
            await two.directory.poll()
            # As a process that is killed between its ledger's commit and the announcement.
            assert one.ledger.revoke_key("key_1")
            await make("one")  # the same directory, another process
            await two.directory.poll()
            assert two.directory.keys()[0].revoked

    run(test())


def test_a_replica_that_starts_knows_what_is_revoked_before_it_tells_its_workers(
    tmp_path: Path, redis: servers.Redis
) -> None:
    async def test() -> None:
        async with replicas(tmp_path, redis.url) as make:
            one = await make("one")
            await one.put(**key("key_1"))
            two = await make("two")
            await two.close()
            await one.revoke("key_1")
            again = Replica(tmp_path / "two", redis.url, False)
            await again.open()
            assert [entry.revoked for news in again.heard for entry in news.keys] == [True]
            await again.close()

    run(test())


def test_a_store_that_does_not_answer_delays_nobody_for_long(tmp_path: Path, redis: servers.Redis) -> None:
    async def test() -> None:
        async with replicas(tmp_path, redis.url) as make:
            one = await make("one")
            one.store.deadline = 0.2
            redis.signal(signal.SIGSTOP)
            try:
                await one.put("acme")
                assert one.others.lost
                await one.put("umbrella")
            finally:
                redis.signal(signal.SIGCONT)
                one.store.deadline = 30.0
            two = await make("two")
            await until_agreed(one, two, 2)

    run(test())


async def until_agreed(one: Replica, two: Replica, count: int) -> None:
    for _ in range(200):
        await one.directory.poll()
        await two.directory.poll()
        if one.knows() == two.knows() and len(one.knows()) == count:
            return
        await asyncio.sleep(0.02)
    raise AssertionError((one.knows(), two.knows()))


def test_a_turn_that_nobody_gives_back_ends_by_itself(
    tmp_path: Path, redis: servers.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test() -> None:
        async with replicas(tmp_path, redis.url) as make:
            one = await make("one")
            redis.ask("SET", "penstock:{entities}:turn", "a dead one", "PX", "300")
            await one.put("acme")
            monkeypatch.setattr("gateway.supervisor.replicas._PATIENCE", 0.5)
            redis.ask("SET", "penstock:{entities}:turn", "one that hangs")
            with pytest.raises(Conflict, match="another replica is making a change"):
                await one.put("umbrella")

    run(test())


def test_what_was_deleted_very_long_ago_leaves_the_store(tmp_path: Path, redis: servers.Redis) -> None:
    async def test() -> None:
        async with replicas(tmp_path, redis.url) as make:
            one = await make("one")
            old = '{"version": 2, "changed_ms": 5, "deleted": true, "document": {"name": "x"}}'
            for n in range(150):
                redis.ask("HSET", "penstock:{entities}:texts", f"tenant:old{n}", old)
                redis.ask("ZADD", "penstock:{entities}:order", str(n + 1), f"tenant:old{n}")
            redis.ask("SET", "penstock:{entities}:n", "150")
            one.ledger.adopt([Entity(TENANT, "old7", 2, {"name": "x"}, 5, True)])
            await one.put("acme")
            assert redis.ask("HLEN", "penstock:{entities}:texts").strip() == ":1"
            two = await make("two")
            assert list(two.knows()) == ["tenant:acme"]
            await one.directory.poll()
            await two.put("umbrella")
            await one.directory.poll()
            assert "tenant:umbrella" in one.knows()

    run(test())


def test_nonsense_in_the_store_is_left_out(tmp_path: Path, redis: servers.Redis) -> None:
    async def test() -> None:
        async with replicas(tmp_path, redis.url) as make:
            one = await make("one")
            await one.put("acme")
            for n, text in enumerate(("no json", "[]", "{}", '{"version": "x"}')):
                redis.ask("HSET", "penstock:{entities}:texts", f"tenant:bad{n}", text)
                redis.ask("ZADD", "penstock:{entities}:order", str(50 + n), f"tenant:bad{n}")
            redis.ask("SET", "penstock:{entities}:n", "60")
            await one.put("umbrella")
            two = await make("two")
            assert sorted(two.knows()) == ["tenant:acme", "tenant:umbrella"]

    run(test())


def test_what_the_ledger_could_not_take_is_read_again(
    tmp_path: Path, redis: servers.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(theirs: object) -> int:
        raise LedgerError("locked")

    async def test() -> None:
        async with replicas(tmp_path, redis.url) as make:
            one, two = await make("one"), await make("two")
            await one.put("acme")
            with monkeypatch.context() as patch:
                patch.setattr(two.ledger, "adopt", fail)
                with pytest.raises(LedgerError):
                    await two.directory.poll()
            await two.directory.poll()
            assert two.knows() == one.knows() and len(two.knows()) == 1

    run(test())
