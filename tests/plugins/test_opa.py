"""Decisions by Open Policy Agent: understood, bounded, remembered, and what holds without one."""

from __future__ import annotations

import asyncio
import inspect
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from hypothesis import given as cases
from hypothesis import strategies as st

from gateway.core.call import Call
from gateway.core.errors import GatewayError
from gateway.core.parts import Parts
from gateway.core.route import Plan, Target
from gateway.settings.secret import Secret
from plugins.opa import Decision, Opa, decision_of
from tests.plugins.opa_server import OpaServer, Undefined
from tests.stages import given

DENIED, AWAY = "policy_denied", "gateway_policy_unavailable"


@asynccontextmanager
async def opened(server: OpaServer, **options: Any) -> AsyncIterator[tuple[Opa, Parts]]:
    """The stage, asking this server; patient unless the test is about time."""
    parts = given.parts()
    stage = Opa({"url": server.url, "timeout": "30s", **options}, parts)
    await stage.open()
    try:
        yield stage, parts
    finally:
        await stage.close()


def chat(**more: Any) -> Call:
    entry = given.entry(tenant="acme", team="search", user="bot")
    call = given.call(document={"model": "m", "messages": [], **more}, key=entry)
    call.client, call.tags = "192.0.2.7", ("batch",)
    call.plan = Plan((Target("up"),), "exact", "m")
    return call


async def verdict(stage: Opa, call: Call) -> str:
    try:
        found = stage.admit(call)
        if inspect.isawaitable(found):
            await found
    except GatewayError as error:
        return error.code
    return ""


def test_it_asks_with_what_a_policy_can_decide_by_and_no_secret() -> None:
    async def scenario() -> None:
        async with OpaServer() as server, opened(server) as (stage, _):
            tool = {"type": "function", "function": {"name": "search"}}
            assert await verdict(stage, chat(tools=[tool], stream=True)) == ""
            (asked,) = server.inputs
            caller = {"key": "test", "id": "key_1", "tenant": "acme", "team": "search", "user": "bot"}
            assert asked["principal"] == {**caller, "roles": ["caller"]}
            assert (asked["model"], asked["endpoint"], asked["client"]) == (
                "m",
                "chat/completions",
                "192.0.2.7",
            )
            assert (
                asked["tags"] == ["batch"] and asked["tools"] == ["search"] and asked["tools_known"] is True
            )
            assert asked["stream"] is True and asked["backends"] == ["up"] and asked["tokens"] >= 1
            assert "body" not in asked and "digest" not in json.dumps(asked)
            assert server.heads[0].startswith("POST /v1/data/penstock/allow HTTP/1.1\r\n")

    asyncio.run(scenario())


def test_the_body_goes_along_where_it_is_asked_for_and_the_token_as_a_bearer_token() -> None:
    async def scenario() -> None:
        token = Secret("canary-token", "env:OPA_TOKEN")
        async with OpaServer() as server, opened(server, body=True, token=token) as (stage, _):
            assert await verdict(stage, chat()) == ""
            assert server.inputs[0]["body"] == {"model": "m", "messages": []}
            assert "authorization: Bearer canary-token\r\n" in server.heads[0]
            assert "canary" not in repr(vars(stage).get("token")) + str(stage)

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("result", "code", "said"),
    [
        (True, "", ""),
        (False, DENIED, "refuses this call."),
        (Undefined, DENIED, "no decision is defined"),
        ({"allow": True}, "", ""),
        ({"allow": False, "reason": "too risky"}, DENIED, "too risky"),
        ({"allow": True, "deny": True}, DENIED, ""),
        ({"deny": []}, "", ""),
        ({"deny": ["one", "two"]}, DENIED, "one; two"),
        ({"deny": "one"}, DENIED, "one"),
        ({"allow": "yes"}, DENIED, ""),
        ({"allow": False, "reason": "a\r\nb\x00" + "x" * 9999}, DENIED, "a  b x"),
        ({}, AWAY, ""),
        ("yes", AWAY, ""),
        ([], AWAY, ""),
        (None, AWAY, ""),
        ({"allow": True, "set": {"model": "other"}}, AWAY, ""),
        ({"allow": True, "set": {"temperature": "hot"}}, AWAY, ""),
    ],
)
def test_an_answer_is_understood_or_is_none(result: Any, code: str, said: str) -> None:
    async def scenario() -> None:
        async with OpaServer(lambda asked: result) as server, opened(server) as (stage, parts):
            call = chat()
            try:
                found = stage.admit(call)
                assert inspect.isawaitable(found)
                await found
                assert code == ""
            except GatewayError as error:
                assert error.code == code
                assert said in error.message and len(error.message) < 400 and error.message.isprintable()
                assert call.reasons["policy"] == "opa"
                decision = "deny" if code == DENIED else "unavailable"
                assert parts.counts["policies", "opa", decision] == 1

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("raw", "status"), [(b"{", 200), (b"", 200), (b'{"result": true}', 500), (b"[" * 70_000, 200)]
)
def test_garbage_and_errors_are_no_decision(raw: bytes, status: int) -> None:
    async def scenario() -> None:
        async with OpaServer(raw=raw) as server, opened(server) as (stage, _):
            server.status = status
            assert await verdict(stage, chat()) == AWAY

    asyncio.run(scenario())


