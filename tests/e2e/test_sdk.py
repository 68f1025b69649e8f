"""The official OpenAI SDK through the gateway: every kind of call it is used for."""

from __future__ import annotations

import asyncio
from typing import Any

import openai
import pytest
from pydantic import BaseModel

from tests.e2e.gateway import PROVIDER_KEY, Gateway
from tests.e2e.provider import Provider

QUESTION: list[Any] = [{"role": "user", "content": "Grüße, wie geht's?"}]
WEATHER: list[Any] = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
        },
    }
]
SAID = "Grüße , the quick brown fox 🦊 jumps over 十二 lazy dogs"


@pytest.fixture
def client(gateway: Gateway) -> Any:
    with gateway.client() as client:
        yield client


def direct(provider: Provider) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{provider.url}/v1", api_key=PROVIDER_KEY, max_retries=0)


class Person(BaseModel):
    name: str
    age: int
    tags: list[str]


def test_a_chat_completion_says_the_same_as_the_provider(client: openai.OpenAI, provider: Provider) -> None:
    through = client.chat.completions.create(model="gpt-4o-mini", messages=QUESTION)
    with direct(provider) as straight:
        assert through == straight.chat.completions.create(model="gpt-4o-mini", messages=QUESTION)


@pytest.mark.parametrize("asked", [False, True])
def test_a_stream_has_the_chunks_the_provider_would_have_sent(
    client: openai.OpenAI, provider: Provider, asked: bool
) -> None:
    options: dict[str, Any] = {"stream_options": {"include_usage": True}} if asked else {}
    through = list(client.chat.completions.create(model="gpt-4o", messages=QUESTION, stream=True, **options))
    with direct(provider) as straight:
        expected = list(
            straight.chat.completions.create(model="gpt-4o", messages=QUESTION, stream=True, **options)
        )
    assert [one.choices for one in through] == [one.choices for one in expected]
    assert [one.usage for one in through] == [one.usage for one in expected]
    assert (through[-1].usage is not None) == asked


def test_asynchronous_calls_and_streams_run_side_by_side(gateway: Gateway) -> None:
    async def one(client: openai.AsyncOpenAI, stream: bool) -> str:
        if not stream:
            whole = await client.chat.completions.create(model="gpt-4o-mini", messages=QUESTION)
            return whole.choices[0].message.content or ""
        pieces = await client.chat.completions.create(model="gpt-4o-mini", messages=QUESTION, stream=True)
        return "".join([piece.choices[0].delta.content or "" async for piece in pieces])

    async def scenario() -> list[str]:
        async with gateway.async_client() as client:
            return await asyncio.gather(*(one(client, number % 2 == 0) for number in range(40)))

    assert asyncio.run(scenario()) == [SAID] * 40


def test_tools_are_called_and_their_results_taken(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model="gpt-4o", messages=QUESTION, tools=WEATHER)
    message = answer.choices[0].message
    assert message.tool_calls and message.tool_calls[0].type == "function"
    assert message.tool_calls[0].function.arguments == '{"city": "forty-two"}'
    result = {"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": "sunny"}
    history: list[Any] = [*QUESTION, message.model_dump(exclude_none=True), result]
    after = client.chat.completions.create(model="gpt-4o", messages=history, tools=WEATHER)
    assert after.choices[0].message.content == SAID


def test_streamed_tool_calls_add_up(client: openai.OpenAI) -> None:
    with client.chat.completions.stream(model="gpt-4o", messages=QUESTION, tools=WEATHER) as stream:
        final = stream.get_final_completion()
    calls = final.choices[0].message.tool_calls
    assert calls and calls[0].function.arguments == '{"city": "forty-two"}'
    assert final.choices[0].finish_reason == "tool_calls"


def test_structured_output_is_parsed_into_the_callers_type(client: openai.OpenAI) -> None:
    answer = client.chat.completions.parse(model="gpt-4o", messages=QUESTION, response_format=Person)
    assert answer.choices[0].message.parsed == Person(name="forty-two", age=7, tags=["forty-two"])


def test_images_in_the_content_arrive_as_they_were(client: openai.OpenAI, provider: Provider) -> None:
    picture = "data:image/png;base64," + "iVBORw0KGgo=" * 2000 + "image-mark"
    content = [{"type": "text", "text": "what?"}, {"type": "image_url", "image_url": {"url": picture}}]
    messages: list[Any] = [{"role": "user", "content": content}]
    assert client.chat.completions.create(model="gpt-4o", messages=messages).choices[0].message.content
    assert provider.only("image-mark").json()["messages"] == messages


def test_completions_and_their_stream(client: openai.OpenAI) -> None:
    whole = client.completions.create(model="gpt-3.5-turbo-instruct", prompt="Say")
    pieces = client.completions.create(model="gpt-3.5-turbo-instruct", prompt="Say", stream=True)
    assert (
        "".join(piece.choices[0].text for piece in pieces if piece.choices) == whole.choices[0].text == SAID
    )


