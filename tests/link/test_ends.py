"""The link over a real socket pair."""

from __future__ import annotations

import asyncio
import socket

from gateway.link import ends


async def pair(receive, lost):
    ours, theirs = socket.socketpair()
    return await ends.connect(ours, receive, lost), theirs


def test_messages_arrive_in_order_at_the_other_end():
    async def scenario():
        got: asyncio.Queue = asyncio.Queue()
        a, b = socket.socketpair()
        left = await ends.connect(a, got.put_nowait, lambda error: None)
        gone = asyncio.Event()
        right = await ends.connect(b, got.put_nowait, lambda error: gone.set())
        for n in range(100):
            right.send({"t": "n", "n": n})
        assert [(await got.get())["n"] for _ in range(100)] == list(range(100))
        left.close()
        await gone.wait()
        right.send({"t": "into the void"})

    asyncio.run(scenario())


def test_what_was_sent_before_close_still_arrives():
    async def scenario():
        got: asyncio.Queue = asyncio.Queue()
        gone = asyncio.Event()
        a, b = socket.socketpair()
        left = await ends.connect(a, got.put_nowait, lambda error: None)
        await ends.connect(b, got.put_nowait, lambda error: gone.set())
        left.send({"t": "big", "data": "x" * 1_000_000})
        left.close()
        assert len((await got.get())["data"]) == 1_000_000
        await gone.wait()

    asyncio.run(scenario())


def test_nonsense_ends_the_link_once_and_says_why():
    async def scenario():
        ends_seen: asyncio.Queue = asyncio.Queue()
        _, theirs = await pair(lambda message: None, ends_seen.put_nowait)
        with theirs:
            theirs.sendall(b"\0\0\0\3xyz")
            error = await ends_seen.get()
            assert "not JSON" in str(error)
            assert theirs.recv(10) == b""
        await asyncio.sleep(0)
        assert ends_seen.empty()

    asyncio.run(scenario())


def test_a_peer_that_never_reads_is_cut_off(monkeypatch):
    monkeypatch.setattr(ends, "MOST_WAITING", 100_000)

    async def scenario():
        gone = asyncio.Event()
        end, theirs = await pair(lambda message: None, lambda error: gone.set())
        with theirs:
            while not gone.is_set():
                end.send({"t": "x", "data": "y" * 50_000})
                await asyncio.sleep(0)

    asyncio.run(scenario())