def test_open_lets_calls_pass_without_a_decision_and_says_so() -> None:
    async def scenario() -> None:
        async with OpaServer(raw=b"garbage") as server, opened(server, fail="open") as (stage, parts):
            call = chat()
            assert await verdict(stage, call) == ""
            assert (
                call.reasons == {"undecided": "opa"} and parts.counts["policies", "opa", "unavailable"] == 1
            )

    asyncio.run(scenario())


def test_nobody_listening_and_nobody_answering_are_no_decision() -> None:
    async def scenario() -> None:
        async with OpaServer(hold=True) as server, opened(server, timeout="20ms") as (stage, _):
            assert await verdict(stage, chat()) == AWAY
            server._server.close()
        async with opened(server, timeout="200ms") as (stage, _):
            assert await verdict(stage, chat()) == AWAY

    asyncio.run(scenario())


def test_what_was_decided_is_remembered_and_a_refusal_too() -> None:
    async def scenario() -> None:
        async with (
            OpaServer(lambda asked: asked["model"] == "m") as server,
            opened(server, cache="60m") as (stage, _),
        ):
            for _ in range(3):
                assert await verdict(stage, chat()) == ""
                assert await verdict(stage, chat(model="other")) == DENIED
            assert len(server.inputs) == 2

    asyncio.run(scenario())


def test_without_a_cache_every_call_is_asked_about() -> None:
    async def scenario() -> None:
        async with OpaServer() as server, opened(server, cache="0s") as (stage, _):
            for _ in range(3):
                assert await verdict(stage, chat()) == ""
            assert len(server.inputs) == 3

    asyncio.run(scenario())


def test_equal_questions_at_once_are_asked_once_and_one_that_leaves_harms_no_other() -> None:
    async def scenario() -> None:
        async with OpaServer(hold=True) as server, opened(server) as (stage, _):
            tasks = [asyncio.create_task(verdict(stage, chat())) for _ in range(20)]
            while not server.inputs:
                await asyncio.sleep(0)
            tasks[0].cancel()
            server.released.set()
            done = await asyncio.gather(*tasks, return_exceptions=True)
            assert isinstance(done[0], asyncio.CancelledError) and done[1:] == [""] * 19
            assert len(server.inputs) == 1

    asyncio.run(scenario())


def test_after_failures_in_a_row_nobody_is_asked_until_the_pause_is_over() -> None:
    async def scenario() -> None:
        async with OpaServer(raw=b"garbage") as server, opened(server, cache="0s") as (stage, _):
            for _ in range(8):
                assert await verdict(stage, chat()) == AWAY
            assert len(server.inputs) == 5
            stage._closed_until = 0.0  # the pause is over
            assert await verdict(stage, chat()) == AWAY
            assert len(server.inputs) == 6
            assert await verdict(stage, chat()) == AWAY  # the one that found out failed: a longer pause
            assert len(server.inputs) == 6
            server.raw, stage._closed_until = None, 0.0
            assert await verdict(stage, chat()) == ""
            assert await verdict(stage, chat()) == "" and len(server.inputs) == 8

    asyncio.run(scenario())


