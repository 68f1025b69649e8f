"""Refusals of the admin API in the audit: the first at once, floods as counts."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.control.refusals import Refusals
from gateway.core.errors import LedgerError
from gateway.core.records import Actor
from tests.control.desk import Desk


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    made = Desk(tmp_path)
    yield made
    made.ledger.close()


async def settled() -> None:
    """Until all that was begun is done."""
    while len(tasks := asyncio.all_tasks()) > 1:
        await asyncio.wait(tasks - {asyncio.current_task()})


def noted(desk: Desk) -> list[tuple[str, str, int]]:
    found = []
    for record in desk.ledger.audit():
        if record.action == "admin.refuse":
            assert record.detail is not None
            found.append((record.actor.get("address", ""), record.target, int(record.detail["count"])))
    return found


def test_the_first_is_noted_at_once_and_the_rest_when_the_minute_is_over(desk: Desk) -> None:
    async def run() -> None:
        refusals = Refusals(desk)
        for _ in range(500):
            refusals.saw(Actor("call", address="192.0.2.1"), "caller_unauthorized", "GET /keys")
        await settled()
        assert noted(desk) == [("192.0.2.1", "admin/GET /keys", 1)]
        refusals.close()
        await settled()
        assert noted(desk)[1:] == [("192.0.2.1", "admin/GET /keys", 499)]
        refusals.close()
        await settled()
        assert len(noted(desk)) == 2

    asyncio.run(run())


def test_a_flood_from_everywhere_is_some_records_and_no_refusal_is_lost(desk: Desk) -> None:
    async def run() -> None:
        refusals = Refusals(desk)
        for n in range(5000):
            refusals.saw(Actor("call", address=f"192.0.2.{n % 250}"), "caller_unauthorized", "GET /keys")
        refusals.close()
        await settled()

    asyncio.run(run())
    found = noted(desk)
    assert len(found) <= 42
    totals = Counter[str]()
    for address, _, count in found:
        totals[address] += count
    assert sum(totals.values()) == 5000 and totals["192.0.2.7"] == 20


def test_a_ledger_that_fails_keeps_nobody_waiting(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    async def fails(work: Any) -> Any:
        raise LedgerError("no disk")

    async def run() -> None:
        desk.do = fails  # type: ignore[method-assign]
        Refusals(desk).saw(Actor("call"), "caller_unauthorized", "GET /keys")
        await settled()

    asyncio.run(run())
    assert "no disk" in caplog.text
