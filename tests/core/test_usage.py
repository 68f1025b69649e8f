"""Usage: disjoint kinds whose sum is the provider's total, and nothing invented."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.usage import PROVIDER, Usage, from_openai
from gateway.stores.base.columns import MOST

counts = st.integers(min_value=0, max_value=10**9)
junk = st.one_of(st.none(), st.integers(), st.floats(), st.text(max_size=5), st.booleans())


def test_chat_usage_is_split_into_disjoint_kinds() -> None:
    usage = from_openai(
        {
            "prompt_tokens": 100,
            "completion_tokens": 50,
            "prompt_tokens_details": {"cached_tokens": 60, "audio_tokens": 10, "cache_write_tokens": 5},
            "completion_tokens_details": {"reasoning_tokens": 20, "audio_tokens": 5},
        }
    )
    assert usage == Usage(25, 60, 5, 10, 25, 20, 5, PROVIDER)
    assert (usage.input_total, usage.output_total, usage.total) == (100, 50, 150)


def test_responses_usage_is_read_likewise() -> None:
    usage = from_openai(
        {
            "input_tokens": 9,
            "input_tokens_details": {"cached_tokens": 4},
            "output_tokens": 7,
            "output_tokens_details": {"reasoning_tokens": 7},
            "total_tokens": 16,
        }
    )
    assert usage == Usage(5, 4, 0, 0, 0, 7, 0, PROVIDER)


def test_of_messages_what_is_cached_stands_beside_the_input() -> None:
    usage = from_openai(
        {
            "input_tokens": 9,
            "cache_read_input_tokens": 50,
            "cache_creation_input_tokens": 20,
            "cache_creation": {"ephemeral_5m_input_tokens": 20, "ephemeral_1h_input_tokens": 0},
            "output_tokens": 7,
            "service_tier": "standard",
        }
    )
    assert usage == Usage(input=9, cached_input=50, cache_write=20, output=7, source=PROVIDER)
    nothing = {"input_tokens": 9, "cache_read_input_tokens": None, "cache_creation_input_tokens": -1}
    assert from_openai(nothing) == Usage(input=9, source=PROVIDER)
    assert from_openai({"input_tokens": None, "cache_read_input_tokens": 5}) is None


@pytest.mark.parametrize("details", ["prompt_tokens", "input_tokens"])
def test_whoever_says_the_cached_part_twice_has_it_counted_once(details: str) -> None:
    raw = {details: 60, f"{details}_details": {"cached_tokens": 50}, "cache_read_input_tokens": 50}
    assert from_openai(raw) == Usage(input=10, cached_input=50, source=PROVIDER)


def test_embeddings_have_no_completion() -> None:
    assert from_openai({"prompt_tokens": 8, "total_tokens": 8}) == Usage(input=8, source=PROVIDER)


@pytest.mark.parametrize("raw", [None, [], "x", 3, {}, {"prompt_tokens": None}, {"prompt_tokens": 1.5}])
def test_what_is_no_usage_is_none(raw: Any) -> None:
    assert from_openai(raw) is None


def test_details_that_are_no_objects_are_ignored() -> None:
    raw = {
        "prompt_tokens": 3,
        "completion_tokens": 2,
        "prompt_tokens_details": [1],
        "completion_tokens_details": 4,
    }
    assert from_openai(raw) == Usage(input=3, output=2, source=PROVIDER)


@given(counts, counts, counts, counts, counts, counts)
def test_the_kinds_always_add_up_to_the_totals(
    prompt: int, completion: int, cached: int, heard: int, thought: int, spoken: int
) -> None:
    usage = from_openai(
        {
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "prompt_tokens_details": {"cached_tokens": cached, "audio_tokens": heard},
            "completion_tokens_details": {"reasoning_tokens": thought, "audio_tokens": spoken},
        }
    )
    assert usage is not None
    assert usage.input_total == prompt
    assert usage.output_total == completion
    assert min(usage.counts()) >= 0
    assert sum(usage.counts()) == usage.total


@given(
    st.dictionaries(
        st.sampled_from(["cached_tokens", "audio_tokens", "reasoning_tokens", "cache_write_tokens"]), junk
    ),
    counts,
)
def test_no_details_make_a_count_negative_or_raise(details: dict[str, Any], prompt: int) -> None:
    raw = {"prompt_tokens": prompt, "completion_tokens": prompt}
    usage = from_openai({**raw, "prompt_tokens_details": details, "completion_tokens_details": details})
    assert usage is not None
    assert min(usage.counts()) >= 0
    assert usage.total == 2 * prompt


@pytest.mark.parametrize("name", ["prompt_tokens", "completion_tokens"])
@pytest.mark.parametrize("count", [MOST + 1, -5, "7", True, 1.0])
def test_with_a_count_that_is_none_no_usage_is_stated(name: str, count: Any) -> None:
    stated = {"prompt_tokens": 3, "completion_tokens": 3, name: count}
    usage = from_openai(stated)
    assert usage is None
