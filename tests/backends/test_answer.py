"""The usage of a whole answer: found from its end as in the whole of it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.backends.base.answer import measure
from gateway.core.usage import ESTIMATED, NONE, PROVIDER, Usage, from_openai
from tests.stages.given import call

USAGE = {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18}
OTHER = {"prompt_tokens": 900, "completion_tokens": 900, "total_tokens": 1800}
CONTENT = {"id": "x", "choices": [{"index": 0, "message": {"content": "hi"}}]}


def measured(body: bytes) -> Usage:
    made = call(document={"model": "m", "messages": [{"role": "user", "content": "hi"}]})
    made.body = b"{}"
    measure(made, body, b"")
    return made.usage


def member(name: str) -> st.SearchStrategy[tuple[str, Any]]:
    return st.tuples(st.just(name), values)


usages = st.sampled_from([USAGE, OTHER, None, {}, [], "usage", {"prompt_tokens": "7"}, {"input_tokens": 3}])
values = st.recursive(
    st.one_of(
        st.none(), st.integers(-9, 9), st.text(max_size=6), st.sampled_from(['"usage":{}', "usage", "}", '"'])
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.one_of(st.text(max_size=4), st.just("usage")), inner | usages, max_size=3),
    ),
    max_leaves=8,
)
documents = st.dictionaries(
    st.sampled_from(["id", "choices", "usage", "model", "metadata"]), values | usages, max_size=5
)


@given(documents, st.sampled_from([None, 1]), st.booleans())
def test_what_is_found_from_the_end_is_what_the_whole_says(
    document: Any, indent: int | None, ascii: bool
) -> None:
    found = measured(json.dumps(document, indent=indent, ensure_ascii=ascii).encode("utf-8", "replace"))
    stated = from_openai(document.get("usage"))
    if stated is None:
        assert found.source == ESTIMATED
    elif stated.output_total or found.source == PROVIDER:
        assert found == stated
    else:
        assert found.input == stated.input or not stated.input_total


@pytest.mark.parametrize(
    "body",
    [
        {**CONTENT, "usage": USAGE},
        {**CONTENT, "usage": USAGE, "system_fingerprint": None},
        {"usage": USAGE, **CONTENT},
        {"usage": USAGE, **CONTENT, "metadata": {"usage": OTHER}},
        {**CONTENT, "usage": USAGE, "metadata": {"usage": OTHER}},
        {**CONTENT, "usage": USAGE, "output": [{"usage": OTHER}]},
        {
            "choices": [{"message": {"content": '"usage":{"prompt_tokens":1}'}}],
            "usage": USAGE,
            "user": '"usage"',
        },
        {**CONTENT, "usage": USAGE, "padding": "x" * 8000},
    ],
)
def test_only_the_outermost_usage_counts(body: dict[str, Any]) -> None:
    assert measured(json.dumps(body).encode()) == from_openai(USAGE)


def test_what_is_no_object_has_no_usage() -> None:
    assert measured(b'[{"usage":{"prompt_tokens":1,"completion_tokens":1}}]').source == NONE


@pytest.mark.parametrize(
    "body",
    [
        b'{"choices":[NaN,%b],"usage":{"prompt_tokens":11,"completion_tokens":7},"user":NaN}'
        % (b"[" * 2000 + b"]" * 2000),
        b'{"choices":[{"usage":{"prompt_tokens":11,"completion_tokens":7}}]',
    ],
)
def test_of_what_is_no_whole_json_the_last_usage_counts(body: bytes) -> None:
    assert measured(body) == from_openai(USAGE)


def test_the_last_of_two_usages_counts_as_for_whoever_parses_it() -> None:
    body = b'{"usage":%b,"id":1,"usage":%b}' % (json.dumps(OTHER).encode(), json.dumps(USAGE).encode())
    assert measured(body) == from_openai(USAGE)
    assert measured(body).source == PROVIDER


@pytest.mark.parametrize("size", [1, 40_000])
def test_a_whole_message_has_its_cached_tokens_beside_its_input(size: int) -> None:
    stated = {"input_tokens": 9, "cache_read_input_tokens": 50, "cache_creation_input_tokens": 20}
    answer = {
        "type": "message",
        "content": [{"type": "text", "text": "x" * size}],
        "usage": {**stated, "output_tokens": 7, "server_tool_use": {"web_search_requests": 0}},
    }
    expected = Usage(input=9, cached_input=50, cache_write=20, output=7, source=PROVIDER)
    assert measured(json.dumps(answer).encode()) == expected
    assert measured(json.dumps({**answer, "stop_reason": "end_turn"}).encode()) == expected


@pytest.mark.parametrize("pad", [0, 40_000])
@pytest.mark.parametrize("usage", [{"prompt_tokens": 77, "completion_tokens": 0}, {"prompt_tokens": 77}])
def test_a_whole_answer_with_text_but_no_tokens_of_it_is_charged_by_its_text(
    usage: dict[str, int], pad: int
) -> None:
    said = {"choices": [{"message": {"content": "word " * 100}}], "usage": usage, "padding": "x" * pad}
    found = measured(json.dumps(said).encode())
    assert (found.input, found.source) == (77, ESTIMATED)
    assert 100 <= found.output <= 150


def test_of_a_usage_of_zeros_the_prompt_is_estimated_too() -> None:
    said = {**CONTENT, "usage": {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}}
    found = measured(json.dumps(said).encode())
    assert found.source == ESTIMATED
    assert found.input > 0 < found.output


def test_an_answer_without_text_has_the_tokens_that_are_stated() -> None:
    said = {"choices": [{"message": {"content": ""}}], "usage": {"prompt_tokens": 77, "completion_tokens": 0}}
    assert measured(json.dumps(said).encode()) == Usage(input=77, source=PROVIDER)


def test_a_response_that_is_made_has_the_usage_it_states_whatever_its_status() -> None:
    said = {"status": "in_progress", "usage": {"input_tokens": 5, "output_tokens": 6}}
    assert measured(json.dumps(said).encode()) == Usage(input=5, output=6, source=PROVIDER)
