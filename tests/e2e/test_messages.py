"""Anthropic's Messages API, as servers of OpenAI's kind offer it: passed on as it is, and charged in full."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gateway.core.tokens import count
from tests.e2e.gateway import KEY, PROVIDER_KEY, Gateway
from tests.e2e.provider import Provider
from tests.e2e.raw import Conversation, body, request
from tests.e2e.test_limits import limited, request_id
from tests.upstream.text import words

LONG = "a prompt of which half is cached " * 20


def message(model: str, mark: str = "hi", **more: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": mark}], "stream": True, **more}


def sent(document: dict[str, Any], key: str, **headers: str) -> bytes:
    return request(document, key, **headers).replace(b"/v1/chat/completions ", b"/v1/messages ", 1)


def whole(url: str, key: str, document: dict[str, Any]) -> bytes:
    with Conversation(url) as talk:
        talk.send(sent(document, key, Connection="close"))
        return talk.rest()


@pytest.mark.parametrize("fault", ["", "split", "newline=crlf", "comments", "tokens=500", "gzip"])
@pytest.mark.parametrize("stream", [True, False])
def test_a_message_comes_as_it_is_and_is_booked_as_the_provider_says(
    gateway: Gateway, provider: Provider, fault: str, stream: bool
) -> None:
    mark = f"booked-{fault}-{stream}-mark {LONG}"
    document = message(f"fault;{fault}", mark, stream=stream, max_tokens=600)
    answer = whole(gateway.url, KEY, document)
    arrived = provider.only(mark)
    assert arrived.target == "/v1/messages"
    if fault != "gzip":
        assert body(answer) == body(whole(provider.url, PROVIDER_KEY, document))
    row = gateway.row(request_id(answer))
    assert (row["endpoint"], row["outcome"], row["usage_source"]) == ("messages", "ok", "provider")
    assert row["cached_input"] > 0
    assert {kind: row[kind] for kind in arrived.usage} == arrived.usage


@pytest.mark.parametrize("stream", [True, False])
def test_a_message_whose_provider_tells_no_usage_is_counted(gateway: Gateway, stream: bool) -> None:
    row = gateway.row(request_id(whole(gateway.url, KEY, message("fault;no_usage", LONG, stream=stream))))
    assert (row["outcome"], row["usage_source"]) == ("ok", "estimated")
    assert row["input"] == count("m", LONG)
    assert row["output"] == count("m", "".join(words(12)))


def test_a_message_that_breaks_off_is_truncated_and_says_so_as_its_clients_look_for_it(
    gateway: Gateway,
) -> None:
    answer = whole(gateway.url, KEY, message("fault;die_after=9"))
    last = body(answer).rsplit(b"\n\n", 2)[1]
    assert last.startswith(b'event: error\ndata: {"type":"error","error":{"message":')
    row = gateway.row(request_id(answer))
    assert (row["outcome"], row["usage_source"]) == ("truncated", "estimated")
    assert row["output"] > 0


@pytest.mark.parametrize("path", [b"/v1/messages ", b"/messages ", b"/v1/messages/count_tokens "])
def test_a_message_that_is_refused_is_told_so_as_its_clients_read_it(gateway: Gateway, path: bytes) -> None:
    with Conversation(gateway.url) as talk:
        talk.send(sent(message("m"), "no-key", Connection="close").replace(b"/v1/messages ", path, 1))
        answer = talk.rest()
    told = json.loads(body(answer))
    assert answer.startswith(b"HTTP/1.1 401 ")
    assert (told["type"], told["error"]["type"]) == ("error", "authentication_error")
    assert told["request_id"] == told["error"]["request_id"] == request_id(answer)


def test_a_client_that_leaves_pays_for_its_prompt_as_told_and_for_the_text_that_came(
    gateway: Gateway, provider: Provider
) -> None:
    mark = f"leaves-a-message-mark {LONG}"
    with Conversation(gateway.url) as talk:
        talk.send(sent(message("fault;interval=0.01;tokens=4321", mark), KEY))
        answer = talk.until(b"text_delta", 20)
        talk.leave()
    row = gateway.row(request_id(answer))
    told = json.loads(answer.split(b"data: ", 1)[1].split(b"\n", 1)[0])["message"]["usage"]
    assert (row["outcome"], row["usage_source"]) == ("client_gone", "estimated")
    assert (row["input"], row["cached_input"]) == (told["input_tokens"], told["cache_read_input_tokens"])
    assert row["output"] >= count("m", "".join(words(19)))


@pytest.mark.parametrize(
    ("amount", "model", "code"),
    [
        ('tokens = 1500\nper = "1h"', "fault;interval=0.002;tokens=20000", "policy_rate_limited"),
        ('output_tokens = 1500\nper = "1h"', "fault;interval=0.002;tokens=20000", "policy_rate_limited"),
    ],
    ids=["tokens", "output_tokens"],
)
def test_a_message_that_outgrows_what_is_left_is_ended_and_charged(
    tmp_path: Path, provider: Provider, amount: str, model: str, code: str
) -> None:
    with limited(tmp_path, provider, amount, workers=1) as gateway:
        answer = whole(gateway.url, KEY, message(model))
        assert f'"code":"{code}"'.encode() in answer.rsplit(b"data: ", 1)[1]
        assert b"message_stop" not in answer and answer.endswith(b"0\r\n\r\n")
        row = gateway.row(request_id(answer))
        assert (row["outcome"], row["code"], row["usage_source"]) == ("truncated", code, "estimated")
        assert json.loads(row["reasons"])["limits"] == "cut" and 0 < row["output"] <= 2500


def test_a_message_that_costs_more_than_is_left_is_ended(tmp_path: Path, provider: Provider) -> None:
    with limited(tmp_path, provider, 'usd = 0.0015\nper = "1h"', workers=1) as gateway:
        provider.spoil("interval=0.002;tokens=20000", model="a-dollar")
        try:
            answer = whole(gateway.url, KEY, message("a-dollar"))
        finally:
            provider.reset()
        assert b'"code":"policy_budget_exceeded"' in answer.rsplit(b"data: ", 1)[1]
        row = gateway.row(request_id(answer))
        assert row["outcome"] == "truncated" and 0 < row["cost_micros"] <= 2600
