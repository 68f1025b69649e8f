"""Booking: every call exactly once, whoever dies when."""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
import threading
import time
from contextlib import closing

import pytest

from gateway.core.errors import LedgerError
from gateway.link import lock
from gateway.link.journal import JournalWriter
from gateway.settings.schema import Settings
from gateway.stores.sqlite import SqliteLedger
from gateway.supervisor import vigil
from gateway.supervisor.books import FINISHED, Books
from gateway.supervisor.counting import Counting


class House:
    """A data directory with journals, and what the books told about it."""

    def __init__(self, path):
        self.path = path
        self.journals = path / "journal"
        self.told: list[str] = []
        self.trouble: list[float] = []
        self.locks: dict[str, int] = {}

    def books(self, ledger=None):
        return Books(
            ledger or SqliteLedger(self.path / "ledger.sqlite"),
            self.journals,
            Counting(Settings()),
            lambda batch: self.told.extend(r["id"] for sheet in batch.sheets for r in sheet.records()),
            self.trouble.append,
        )

    def journal(self, source):
        (self.journals / source).mkdir(parents=True)
        held = lock.hold(self.journals / source / "lock")
        assert held is not None
        self.locks[source] = held
        return JournalWriter(self.journals / source)

    def die(self, source):
        os.close(self.locks.pop(source))

    def rows(self):
        with closing(sqlite3.connect(self.path / "ledger.sqlite")) as db:
            return sorted(db.execute("SELECT id, outcome FROM calls"))


@pytest.fixture
def house(tmp_path):
    house = House(tmp_path)
    yield house
    for source in list(house.locks):
        house.die(source)


def call(number, **more):
    base = {"id": f"c{number}", "ts": 1_700_000_000_000 + number, "model": "m", "usage_source": "provider"}
    return json.dumps({**base, "outcome": "ok", **more}).encode()


def opened(number):
    return json.dumps({"id": f"c{number}", "ts": 1_700_000_000_000, "model": "m", "hold_tokens": 9}).encode()


async def nothing():
    pass


def test_settled_calls_of_all_workers_are_booked_and_told(house):
    async def scenario():
        books = house.books()
        writers = [house.journal("b-0"), house.journal("b-1")]
        await books.do(books.open)
        books.follow("b-0")
        books.follow("b-1")
        for n in range(10):
            writer = writers[n % 2]
            writer.end(writer.begin(opened(n)), call(n))
        assert await books.catch_up()
        await books.close()

    asyncio.run(scenario())
    assert house.rows() == sorted((f"c{n}", "ok") for n in range(10))
    assert sorted(house.told) == [f"c{n}" for n in range(10)]


def test_a_dead_workers_open_calls_are_abandoned_and_its_directory_goes(house):
    async def scenario():
        books, writer, finished = house.books(), house.journal("b-0"), asyncio.Event()
        await books.do(books.open)
        books.follow("b-0")
        writer.end(writer.begin(opened(1)), call(1))
        writer.begin(opened(2))

        async def done():
            finished.set()

        books.ended("b-0", done)
        assert await books.catch_up()
        assert finished.is_set()
        await books.close()

    asyncio.run(scenario())
    assert house.rows() == [("c1", "ok"), ("c2", "abandoned")]
    assert not list(house.journals.iterdir())
    with closing(sqlite3.connect(house.path / "ledger.sqlite")) as db:
        assert db.execute("SELECT count(*) FROM offsets").fetchone() == (0,)


def test_the_next_supervisor_goes_on_where_the_last_one_was_killed(house):
    async def first():
        books, writer = house.books(), house.journal("old-0")
        await books.do(books.open)
        books.follow("old-0")
        writer.end(writer.begin(opened(1)), call(1))
        await books.catch_up()
        writer.end(writer.begin(opened(2)), call(2))
        writer.begin(opened(3))
        await books.do(books._ledger.close)  # killed: nothing more is done

    async def second():
        books = house.books()
        await books.do(books.open)
        books.inherit("new")
        books._release_orphans()
        await books.catch_up()
        await books.close()

    asyncio.run(first())
    house.die("old-0")
    asyncio.run(second())
    assert house.rows() == [("c1", "ok"), ("c2", "ok"), ("c3", "abandoned")]
    assert not list(house.journals.iterdir())


def test_a_journal_whose_worker_outlives_the_supervisor_is_followed_until_it_ends(house):
    writer = house.journal("old-0")
    slot = writer.begin(opened(1))

    async def scenario():
        books = house.books()
        await books.do(books.open)
        books.inherit("new")
        books._release_orphans()
        await books.catch_up()
        assert house.rows() == []  # its call is under way, not abandoned
        writer.end(slot, call(1))
        writer.begin(opened(2))
        house.die("old-0")
        books._release_orphans()
        await books.catch_up()
        await books.close()

    asyncio.run(scenario())
    assert house.rows() == [("c1", "ok"), ("c2", "abandoned")]


def test_a_supervisor_killed_after_the_last_transaction_of_a_journal_books_nothing_twice(house):
    writer = house.journal("old-0")
    writer.begin(opened(1))
    house.die("old-0")
    ledger = SqliteLedger(house.path / "ledger.sqlite")
    ledger.open()
    ledger.commit([{"id": "c1", "outcome": "abandoned"}], {"old-0": FINISHED})  # killed before it was removed
    ledger.close()

    async def scenario():
        books = house.books()
        await books.do(books.open)
        books.inherit("new")
        books._release_orphans()
        await books.catch_up()
        await books.close()

    asyncio.run(scenario())
    assert house.rows() == [("c1", "abandoned")]
    assert not list(house.journals.iterdir())


