"""When a changed configuration is read."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from gateway.supervisor import turnover


class Files:
    """Revisions whose files look another way at each look, until they are written."""

    def __init__(self, *stamps: str) -> None:
        self.stamps = list(stamps)
        self.seen: list[str] = []

    def changed(self) -> bool:
        return True

    def stamp(self) -> str:
        self.seen.append(self.stamps.pop(0) if len(self.stamps) > 1 else self.stamps[0])
        return self.seen[-1]


class Reading(turnover.Turnover):
    """Notes what the files looked like when they were read."""

    def __init__(self, files: Files) -> None:
        nothing = cast(Any, None)
        super().__init__(cast(Any, files), *[nothing] * 7)
        self.files = files
        self.read: list[str] = []

    async def _read(self) -> None:
        self.read.append(self.files.stamp())


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turnover, "_REST", 0.0)


def test_a_file_that_is_being_written_is_read_when_it_is_whole() -> None:
    reading = Reading(Files("empty", "half", "whole"))
    asyncio.run(reading.poll())
    assert reading.read == ["whole"]


def test_files_that_are_written_all_the_time_are_read_all_the_same() -> None:
    reading = Reading(Files(*map(str, range(1000))))
    asyncio.run(reading.poll())
    assert len(reading.read) == 1