@pytest.mark.parametrize("encoding", ["float", "base64"])
def test_embeddings_in_both_encodings(client: openai.OpenAI, encoding: Any) -> None:
    made = client.embeddings.create(
        model="text-embedding-3-small", input=["a", "b"], dimensions=4, encoding_format=encoding
    )
    vectors = [one.embedding for one in made.data]
    if encoding == "float":
        assert vectors == [[0.0, 0.0625, 0.125, 0.1875], [0.0625, 0.125, 0.1875, 0.25]]
    assert made.usage.prompt_tokens > 0


def test_responses_whole_and_streamed(client: openai.OpenAI) -> None:
    whole = client.responses.create(model="gpt-4o", input="hey")
    with client.responses.stream(model="gpt-4o", input="hey") as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_response()
    assert final.output_text == whole.output_text == SAID
    assert kinds[0] == "response.created" and kinds[-1] == "response.completed"
    assert final.usage == whole.usage
    assert client.responses.retrieve("resp_7").id == "resp_7"


def test_responses_parse_structured_output(client: openai.OpenAI) -> None:
    answer = client.responses.parse(model="gpt-4o", input="who?", text_format=Person)
    assert answer.output_parsed == Person(name="forty-two", age=7, tags=["forty-two"])


def test_files_come_back_byte_for_byte(client: openai.OpenAI) -> None:
    data = bytes(range(256)) * 5000 + b"\r\n--not-the-boundary\r\n"
    made = client.files.create(file=("späße.bin", data), purpose="batch")
    assert made.bytes == len(data)
    assert client.files.content(made.id).content == data
    assert made.id in [one.id for one in client.files.list().data]
    assert client.files.retrieve(made.id) == made
    assert client.files.delete(made.id).deleted
    with pytest.raises(openai.NotFoundError):
        client.files.retrieve(made.id)


def test_batches_are_made_read_listed_and_cancelled(client: openai.OpenAI) -> None:
    made = client.batches.create(
        completion_window="24h", endpoint="/v1/chat/completions", input_file_id="file-1", metadata={"a": "b"}
    )
    assert client.batches.retrieve(made.id) == made
    assert made.id in [one.id for one in client.batches.list().data]
    assert client.batches.cancel(made.id).status == "cancelling"


def test_audio_goes_up_as_a_form_and_comes_down_as_bytes(client: openai.OpenAI) -> None:
    sound = bytes(range(256)) * 64
    heard = client.audio.transcriptions.create(model="gpt-4o-transcribe", file=("a.wav", sound))
    assert heard.text == "Grüße , the quick brown fox 🦊 jumps"
    plain = client.audio.transcriptions.create(
        model="whisper-1", file=("a.wav", sound), response_format="text"
    )
    assert plain == heard.text + "\n"
    spoken = client.audio.speech.create(model="tts-1", voice="alloy", input="hey")
    assert spoken.content == bytes(range(256)) * 16
    with client.audio.speech.with_streaming_response.create(
        model="tts-1", voice="alloy", input="hey"
    ) as down:
        assert b"".join(down.iter_bytes()) == spoken.content


def test_moderations_and_images(client: openai.OpenAI) -> None:
    assert client.moderations.create(input="hello").results[0].flagged is False
    drawn = client.images.generate(model="gpt-image-1", prompt="a fox", n=2)
    assert drawn.data and len(drawn.data) == 2
    edited = client.images.edit(model="gpt-image-1", image=("a.png", b"\x89PNG"), prompt="red")
    assert edited.data and edited.data[0].b64_json


def test_models_are_those_of_the_configuration_and_of_the_backends(client: openai.OpenAI) -> None:
    names = {model.id for model in client.models.list().data}
    assert {"renamed", "via-azure", "saved"} <= names  # from the configuration
    assert {"gpt-4o-mini", "whisper-1"} <= names  # from the backend behind "*"
    assert not any("*" in name for name in names)


def test_the_azure_client_works_against_the_plain_addresses(gateway: Gateway, provider: Provider) -> None:
    with gateway.client() as client:
        answer = client.chat.completions.create(
            model="via-azure", messages=[{"role": "user", "content": "azure-mark"}]
        )
    assert answer.choices[0].message.content == SAID
    arrived = provider.only("azure-mark")
    assert arrived.target == "/openai/deployments/my-deployment/chat/completions?api-version=2024-10-21"
    assert arrived.header("api-key") == PROVIDER_KEY
    assert arrived.header("authorization") is None


def test_paths_nobody_knows_pass_through(client: openai.OpenAI, provider: Provider) -> None:
    answer: Any = client.post("/fine_tuning/jobs?unknown-mark=1", body={"any": "thing"}, cast_to=object)
    assert answer["target"] == "/v1/fine_tuning/jobs?unknown-mark=1"
    assert provider.only("unknown-mark").header("authorization") == f"Bearer {PROVIDER_KEY}"


def test_both_prefixes_reach_the_same_place(gateway: Gateway) -> None:
    document = {"model": "gpt-4o-mini", "messages": QUESTION}
    with_prefix, without = (
        gateway.post(document, path=path) for path in ("/v1/chat/completions", "/chat/completions")
    )
    assert with_prefix[0] == without[0] == 200
    assert with_prefix[2] == without[2]
