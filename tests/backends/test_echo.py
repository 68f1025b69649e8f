"""The echo backend: OpenAI's shapes, as the official SDK reads them, and what it says about itself."""

from __future__ import annotations

import asyncio
import base64
import json
import struct
from typing import Any

import pytest
from openai.types import Completion, CreateEmbeddingResponse, Model, ModerationCreateResponse
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.responses import Response
from openai.types.responses.response_stream_event import ResponseStreamEvent
from pydantic import TypeAdapter

from gateway import registry
from gateway.core.errors import CallerError
from gateway.core.reply import Reply
from gateway.core.route import Target
from gateway.core.usage import PROVIDER
from gateway.settings.schema import BackendSettings
from tests.backends.given import Basket, call, whole

SAID = "Penstock echo: no provider is configured. You said: Hello there"
CHAT = {"model": "m", "messages": [{"role": "user", "content": "Hello there"}]}


def ask(made: Any, target: Target | None = None) -> tuple[Reply, bytes]:
    async def scenario() -> tuple[Reply, bytes]:
        reply = await registry.backend(BackendSettings("echo", "echo")).ask(made, target or Target("echo"))
        return reply, await whole(reply)

    return asyncio.run(scenario())


def events(body: bytes) -> list[Any]:
    frames = [frame for frame in body.decode().split("\n\n") if frame]
    return [json.loads(data) for frame in frames if (data := frame.partition("data: ")[2]) != "[DONE]"]


def strict(model: Any, value: Any) -> Any:
    return TypeAdapter(model).validate_python(value)


def test_a_chat_completion_says_what_it_is_and_what_was_said() -> None:
    made = call(value=CHAT)
    _, body = ask(made)
    answer = strict(ChatCompletion, json.loads(body))
    assert answer.choices[0].message.content == SAID
    assert answer.choices[0].finish_reason == "stop"
    assert made.usage.source == PROVIDER
    assert made.usage.total == answer.usage.total_tokens > 0
    assert made.sent and made.first_byte


def test_the_same_call_always_uses_the_same() -> None:
    one, two = call(value=CHAT), call(value=CHAT)
    ask(one)
    ask(two)
    assert one.usage == two.usage


@pytest.mark.parametrize(
    ("content", "heard"),
    [
        ([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}], "b"),
        (None, ""),
        (17, ""),
        ([], ""),
    ],
)
def test_any_content_is_answered(content: Any, heard: str) -> None:
    _, body = ask(call(value={"model": "m", "messages": [{"role": "user", "content": content}]}))
    assert json.loads(body)["choices"][0]["message"]["content"].endswith(f"You said: {heard}")


@pytest.mark.parametrize("asked", [False, True])
def test_a_stream_has_its_usage_only_when_it_was_asked_for(asked: bool) -> None:
    value: dict[str, Any] = {**CHAT, "stream": True}
    if asked:
        value["stream_options"] = {"include_usage": True}
    reply, body = ask(call(value=value))
    chunks = [strict(ChatCompletionChunk, chunk) for chunk in events(body)]
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == SAID
    assert all(chunk.id.startswith("chatcmpl-") for chunk in chunks)  # as a whole answer's
    assert (chunks[-1].usage is not None) == asked
    assert body.endswith(b"data: [DONE]\n\n")
    assert reply.tap is not None and reply.tap.usage is not None  # type: ignore[attr-defined]
    assert reply.source is not None and reply.source.done_at  # type: ignore[attr-defined]


def test_the_older_completions_answer_too() -> None:
    value = {"model": "m", "prompt": "Hello there"}
    assert strict(Completion, json.loads(ask(call("/completions", value))[1])).choices[0].text == SAID
    chunks = events(ask(call("/completions", {**value, "stream": True}))[1])
    assert "".join(chunk["choices"][0]["text"] for chunk in chunks) == SAID