def test_settings_of_the_answer_change_what_is_forwarded() -> None:
    async def scenario() -> None:
        answer = {"allow": True, "set": {"temperature": 0.2, "user": "svc"}}
        async with OpaServer(lambda asked: answer) as server, opened(server) as (stage, parts):
            call = chat(temperature=1.5)
            assert await verdict(stage, call) == ""
            assert json.loads(call.body) == call.document
            assert call.document is not None and call.document["temperature"] == 0.2
            assert call.reasons["policy"] == "opa" and parts.counts["policies", "opa", "set"] == 1
            for field, said in (("temperature", "policy_requirement"), ("prompt", "")):
                body = b'--x\r\ncontent-disposition: form-data; name="%b"\r\n\r\n1' % field.encode()
                kind = [(b"content-type", b"multipart/form-data; boundary=x")]
                form = given.call("/audio/transcriptions", headers=kind, body=body, key=given.entry())
                assert await verdict(stage, form) == said

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("endpoint", "document", "set_", "sent"),
    [
        ("embeddings", {"model": "m", "input": "x"}, {"temperature": 0.2, "user": "u"}, {"user": "u"}),
        ("chat/completions", {"model": "m", "seed": 1}, {"seed": 2}, {"seed": 2}),
        ("responses", {"model": "m", "input": "x"}, {"seed": 2, "parallel_tool_calls": False}, {}),
        ("models", None, {"temperature": 0.2}, None),
    ],
)
def test_settings_are_made_where_they_mean_something(
    endpoint: str, document: Any, set_: dict[str, Any], sent: Any
) -> None:
    async def scenario() -> None:
        async with (
            OpaServer(lambda asked: {"allow": True, "set": set_}) as server,
            opened(server) as (stage, _),
        ):
            call = chat()
            call.endpoint, call.path = endpoint, f"/{endpoint}"
            call.document = document
            call.body = b"" if document is None else json.dumps(document).encode()
            assert await verdict(stage, call) == ""
            assert call.document == (None if document is None else {**document, **sent})

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "body",
    [b'{"model":"m","Tools":[]}', b'{"model":"m","tools":[],"tools":[]}', b'{"model":"m","MODEL":"x"}'],
)
def test_what_could_be_read_in_two_ways_is_not_asked_about(body: bytes) -> None:
    async def scenario() -> None:
        async with OpaServer() as server, opened(server) as (stage, _):
            call = chat()
            call.body, call.document = body, json.loads(body)
            assert await verdict(stage, call) == "caller_bad_request"
            assert not server.inputs

    asyncio.run(scenario())


def test_what_is_remembered_is_bounded() -> None:
    async def scenario() -> None:
        async with OpaServer() as server, opened(server, cache="60m") as (stage, _):
            stage._known.update((b"%d" % n, Decision(True, "", {}, 1e12)) for n in range(4096))
            assert await verdict(stage, chat()) == ""
            assert len(stage._known) == 1
            assert await verdict(stage, chat(model="x" * 20_000)) == ""
            assert len(stage._known) == 1

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "options",
    [{}, {"url": "ftp://x/y"}, {"url": "http://user:pw@x/y"}, {"url": "http://x/y", "timeout": "soon"},
     {"url": "http://x/y", "timeout": "0s"}, {"url": "http://x/y", "fail": "maybe"},
     {"url": "http://x/y", "chache": "1s"},
     {"url": "http://x/y", "name": "a|b"}, {"url": "http://x/y", "connections": 0}, {"url": "http://x/y z"}],
)  # fmt: skip
def test_options_that_are_wrong_are_told_at_the_start(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"plugins\.opa"):
        Opa(options, given.parts())


plain = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=5)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.sampled_from(["result", "allow", "deny", "set", "reason", "temperature"]), inner),
    ),
    max_leaves=8,
)


@cases(plain)
def test_any_document_is_a_decision_or_a_value_error(answer: Any) -> None:
    try:
        decision = decision_of(answer)
    except ValueError:
        return
    assert type(decision.allow) is bool and decision.reason.isprintable()
    if decision.allow:
        result = answer["result"]
        assert result is True or (not result.get("deny") and result.get("allow", True) is True)
