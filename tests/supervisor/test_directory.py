"""The directory: who may call and what is raised, as soon as anybody changed it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gateway.core.group import Tenant
from gateway.core.keys import Keys
from gateway.core.principal import KeyEntry, document_of
from gateway.core.records import KEY, RAISE, TENANT, Actor, Change, Conflict, Deed, Entity
from gateway.link import protocol
from gateway.settings.schema import Settings
from gateway.stores.sqlite import SqliteLedger
from gateway.supervisor.directory import Directory, News


class House:
    """A directory on a ledger, and a worker that hears of it. `news` are what it was told."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.ledger = self.opened()
        self.news: list[News] = []
        self.worker = Keys()
        self.directory = Directory(self.ledger, self.do, Settings(), self.tell)

    def opened(self) -> SqliteLedger:
        ledger = SqliteLedger(self.path / "ledger.sqlite")
        ledger.open()
        return ledger

    async def do(self, work: Callable[[], Any]) -> Any:
        return work()

    def tell(self, directory: Directory, news: News) -> None:
        self.news.append(news)
        message = directory.message_of(news)
        if message is None:
            return
        tenants = protocol.tenants_of(message)
        if message["t"] == "keys":
            self.worker.replace(protocol.entries_of(message), tenants or ())
        else:
            self.worker.change(protocol.entries_of(message), message["gone"], tenants)

    async def put(self, kind: str, id: str, document: dict[str, Any] | None) -> Entity:
        return await self.directory.change(Change(kind, id, document, Deed(Actor("token"), "x", "y")))


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    house = House(tmp_path)
    yield house
    house.ledger.close()


def key(name: str, **more: Any) -> KeyEntry:
    return KeyEntry(f"key_{name}", name, name.encode().ljust(32, b"."), origin="ledger", **more)


def known(house: House) -> dict[str, bool]:
    """What a worker that heard all news, and one that starts now, know of keys: by name, whether revoked."""
    fresh, message = Keys(), house.directory.message()
    fresh.replace(protocol.entries_of(message), protocol.tenants_of(message) or ())
    found = []
    for keys in (house.worker, fresh):
        principals = [keys.find(name.encode().ljust(32, b".")) for name in ("a", "b", "c")]
        found.append({each.key.name: each.key.revoked for each in principals if each is not None})
    assert found[0] == found[1]
    return found[0]


def test_all_is_told_first_and_then_only_what_is_new(house: House) -> None:
    async def test() -> None:
        house.ledger.add_key(key("a"))
        house.ledger.add_key(key("b"))
        await house.directory.poll()
        await house.directory.poll()
        assert [(news.whole, len(news.keys)) for news in house.news] == [(True, 2)]
        await house.put(KEY, "key_c", document_of(key("c")))
        assert known(house) == {"a": False, "b": False, "c": False}
        await house.put(KEY, "key_b", document_of(replace(key("b"), revoked=True)))
        await house.put(KEY, "key_a", None)
        assert known(house) == {"b": True, "c": False}
        assert [(news.whole, len(news.keys), news.gone) for news in house.news[1:]] == [
            (False, 1, []), (False, 1, []), (False, 0, ["key_a"]),
        ]  # fmt: skip

    asyncio.run(test())


def test_what_another_process_changes_is_seen_at_the_next_look(house: House) -> None:
    async def test() -> None:
        await house.directory.poll()
        other = house.opened()
        other.add_key(key("a"))
        await house.directory.poll()
        assert known(house) == {"a": False}
        other.revoke_key("a")
        other.close()
        await house.directory.poll()
        assert known(house) == {"a": True}

    asyncio.run(test())


def test_a_nudge_looks_at_once_and_again_when_it_came_meanwhile(house: House) -> None:
    async def test() -> None:
        await house.directory.poll()
        house.ledger.add_key(key("a"))
        house.directory.nudge()
        house.directory.nudge()
        for _ in range(100):
            await asyncio.sleep(0)
        assert known(house) == {"a": False}

    asyncio.run(test())


def test_a_conflict_changes_and_tells_nothing(house: House) -> None:
    async def test() -> None:
        await house.directory.poll()
        await house.put(TENANT, "acme", {"name": "acme"})
        told = len(house.news)
        with pytest.raises(Conflict):
            await house.directory.change(
                Change(TENANT, "acme", {"name": "acme"}, Deed(Actor("token"), "x", "y"), expect=0)
            )
        assert len(house.news) == told

    asyncio.run(test())


def test_tenants_and_raises_are_told_and_those_of_the_file_come_first(house: House) -> None:
    async def test() -> None:
        await house.directory.poll()
        await house.put(TENANT, "acme", {"name": "acme", "description": "made"})
        await house.put(TENANT, "other", {"name": "other"})
        assert house.news[-1].tenants and not house.news[-1].raises
        await house.directory.replace_settings(
            replace(Settings(), tenants={"acme": Tenant("acme", "filed")}, keys=(key("b"),))
        )
        assert {each.name: each.description for each in house.directory.tenants()} == {
            "other": "",
            "acme": "filed",
        }
        assert house.news[-1].whole and known(house) == {"b": False}
        await house.put(RAISE, "r1", {"id": "r1", "rule": "few", "amount": 5, "until": 9e9, "value": "*"})
        await house.put(RAISE, "r2", {"id": "r2", "rule": "few", "amount": 5, "until": 5.0, "value": "*"})
        assert house.news[-1].raises and not house.news[-1].tenants
        assert [each.id for each in house.directory.raises()] == ["r1"]  # the other one is over
        await house.put(RAISE, "r1", None)
        assert house.directory.raises() == []

    asyncio.run(test())


@pytest.mark.parametrize("odd", [{"shape": "unknown"}, {"digest": "no hex"}, {"models": 5}])
def test_a_key_that_is_not_understood_admits_nobody_and_disturbs_no_other(
    house: House, odd: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    async def test() -> None:
        house.ledger.add_key(key("a"))
        house.ledger.add_key(key("b"))
        await house.directory.poll()
        await house.put(KEY, "key_a", {**document_of(key("a")), **odd})
        assert known(house) == {"b": False}
        assert "key key_a can't be understood" in caplog.text
        await house.put("thing", "of a later version", {})
        assert known(house) == {"b": False}

    asyncio.run(test())