class Stubborn(SqliteLedger):
    """Refuses the first commits, as on a full disk."""

    refusals = 2

    def book(self, sheets, offsets):
        if self.refusals:
            self.refusals -= 1
            raise LedgerError("database or disk is full")
        super().book(sheets, offsets)


def test_a_ledger_that_cannot_be_written_is_tried_again_and_loses_nothing(house, caplog):
    async def scenario():
        books, writer = house.books(Stubborn(house.path / "ledger.sqlite")), house.journal("b-0")
        await books.do(books.open)
        books.follow("b-0")
        for n in range(5):
            writer.end(writer.begin(opened(n)), call(n))
        assert not await books.catch_up()
        assert not await books.catch_up()
        assert house.told == [] and all(seconds > 0 for seconds in house.trouble)
        assert await books.catch_up()
        assert house.trouble[-1] == 0.0
        await books.close()

    asyncio.run(scenario())
    assert house.rows() == [(f"c{n}", "ok") for n in range(5)]
    assert "disk is full" in caplog.text


def test_more_than_one_batch_is_booked_in_order_and_segments_are_let_go(house):
    async def scenario():
        books, writer = house.books(), house.journal("b-0")
        await books.do(books.open)
        books.follow("b-0")
        for n in range(5000):
            writer.end(writer.begin(opened(n)), call(n, path="/" + "x" * 1000))
        assert len(list((house.journals / "b-0").glob("*.log"))) == 2
        assert await books.catch_up()
        assert len(list((house.journals / "b-0").glob("*.log"))) == 1
        await books.close()

    asyncio.run(scenario())
    assert house.told == [f"c{n}" for n in range(5000)]
    assert len(house.rows()) == 5000


def test_the_running_task_books_what_comes_and_the_rest_at_the_end(house):
    async def scenario():
        books, writer = house.books(), house.journal("b-0")
        await books.do(books.open)
        books.follow("b-0")
        books.start()
        writer.end(writer.begin(opened(1)), call(1))
        async with asyncio.timeout(30):
            while not house.told:
                await asyncio.sleep(0.01)
        writer.end(writer.begin(opened(2)), call(2))
        books.ended("b-0", nothing)
        await books.close()

    asyncio.run(scenario())
    assert house.told == ["c1", "c2"]


class Mute(SqliteLedger):
    """Does what it is told, and its answer is lost: as when a connection breaks at the end of a commit."""

    lost = 0

    def book(self, sheets, offsets):
        super().book(sheets, offsets)
        if self.lost:
            self.lost -= 1
            raise LedgerError("server closed the connection unexpectedly")


def test_a_commit_whose_answer_was_lost_is_neither_repeated_nor_untold(house):
    async def scenario():
        ledger = Mute(house.path / "ledger.sqlite")
        books, writer = house.books(ledger), house.journal("b-0")
        await books.do(books.open)
        books.follow("b-0")
        writer.end(writer.begin(opened(1)), call(1))
        ledger.lost = 1
        assert not await books.catch_up()
        writer.end(writer.begin(opened(2)), call(2))
        assert await books.catch_up()
        assert await books.catch_up()
        slot = writer.begin(opened(3))
        assert slot >= 0
        ledger.lost = 1
        house.die("b-0")
        books.ended("b-0", nothing)
        assert not await books.catch_up()
        assert await books.catch_up()
        await books.close()
        writer.close()

    asyncio.run(scenario())
    assert house.rows() == [("c1", "ok"), ("c2", "ok"), ("c3", "abandoned")]
    assert sorted(house.told) == ["c1", "c2", "c3"]
    assert not (house.journals / "b-0").exists()


def test_tidying_sums_up_and_lets_go_of_what_is_too_old(house):
    async def scenario():
        books, writer = house.books(), house.journal("b-0")
        await books.do(books.open)
        books.follow("b-0")
        for number in range(3):
            writer.end(writer.begin(opened(number)), call(number))
        writer.end(writer.begin(opened(9)), call(9, ts=int(time.time() * 1000)))
        await books.catch_up()
        await books.tidy()
        await books.close()
        writer.close()

    asyncio.run(scenario())
    assert house.rows() == [("c9", "ok")]
    with closing(sqlite3.connect(house.path / "ledger.sqlite")) as db:
        assert db.execute("SELECT sum(calls) FROM hours").fetchone() == (1,)


def test_a_ledger_that_does_not_answer_is_told_of_until_it_does(house, monkeypatch):
    monkeypatch.setattr(vigil, "_SOON", 0.001)
    monkeypatch.setattr(vigil, "_AGAIN", 0.001)

    class Slow(SqliteLedger):
        given_up = 0
        go_on = threading.Event()

        def book(self, sheets, offsets):
            assert self.go_on.wait(20)
            super().book(sheets, offsets)

        def give_up(self):
            self.given_up += 1
            if self.given_up == 3:
                self.go_on.set()

    async def scenario():
        slow = Slow(house.path / "ledger.sqlite")
        books = house.books(slow)
        writer = house.journal("b-0")
        await books.do(books.open)
        books.follow("b-0")
        writer.end(writer.begin(opened(1)), call(1))
        assert await books.catch_up()
        assert slow.given_up >= 3
        assert house.trouble[-1] == 0.0 and len(house.trouble) == slow.given_up + 1
        assert house.trouble[:-1] == sorted(house.trouble[:-1]) and house.trouble[0] > 0
        monkeypatch.setattr(vigil, "_SOON", 20.0)
        writer.end(writer.begin(opened(2)), call(2))
        assert await books.catch_up()
        assert len(house.trouble) == slow.given_up + 1
        await books.close()

    asyncio.run(scenario())
    assert house.rows() == [("c1", "ok"), ("c2", "ok")]
