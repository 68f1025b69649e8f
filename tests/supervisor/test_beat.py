"""What is done now and again goes on after it has failed."""

from __future__ import annotations

import asyncio
import logging

import pytest

from gateway.core.errors import LedgerError
from gateway.supervisor import beat


def test_a_chore_goes_on_after_failures_and_tells_once_that_the_ledger_is_away(
    caplog: pytest.LogCaptureFixture,
) -> None:
    away, fault = LedgerError("the ledger is away"), ValueError("a fault of ours")
    ends = iter([away, away, away, None, away, fault])

    async def scenario() -> None:
        over = asyncio.Event()

        async def poll() -> None:
            error = next(ends, over)
            if error is over:
                over.set()
            elif isinstance(error, Exception):
                raise error

        task = asyncio.create_task(beat.forever(0.001, poll))
        await over.wait()
        task.cancel()

    with caplog.at_level(logging.WARNING, "penstock"):
        asyncio.run(scenario())
    told = [(record.getMessage(), record.exc_info is not None) for record in caplog.records]
    waits = ("poll waits for the ledger: the ledger is away", False)
    assert told == [waits, waits, ("poll failed; it is tried again", True)]
