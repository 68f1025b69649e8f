"""The provider itself: what it says follows from the request, and its journal tells what came."""

from __future__ import annotations

import asyncio
import json

import pytest

from tests.upstream import faults, server
from tests.upstream.request import Malformed, Reader


async def talk(data: bytes, provider: server.Provider) -> bytes:
    """Everything the provider says to raw bytes until it closes."""
    listening = await server.start(provider)
    reader, writer = await asyncio.open_connection(*listening.sockets[0].getsockname())
    writer.write(data)
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    listening.close()
    return answer


def post(document: object, *headers: str) -> bytes:
    body = json.dumps(document).encode()
    lines = [
        "POST /v1/chat/completions HTTP/1.1",
        "Connection: close",
        f"Content-Length: {len(body)}",
        *headers,
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def test_the_journal_has_every_request_as_it_arrived() -> None:
    provider = server.Provider()
    data = post({"model": "gpt-4o-mini", "messages": []}, "X-Odd:  Spaced Value ")
    assert asyncio.run(talk(data, provider)).startswith(b"HTTP/1.1 200 OK\r\n")
    [entry] = provider.journal.document()["entries"]
    assert ["X-Odd", "Spaced Value"] in [list(pair) for pair in entry["headers"]]
    assert entry["finished_at"] >= entry["complete_at"] >= entry["head_at"]
    assert entry["aborted_at"] == 0


def test_spend_counts_completed_calls_by_model() -> None:
    provider = server.Provider()
    asyncio.run(talk(post({"model": "o4-mini", "messages": []}), provider))
    asyncio.run(talk(post({"model": "fault;die_after=2", "messages": [], "stream": True}), provider))
    assert provider.journal.spend() == {
        "o4-mini": {"calls": 1, "input": 7, "cached_input": 0, "output": 12, "reasoning": 16}
    }


@pytest.mark.parametrize(
    "data",
    [
        b"POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"GET  / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nName : value\r\n\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0x1\r\n",
    ],
)
def test_what_is_no_request_is_refused(data: bytes) -> None:
    reader = Reader()
    with pytest.raises(Malformed):
        reader.feed(data)


def test_requests_are_read_wherever_the_bytes_were_cut() -> None:
    data = (
        b"POST /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\nGET /b HTTP/1.1\r\n\r\n"
    )
    reader = Reader()
    done = [request for index in range(len(data)) for request in reader.feed(data[index : index + 1])]
    assert [(one.target, bytes(one.body)) for one in done] == [("/a", b"abc"), ("/b", b"")]


def test_an_unknown_fault_is_named() -> None:
    with pytest.raises(ValueError, match="no fault named 'explode'"):
        faults.parse("explode=1")
