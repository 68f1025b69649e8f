"""The webhook: what it sends, how it is signed, and which answers it takes for what."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
from collections.abc import Coroutine
from typing import Any

import pytest

from gateway.core.errors import UpstreamError
from gateway.core.notice import Notice, Unwanted
from gateway.settings.secret import Secret
from plugins.webhook import NotTaken, Webhook
from tests.backends.given import Seen, reply, upstream

NOTICE = Notice("limit.near", "limit daily|acme", {"used": 80, "amount": 100}, 1_700_000_000_123)
KEY = b"0123456789abcdef0123456789abcdef"


def run(scenario: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(scenario, 30))


async def hear(port: int, notice: Notice = NOTICE, times: int = 1, **options: Any) -> None:
    hook = Webhook({"url": f"http://127.0.0.1:{port}/hook?a=b", **options})
    await hook.open()
    try:
        for _ in range(times):
            await hook.hear(notice)
    finally:
        await hook.close()


@pytest.mark.parametrize("secret", [f"whsec_{base64.b64encode(KEY).decode()}", KEY.decode()])
def test_a_notice_is_a_signed_post(secret: str) -> None:
    async def scenario() -> None:
        async with upstream(lambda seen: reply(204, b"")) as up:
            await hear(up.port, secret=Secret(secret, "env:HOOK"), headers={"X-Own": Secret("v")})
        (seen,) = up.seen
        assert (seen.method, seen.target) == ("POST", "/hook?a=b")
        assert json.loads(seen.body) == {
            "type": "limit.near",
            "timestamp": "2023-11-14T22:13:20.123Z",
            "data": {"subject": "limit daily|acme", "used": 80, "amount": 100},
        }
        (id,), (stamp,), (signed,) = (
            seen.header(f"webhook-{name}") for name in ("id", "timestamp", "signature")
        )
        expected = hmac.new(KEY, f"{id}.{stamp}.".encode() + seen.body, hashlib.sha256).digest()
        assert signed == "v1," + base64.b64encode(expected).decode()
        assert seen.header("content-type") == ["application/json"] and seen.header("x-own") == ["v"]

    run(scenario())


def test_every_try_has_the_same_id_and_every_notice_another() -> None:
    async def scenario() -> None:
        async with upstream(lambda seen: reply(200, b"ok")) as up:
            await hear(up.port, times=2)
            await hear(up.port, Notice("store.lost", "redis", {}, 5))
        first, again, other = (seen.header("webhook-id")[0] for seen in up.seen)
        assert first == again != other
        assert up.seen[0].header("webhook-signature") == []

    run(scenario())


@pytest.mark.parametrize("status", [500, 503, 429, 408])
def test_an_answer_that_another_try_may_mend_is_a_failure(status: int) -> None:
    async def scenario() -> None:
        async with upstream(lambda seen: reply(status, b"no")) as up:
            with pytest.raises(NotTaken):
                await hear(up.port)

    run(scenario())


@pytest.mark.parametrize("status", [400, 401, 404, 410, 301, 302, 307])
def test_any_other_answer_ends_it_and_no_redirect_is_followed(status: int) -> None:
    async def scenario() -> None:
        def answer(seen: Seen) -> bytes:
            return reply(status, b"no", f"location: http://127.0.0.1:{up.port}/elsewhere")

        async with upstream(answer) as up:
            with pytest.raises(Unwanted, match=f"status {status}"):
                await hear(up.port)
        assert [seen.target for seen in up.seen] == ["/hook?a=b"]

    run(scenario())


def test_an_address_where_nobody_is_raises_and_does_not_name_the_url() -> None:
    async def scenario() -> None:
        with pytest.raises(UpstreamError) as caught:
            await hear(9)
        assert "hook?a" not in str(caught.value)

    run(scenario())


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "url must be such as"),
        ({"url": "ftp://x/"}, "url must be such as"),
        ({"url": "https://user:canary@x/"}, "url must be such as"),
        ({"url": "https://x:99999/"}, "url must be such as"),
        ({"url": "https://x/ y"}, "url must be such as"),
        ({"url": 5}, "are strings"),
        ({"url": "https://x/", "secret": Secret("whsec_ canary")}, "not base64"),
        ({"url": "https://x/", "headers": []}, "headers must be a table"),
        ({"url": "https://x/", "headers": {"a": "b\r\nc"}}, "no header may hold"),
        ({"url": "https://x/", "ulr": "y"}, "unknown option 'ulr'; there are headers, kinds, secret, url"),
    ],
)
def test_options_that_can_not_be_used_are_told(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said) as caught:
        Webhook(options)
    assert "canary" not in str(caught.value)
