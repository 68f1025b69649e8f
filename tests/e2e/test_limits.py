"""Limits: exact over every worker of the machine, told in the headers, settled at the end."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.gateway import KEY, Gateway, unchecked
from tests.e2e.provider import Provider
from tests.e2e.raw import Conversation, request
from tests.e2e.running import until

CONFIG = """
[[keys]]
name = "limited"
key = "env:CALLER_KEY"

[backends.main]
kind = "openai"
base_url = "{url}/v1"
api_key = "env:PROVIDER_KEY"

[models."*"]
targets = [ {{ backend = "main" }} ]

[prices.a-dollar]
input = 1.0
output = 1.0

[[limits]]
scope = "{scope}"
{amount}
"""


@contextmanager
def limited(
    directory: Path, provider: Provider, amount: str, scope: str = "key", workers: int = 4
) -> Iterator[Gateway]:
    config = CONFIG.format(url=provider.url, scope=scope, amount=amount)
    with Gateway(directory / "gw", config, workers=workers) as gateway:
        yield gateway


async def burst(gateway: Gateway, document: dict[str, Any], count: int) -> list[int]:
    """So many calls at once, each on a connection of its own; their statuses."""
    return await asyncio.gather(*(asked(gateway.port, document) for _ in range(count)))


async def asked(port: int, document: dict[str, Any]) -> int:
    """The status of one call; one whose limits could not be checked in time is made again."""
    end = time.monotonic() + 30
    while True:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request(document, KEY, Connection="close"))
        answer = await reader.read()
        writer.close()
        await writer.wait_closed()
        status = int(answer[9:12])
        if not unchecked(status, answer) or time.monotonic() > end:
            return status


def exactly(limit: int, count: int, ask: Callable[[int], Counter[int]], more: int = 0) -> None:
    """Of so many calls at once as many as the limit says are admitted, and no other later but for `more`.

    Who does not hand back in time what it has unused counts as having nothing. Where the machine stands still
    just then, some are refused too early: what is left is for those who ask next.
    """
    statuses = ask(count)
    assert statuses.keys() <= {200, 429} and statuses.total() == count, statuses
    given, end = statuses[200], time.monotonic() + 30
    while given < limit and time.monotonic() < end:
        given += ask(limit - given)[200]
    assert given == limit
    assert more or ask(20) == {429: 20}


def chat(**more: Any) -> dict[str, Any]:
    return {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "hi"}], **more}


@pytest.mark.parametrize("scope", ["key", "global"])
def test_a_burst_gets_exactly_the_limit_over_four_workers(
    tmp_path: Path, provider: Provider, scope: str
) -> None:
    with limited(tmp_path, provider, 'requests = 100\nper = "1h"', scope) as gateway:
        exactly(100, 300, lambda count: Counter(asyncio.run(burst(gateway, chat(), count))))
        status, headers, body = gateway.post(chat())
        assert status == 429
        assert int(headers["retry-after"]) > 0
        assert headers["x-ratelimit-limit-requests"] == "100"
        assert headers["x-ratelimit-remaining-requests"] == "0"
        assert b'"rate_limit_error"' in body


def test_tokens_never_go_over_when_max_tokens_is_set(tmp_path: Path, provider: Provider) -> None:
    with limited(tmp_path, provider, 'tokens = 2000\nper = "1h"') as gateway:
        provider.reset()
        statuses = Counter(asyncio.run(burst(gateway, chat(max_tokens=12), 200)))
        used = sum(sum(one.usage.values()) for one in provider.journal() if one.finished)
        assert set(statuses) == {200, 429}
        assert 0.5 * 2000 < used <= 2000


def test_what_was_reserved_and_not_used_is_given_back(tmp_path: Path, provider: Provider) -> None:
    with limited(tmp_path, provider, 'tokens = 2000\nper = "1h"', workers=1) as gateway:
        answered = 0
        while gateway.post(chat(max_tokens=1000))[0] == 200:
            answered += 1
            assert answered < 100
    assert answered > 10  # without giving back, two calls would have filled it


def test_money_runs_out_at_the_limit(tmp_path: Path, provider: Provider) -> None:
    with limited(tmp_path, provider, 'usd = 0.001\nper = "calendar month"') as gateway:
        provider.reset()
        statuses = Counter(asyncio.run(burst(gateway, chat(model="a-dollar", max_tokens=12), 150)))
        used = sum(sum(one.usage.values()) for one in provider.journal() if one.finished)
        assert statuses[200] and statuses[429] and used <= 1000


def test_calls_at_once_are_bounded_and_a_finished_one_makes_room(tmp_path: Path, provider: Provider) -> None:
    slow = chat(model="fault;interval=0.05;tokens=400", stream=True)
    with limited(tmp_path, provider, "concurrent = 3") as gateway:
        talks = [Conversation(gateway.url) for _ in range(3)]
        for talk in talks:
            talk.send(request(slow, KEY))
            talk.until(b"data: ")
        assert asyncio.run(burst(gateway, chat(), 4)) == [429] * 4
        talks[0].leave()
        while gateway.post(chat())[0] != 200:
            pass
        for talk in talks:
            talk.leave()


def test_a_refused_call_never_reaches_the_provider(tmp_path: Path, provider: Provider) -> None:
    with limited(tmp_path, provider, 'requests = 1\nper = "1h"', workers=2) as gateway:
        assert gateway.post(chat())[0] == 200
        provider.reset()
        assert asyncio.run(burst(gateway, chat(), 20)) == [429] * 20
        assert provider.journal() == []


def test_limits_survive_a_restart(tmp_path: Path, provider: Provider) -> None:
    with limited(tmp_path, provider, 'requests = 10\nper = "1h"', workers=2) as gateway:
        assert [gateway.post(chat())[0] for _ in range(6)] == [200] * 6
        gateway.process.terminate()
        gateway.wait()
        gateway.start()
        gateway.wait_ready()
        exactly(4, 20, lambda count: Counter(asyncio.run(burst(gateway, chat(), count))))


def test_a_shadow_limit_refuses_nothing(tmp_path: Path, provider: Provider) -> None:
    with limited(tmp_path, provider, 'requests = 1\nper = "1h"\nmode = "shadow"', workers=1) as gateway:
        assert asyncio.run(burst(gateway, chat(), 5)) == [200] * 5


def request_id(head: bytes) -> str:
    return head.split(b"x-request-id: ")[1].split(b"\r\n")[0].decode()


@pytest.mark.parametrize(
    ("amount", "bound"),
    [
        ('tokens = 1500\nper = "1h"', {}),
        ('output_tokens = 1500\nper = "1h"', {}),
        ('tokens = 1500\nper = "1h"', {"max_tokens": 10}),
    ],
    ids=["tokens", "output_tokens", "a bound that the provider ignores"],
)
def test_a_stream_that_outgrows_what_is_left_is_ended_and_charged(
    tmp_path: Path, provider: Provider, amount: str, bound: dict[str, Any]
) -> None:
    code, model = "policy_rate_limited", "fault;interval=0.002;tokens=20000"
    with limited(tmp_path, provider, amount, workers=1) as gateway:
        with Conversation(gateway.url) as talk:
            talk.send(request(chat(model=model, stream=True, **bound), KEY, Connection="close"))
            answer = talk.rest()
        assert f'"code":"{code}"'.encode() in answer.rsplit(b"data: ", 1)[1]
        assert answer.endswith(b"0\r\n\r\n")
        row = gateway.row(request_id(answer))
        assert (row["outcome"], row["code"], row["usage_source"]) == ("truncated", code, "estimated")
        assert json.loads(row["reasons"])["limits"] == "cut" and 0 < row["output"] <= 2500
        for _ in range(100):  # what the guess had too much is left for small calls
            status, headers, _ = gateway.post(chat())
            if status != 200:
                break
        assert status == 429 and int(headers["retry-after"]) > 0
        used = "tokens" if amount.startswith("tokens") else "output"
        spent = sum(row["output"] + row["input"] * (used == "tokens") for row in gateway.rows())
        assert spent <= 2600


def test_a_provider_is_asked_for_no_more_than_is_held(tmp_path: Path, provider: Provider) -> None:
    with limited(tmp_path, provider, 'tokens = 6000\nper = "1h"', workers=1) as gateway:
        provider.reset()
        status, headers, _ = gateway.post(chat(max_tokens=5000, seed=7))
        assert (status, headers["x-penstock-reason"]) == (200, "glob;limits:bounded")
        (arrived,) = provider.journal()
        sent = arrived.json()
        assert 1024 <= sent.pop("max_tokens") < 5000
        assert sent == chat(seed=7)


def test_a_key_revoked_while_its_answer_streams_gets_the_rest_of_it_and_nothing_else(
    tmp_path: Path, provider: Provider
) -> None:
    with limited(tmp_path, provider, 'tokens = 100000\nper = "1h"', workers=1) as gateway:
        key = json.loads(gateway.command("keys", "add", "short-lived", "--json"))["key"]
        until("the new key works", lambda: gateway.post(chat(), key=key)[0] == 200)
        with Conversation(gateway.url) as talk:
            talk.send(request(chat(model="fault;interval=0.05;tokens=60", stream=True), key))
            talk.until(b"data: ")
            gateway.command("keys", "revoke", "short-lived")
            until("it is refused", lambda: gateway.post(chat(), key=key)[0] == 401)
            assert b"[DONE]" in talk.rest_of_stream()
