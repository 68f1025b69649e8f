"""Streams: the same bytes as without a gateway, errors told, upstreams let go, memory bounded."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.gateway import KEY, PROVIDER_KEY, Gateway
from tests.e2e.provider import Provider
from tests.e2e.raw import Conversation, body, request


def chat(model: str, mark: str = "hi", **more: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": mark}], "stream": True, **more}


MiB = 1 << 20
USAGE: dict[str, Any] = {"stream_options": {"include_usage": True}}


def whole(url: str, key: str, document: dict[str, Any]) -> bytes:
    with Conversation(url) as talk:
        talk.send(request(document, key, Connection="close"))
        return body(talk.rest())


@pytest.mark.parametrize(
    "fault",
    [
        "",
        "split",
        "newline=crlf",
        "newline=cr",
        "newline=crlf;split",
        "bom",
        "comments",
        "comments;split",
        "no_done",
        "no_final_newline",
        "no_final_newline;no_done",
        "long_line=1000000",
        "framing=close",
        "framing=length",
        "informational",
        "http10;framing=close",
        "tokens=2000",
        "error_after=3",
        "no_usage",
    ],
)
def test_the_client_gets_the_bytes_it_would_have_got_directly(
    gateway: Gateway, provider: Provider, fault: str
) -> None:
    document = chat(f"fault;{fault}", **USAGE)
    assert whole(gateway.url, KEY, document) == whole(provider.url, PROVIDER_KEY, document)


@pytest.mark.parametrize("fault", ["", "split", "newline=crlf", "comments", "framing=close", "tokens=500"])
def test_usage_nobody_asked_for_is_kept_from_the_client_and_booked(
    gateway: Gateway, provider: Provider, fault: str
) -> None:
    mark = f"hidden-{fault}-mark"
    with Conversation(gateway.url) as talk:
        talk.send(request(chat(f"fault;{fault}", mark), KEY, Connection="close"))
        answer = talk.rest()
    assert b'"prompt_tokens"' not in answer
    assert b'"choices":[]' not in answer
    assert b"[DONE]" in answer
    row = gateway.row(request_id(answer))
    arrived = provider.only(mark)
    assert row["usage_source"] == "provider"
    assert {kind: row[kind] for kind in arrived.usage} == arrived.usage


def test_a_provider_that_tells_no_usage_is_counted_and_marked_as_estimated(gateway: Gateway) -> None:
    with Conversation(gateway.url) as talk:
        talk.send(request(chat("fault;no_usage"), KEY, Connection="close"))
        row = gateway.row(request_id(talk.rest()))
    assert row["usage_source"] == "estimated"
    assert row["input"] > 0 and row["output"] > 0


def request_id(answer: bytes) -> str:
    head = answer.partition(b"\r\n\r\n")[0].decode()
    return next(
        line.partition(": ")[2] for line in head.split("\r\n") if line.lower().startswith("x-request-id")
    )


@pytest.mark.parametrize("moment", ["waiting", "headed", "streaming", "whole-reply"])
def test_a_client_that_leaves_cancels_the_upstream_at_once(
    gateway: Gateway, provider: Provider, backup: Provider, moment: str
) -> None:
    mark = f"leaves-{moment}-mark"
    model = {
        "waiting": "fault;delay=30",
        "headed": "saved-stalls",  # there is a fallback, and the head alone is here
        "streaming": "fault;interval=0.02;tokens=5000",
        "whole-reply": "fault;delay=30",
    }[moment]
    with Conversation(gateway.url) as talk:
        talk.send(request(chat(model, mark, stream=moment != "whole-reply"), KEY))
        if moment == "streaming":
            talk.until(b"data: ", 5)
        provider.wait_for(mark, lambda one: one.document["complete_at"])
        left = talk.leave()
    arrived = provider.wait_for(mark, lambda one: one.aborted_at)
    # Of half a minute and more; the machine may stand still for a moment meanwhile.
    assert arrived.aborted_at - left < 10.0
    assert backup.marked(mark) == []
    rows: list[dict[str, Any]] = []
    end = time.monotonic() + 60
    while not rows and time.monotonic() < end:
        rows = [row for row in gateway.rows("model = ?", model) if row["outcome"] == "client_gone"]
    # The provider has the prompt by then: it counts, also where nothing came back.
    assert rows and all(row["usage_source"] == "estimated" and row["input"] > 0 for row in rows)


def test_a_client_that_leaves_after_some_tokens_pays_for_what_was_made(gateway: Gateway) -> None:
    model = "fault;interval=0.01;tokens=4321"
    with Conversation(gateway.url) as talk:
        talk.send(request(chat(model), KEY))
        identity = request_id(talk.until(b"data: ", 8))
        talk.leave()
    row = gateway.row(identity)
    assert (row["outcome"], row["usage_source"]) == ("client_gone", "estimated")
    assert row["output"] >= 5 and row["input"] > 0


@pytest.mark.parametrize("fault", ["die_after=4", "die_after=4;how=rst", "garbage_after=4", "stall_after=4"])
def test_an_upstream_that_breaks_in_the_middle_ends_with_a_typed_error_event(
    gateway: Gateway, fault: str
) -> None:
    with Conversation(gateway.url) as talk:
        talk.send(request(chat(f"fault;{fault}"), KEY, Connection="close"))
        answer = talk.rest()
    events = body(answer).decode().strip().split("\n\n")
    assert '"code":"upstream_' in events[-1].replace('": ', '":')
    assert "[DONE]" not in events[-1]
    row = gateway.row(request_id(answer))
    begun = answer.startswith(b"HTTP/1.1 200")  # else it broke before anything had gone to the client
    assert row["outcome"] == ("truncated" if begun else "upstream_error")
    assert row["code"].startswith("upstream_")


def kernel_buffers() -> int:
    """Bytes that one connection may hold in the kernel: what its two ends may grow to (tcp(7))."""
    folder = Path("/proc/sys/net/ipv4")
    return sum(int((folder / name).read_text().split()[2]) for name in ("tcp_rmem", "tcp_wmem"))


def test_a_slow_client_slows_the_upstream_and_memory_stays_bounded(
    gateway: Gateway, provider: Provider
) -> None:
    held = gateway.memory()
    with Conversation(gateway.url) as talk:
        talk.send(request(chat("fault;endless;tokens=200", "slow-client-mark"), KEY))
        talk.until(b"data: ", 1)
        before = 0
        while (now := provider.only("slow-client-mark").document["sent"]) != before:
            before = now
            time.sleep(0.3)  # until the provider sends no more: every buffer on the way is full
        assert gateway.memory() < held + 8 * MiB
    assert before < 2 * kernel_buffers() + MiB
    provider.wait_for("slow-client-mark", lambda one: one.aborted_at)


def test_many_requests_share_a_connection_and_streams_follow_each_other(gateway: Gateway) -> None:
    with Conversation(gateway.url) as talk:
        for number in range(1, 6):
            talk.send(request(chat("gpt-4o-mini"), KEY))
            talk.until(b"data: [DONE]\n\n\r\n0\r\n\r\n", number)


def test_a_stale_upstream_connection_costs_no_call(gateway: Gateway, provider: Provider) -> None:
    for number in range(30):
        status, _, _ = gateway.post(
            {**chat("fault;hang_up", f"stale-{number}-mark"), "stream": number % 2 == 0}
        )
        assert status == 200
        assert len(provider.marked(f"stale-{number}-mark")) == 1
