"""Writes that outlive the calls that began them."""

from __future__ import annotations

import asyncio

import httpcore
import pytest

from gateway.net import written
from gateway.net.written import Wire
from tests.net.world import run


class Slow(httpcore.AsyncNetworkStream):
    """Takes a write only when it is let."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.let = asyncio.Event()
        self.closed = False
        self.taken: list[bytes] = []

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self.begun.set()
        await self.let.wait()
        if self.closed:
            raise httpcore.WriteError
        self.taken.append(buffer)

    async def aclose(self) -> None:
        self.closed = True
        self.let.set()


async def left(wire: Wire, below: Slow) -> None:
    """A write that is under way, and its call gone."""
    call = asyncio.ensure_future(wire.write(b"one"))
    await below.begun.wait()
    call.cancel()
    await asyncio.wait([call])
    assert call.cancelled()


def test_a_write_whose_call_has_left_ends_before_the_next_begins() -> None:
    async def scenario() -> None:
        below = Slow()
        wire = Wire(below)
        await left(wire, below)
        following = asyncio.ensure_future(wire.write(b"two"))
        below.let.set()
        await following
        assert below.taken == [b"one", b"two"]
        await wire.aclose()

    run(scenario())


def test_a_peer_that_takes_nothing_loses_the_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(written, "_LEFT", 0)

    async def scenario() -> None:
        below = Slow()
        wire = Wire(below)
        await left(wire, below)
        with pytest.raises(httpcore.WriteError):
            await wire.write(b"two")
        assert below.closed
        assert not below.taken
        await wire.aclose()

    run(scenario())


def test_closing_ends_the_writes_that_are_under_way() -> None:
    async def scenario() -> None:
        below = Slow()
        wire = Wire(below)
        await left(wire, below)
        await wire.aclose()
        assert not below.taken

    run(scenario())
