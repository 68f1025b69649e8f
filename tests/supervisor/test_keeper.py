"""The audit of a running appliance: heads are noted and never set back, old records are dropped."""

from __future__ import annotations

import asyncio
import logging
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.core.errors import LedgerError
from gateway.core.records import Actor, Deed
from gateway.stores.base import records as clock
from gateway.stores.sqlite import SqliteLedger
from gateway.supervisor import audit
from gateway.supervisor.audit import HEAD, Keeper, noted_heads

DAY = 86_400.0


async def do(work: Callable[[], Any]) -> Any:
    return work()


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[SqliteLedger]:
    ledger = SqliteLedger(tmp_path / "ledger.sqlite")
    ledger.chain = "r1"
    ledger.open()
    yield ledger
    ledger.close()


@pytest.fixture
def keeper(ledger: SqliteLedger, tmp_path: Path) -> Keeper:
    return Keeper(ledger, do, tmp_path, 0.0)


def note(ledger: SqliteLedger, count: int = 1) -> None:
    ledger.note([Deed(Actor("token"), "x", "y")] * count)


def test_heads_are_noted_for_the_owner_alone(ledger: SqliteLedger, keeper: Keeper, tmp_path: Path) -> None:
    note(ledger)
    keeper.tend()
    ((chain, n, hash),) = noted_heads(tmp_path / HEAD)
    assert ledger.chains() == {chain: (n, hash)} and n == 2
    assert stat.S_IMODE((tmp_path / HEAD).stat().st_mode) == 0o600
    before = (tmp_path / HEAD).stat().st_ino
    keeper.tend()
    assert (tmp_path / HEAD).stat().st_ino == before
    note(ledger)
    keeper.tend()
    assert noted_heads(tmp_path / HEAD)[0][1] == 3


@pytest.mark.parametrize("other", ["shorter", "another", "gone"])
def test_what_was_noted_of_a_chain_is_never_set_back(
    ledger: SqliteLedger, tmp_path: Path, caplog: pytest.LogCaptureFixture, other: str
) -> None:
    note(ledger, 4)
    Keeper(ledger, do, tmp_path, 0.0).tend()
    before = noted_heads(tmp_path / HEAD)
    fresh = SqliteLedger(tmp_path / "other.sqlite")
    fresh.chain = "r2" if other == "gone" else "r1"
    fresh.open()
    note(fresh, {"shorter": 2, "another": 4, "gone": 1}[other])
    keeper = Keeper(fresh, do, tmp_path, 0.0)
    with caplog.at_level(logging.ERROR):
        keeper.tend()
        keeper.tend()
    fresh.close()
    assert before[0] in noted_heads(tmp_path / HEAD)
    assert caplog.text.count("the audit chain r1 has lost its end") == 1


def test_a_file_that_can_not_be_kept_is_told_and_stops_nothing(
    ledger: SqliteLedger, keeper: Keeper, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / HEAD).write_text("nonsense")
    note(ledger)
    keeper.tend()
    assert "is not what the gateway wrote" in caplog.text


def test_old_records_are_dropped_as_long_as_it_is_asked(
    ledger: SqliteLedger, keeper: Keeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    note(ledger, 3)
    now = clock.now_ms()
    monkeypatch.setattr(clock, "now_ms", lambda: now + int(9 * DAY * 1000))
    keeper.tend()
    assert ledger.chains()["r1"][0] == 4  # kept for good
    other = Keeper(ledger, do, Path(), 3 * DAY)
    monkeypatch.setattr(other, "_file", Path("/dev/null/nowhere"))
    other.tend()
    assert [record.n for record in ledger.audit()] == [4, 5]


def test_start_and_stop_reloads_and_refusals_are_noted_once_each(
    ledger: SqliteLedger, keeper: Keeper, tmp_path: Path
) -> None:
    async def live() -> None:
        await keeper.began("r1")
        await keeper.reloaded("r1", "r2")
        for why in ("", "bad", "bad", "", "worse", "bad"):
            await keeper.refused("r2", why)
        await keeper.ended("r2", True)

    asyncio.run(live())
    found = [(record.action, (record.detail or {}).get("why")) for record in ledger.audit()]
    assert found == [
        ("audit.begin", None), ("appliance.start", None), ("config.reload", None), ("config.refuse", "bad"),
        ("config.refuse", "worse"), ("config.refuse", "bad"), ("appliance.stop", None),
    ]  # fmt: skip
    assert noted_heads(tmp_path / HEAD)[0][1] == 7


def test_a_ledger_that_fails_stops_no_appliance(
    ledger: SqliteLedger, keeper: Keeper, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(deeds: object) -> None:
        raise LedgerError("it is away")

    monkeypatch.setattr(ledger, "note", fail)
    asyncio.run(keeper.began("r1"))
    assert "appliance.start of appliance can't be noted in the audit: it is away" in caplog.text


def test_what_could_not_be_noted_is_noted_in_its_order_when_the_ledger_is_back(
    ledger: SqliteLedger, keeper: Keeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(deeds: object) -> None:
        raise LedgerError("it is away")

    monkeypatch.setattr(audit, "_TEND", 0.0)
    with monkeypatch.context() as away:
        away.setattr(ledger, "note", fail)
        asyncio.run(keeper.reloaded("r1", "r2"))
        asyncio.run(keeper.reloaded("r2", "r3"))
        with pytest.raises(LedgerError):
            keeper.tend()
    before = int(time.time() * 1000)
    keeper.tend()
    found = list(ledger.audit())
    assert [(one.action, one.target) for one in found][1:] == [
        ("config.reload", "config/r2"), ("config.reload", "config/r3"),
    ]  # fmt: skip
    assert all(one.ts_ms <= before for one in found[1:])
    keeper.tend()
    assert len(list(ledger.audit())) == 3
