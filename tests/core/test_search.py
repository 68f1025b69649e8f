"""The usage of JSON that is too long to be held: found wherever it stands, however it is cut."""

from __future__ import annotations

import json
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core import search
from gateway.core.search import TAIL, Search
from gateway.core.usage import from_openai

USAGE = {"prompt_tokens": 11, "completion_tokens": 7}
OTHER = {"prompt_tokens": 900, "completion_tokens": 900}
TEXT = 'a "usage": {"prompt_tokens": 1, "completion_tokens": 1} \\" { [ '
FULL: dict[str, Any] = {"choices": [{"text": TEXT * 3000}, {"usage": OTHER, "pad": "x" * 3 * TAIL}]}
LOGS = {"prompt_logprobs": [{"1": {"logprob": -1.5, "rank": n}} for n in range(2000)]}


def found(body: bytes, size: int = 10_000, deep: int = 1) -> Any:
    looking = Search(deep)
    for at in range(0, len(body), size):
        looking.feed(body[at : at + size])
        assert len(looking._held) <= TAIL + size
    return looking.end()


@pytest.mark.parametrize("size", [333, 70_001, 1 << 24])
@pytest.mark.parametrize(
    "document",
    [
        {"usage": USAGE, **FULL},
        {**FULL, "usage": USAGE},
        {**FULL, "usage": USAGE, **LOGS},
        {"id": "x", "usage": USAGE, **FULL, "metadata": {"usage": OTHER}},
        {"metadata": {"usage": OTHER}, **FULL, "usage": USAGE, **LOGS},
    ],
)
def test_the_outermost_usage_is_found_wherever_it_stands(document: dict[str, Any], size: int) -> None:
    assert found(json.dumps(document).encode(), size) == from_openai(USAGE)


def test_that_of_an_inner_object_is_none() -> None:
    assert found(json.dumps(FULL).encode()) is None
    assert found(json.dumps({"response": {"usage": USAGE, **FULL}}).encode()) is None
    assert found(json.dumps({"response": {"usage": USAGE, **FULL}}).encode(), deep=2) == from_openai(USAGE)


def test_of_what_breaks_off_the_usage_so_far_stands() -> None:
    body = json.dumps({"usage": USAGE, **FULL}).encode()
    for end in (100, TAIL + 50, len(body) - 3 * TAIL, len(body) - 1):
        assert found(body[:end]) == from_openai(USAGE)


texts = st.sampled_from(['"', "\\", 'x"usage', '"usage":{', "}", "]", "{", "words", '\\"', ""])
values = st.recursive(
    texts,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(texts | st.just("usage"), inner | st.just(OTHER), max_size=3),
    ),
    max_leaves=12,
)


@given(st.lists(st.tuples(st.sampled_from("abcd"), values), max_size=4), st.integers(0, 4), st.data())
def test_cut_anywhere_it_is_what_a_parser_finds(
    members: list[tuple[str, Any]], place: int, draw: st.DataObject
) -> None:
    members.insert(place, ("usage", USAGE))
    body = json.dumps(dict(members)).encode()
    points = sorted(draw.draw(st.lists(st.integers(0, len(body)), max_size=6)))
    with patch.object(search, "TAIL", 80):
        looking = Search()
        for start, end in zip([0, *points], [*points, len(body)], strict=True):
            looking.feed(body[start:end])
        assert looking.end() == from_openai(USAGE)