@pytest.mark.parametrize(
    "asked", ["Hello there", [{"role": "user", "content": [{"type": "input_text", "text": "Hello there"}]}]]
)
def test_a_response_answers_whole_and_in_events(asked: Any) -> None:
    value = {"model": "m", "input": asked}
    made = call("/responses", value)
    answer = strict(Response, json.loads(ask(made)[1]))
    assert answer.output_text == SAID
    assert made.usage.total == answer.usage.total_tokens
    reply, body = ask(call("/responses", {**value, "stream": True}))
    told = [strict(ResponseStreamEvent, event) for event in events(body)]
    assert [event.sequence_number for event in told] == list(range(len(told)))
    assert "".join(event.delta for event in told if event.type == "response.output_text.delta") == SAID
    assert told[-1].type == "response.completed" and told[-1].response.output_text == SAID
    assert reply.tap is not None and reply.tap.usage.total == made.usage.total  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("given_", "count"), [("a", 1), (["a", "b", "a"], 3), ([1, 2, 3], 1), ([[1], [2]], 2), ([], 0)]
)
def test_embeddings_are_small_unit_vectors_the_same_for_the_same_input(given_: Any, count: int) -> None:
    _, body = ask(call("/embeddings", {"model": "m", "input": given_}))
    answer = strict(CreateEmbeddingResponse, json.loads(body))
    assert len(answer.data) == count
    assert all(abs(sum(x * x for x in item.embedding) - 1) < 1e-6 for item in answer.data)
    if given_ == ["a", "b", "a"]:
        assert answer.data[0].embedding == answer.data[2].embedding != answer.data[1].embedding


def test_embeddings_come_in_base64_where_that_is_asked_for() -> None:
    value = {"model": "m", "input": "a", "dimensions": 5}
    plain = json.loads(ask(call("/embeddings", value))[1])["data"][0]["embedding"]
    coded = json.loads(ask(call("/embeddings", {**value, "encoding_format": "base64"}))[1])["data"][0][
        "embedding"
    ]
    assert struct.unpack("<5f", base64.b64decode(coded)) == pytest.approx(plain)


def test_a_moderation_finds_nothing_and_a_model_is_described() -> None:
    _, body = ask(call("/moderations", {"model": "m", "input": ["a", "b"]}))
    assert [result.flagged for result in strict(ModerationCreateResponse, json.loads(body)).results] == [
        False,
        False,
    ]
    _, body = ask(call("/models/any%2Fname", method="GET", endpoint="models"))
    assert strict(Model, json.loads(body)).id == "any/name"


@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "/images/generations"), ("GET", "/files"), ("GET", "/chat/completions"), ("POST", "/x")],
)
def test_what_it_cannot_do_is_a_404_that_says_so(method: str, path: str) -> None:
    with pytest.raises(CallerError, match="Penstock echo") as caught:
        ask(call(path, CHAT if method == "POST" else None, method=method))
    assert caught.value.status == 404


def test_a_targets_model_is_the_one_that_answers() -> None:
    assert json.loads(ask(call(value=CHAT), Target("echo", "other"))[1])["model"] == "other"


def test_a_paused_stream_waits() -> None:
    async def scenario() -> None:
        reply = await registry.backend(BackendSettings("echo", "echo")).ask(
            call(value={**CHAT, "stream": True}), Target("echo")
        )
        source, basket = reply.source, Basket()
        assert source is not None
        source.pause()
        piping = asyncio.create_task(source.pipe(basket))
        for _ in range(10):
            await asyncio.sleep(0)
        assert basket.data == b""
        source.resume()
        await piping
        assert basket.data.endswith(b"[DONE]\n\n")

    asyncio.run(scenario())


def test_a_closed_stream_ends() -> None:
    async def scenario() -> None:
        reply = await registry.backend(BackendSettings("echo", "echo")).ask(
            call(value={**CHAT, "stream": True}), Target("echo")
        )
        assert reply.source is not None
        assert await reply.source.read()
        reply.source.close()
        assert await reply.source.read() == b""

    asyncio.run(scenario())
