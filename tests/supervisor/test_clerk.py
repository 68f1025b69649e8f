"""The thread for blocking work: in order, and every caller is told."""

from __future__ import annotations

import asyncio
import threading

import pytest

from gateway.supervisor import beat
from gateway.supervisor.clerk import Clerk


def test_work_is_done_in_order_in_another_thread():
    async def scenario():
        clerk, done = Clerk("clerk"), []
        await asyncio.gather(
            *[clerk.do(lambda n=n: done.append((n, threading.get_ident()))) for n in range(50)]
        )
        assert await clerk.do(lambda: "result") == "result"
        clerk.close()
        assert [n for n, _ in done] == list(range(50))
        assert {ident for _, ident in done}.isdisjoint({threading.get_ident()})

    asyncio.run(scenario())


def test_a_failure_is_the_callers_and_the_next_piece_is_done():
    async def scenario():
        clerk = Clerk("clerk")
        with pytest.raises(ZeroDivisionError):
            await clerk.do(lambda: 1 // 0)
        assert await clerk.do(lambda: 2) == 2
        clerk.close()

    asyncio.run(scenario())


def test_what_a_cancelled_caller_asked_for_is_done_before_the_clerk_ends():
    async def scenario():
        clerk, go, done = Clerk("clerk"), threading.Event(), []
        first = asyncio.create_task(clerk.do(go.wait))
        second = asyncio.create_task(clerk.do(lambda: done.append(2)))
        await asyncio.sleep(0)
        first.cancel()
        second.cancel()
        await asyncio.gather(first, second, return_exceptions=True)
        go.set()
        clerk.close()
        assert done == [2]
        with pytest.raises(RuntimeError):
            await clerk.do(lambda: 3)

    asyncio.run(scenario())


def test_chores_with_different_pauses_are_due_together():
    async def scenario():
        now = asyncio.get_running_loop().time
        for pause in (0.1, 0.4, 0.5, 1.0):
            before, due, after = now(), beat.after(pause), now()
            assert before + 0.4 * pause < due < after + 1.6 * pause
            assert abs(due / 0.1 - round(due / 0.1)) < 1e-6

    asyncio.run(scenario())
