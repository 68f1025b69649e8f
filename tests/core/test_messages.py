"""Streams of messages: usage from both ends of them, and the text in between."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.messages import MessagesTap
from gateway.core.usage import PROVIDER, UNKNOWN, Usage

PROMPT = {"input_tokens": 300, "cache_read_input_tokens": 50, "cache_creation_input_tokens": 20}
SEEN = Usage(input=300, cached_input=50, cache_write=20, output=7, source=PROVIDER)


def event(kind: str, **rest: Any) -> bytes:
    document = {"type": kind, **rest}
    return f"event: {kind}\ndata: {json.dumps(document, ensure_ascii=False)}\n\n".encode()


def start(**usage: Any) -> bytes:
    message = {"id": "msg_1", "type": "message", "role": "assistant", "content": [], "stop_reason": None}
    return event("message_start", message={**message, "usage": usage or {**PROMPT, "output_tokens": 1}})


def delta(kind: str, name: str, text: str) -> bytes:
    return event("content_block_delta", index=0, delta={"type": kind, name: text})


def said(text: str) -> bytes:
    return delta("text_delta", "text", text)


def end(**usage: Any) -> bytes:
    return event("message_delta", delta={"stop_reason": "end_turn", "stop_sequence": None}, usage=usage)


BLOCK = event("content_block_start", index=0, content_block={"type": "text", "text": ""})
PING, STOP = event("ping"), event("content_block_stop", index=0) + event("message_stop")
STREAM = start() + BLOCK + PING + said("Grüße, ") + said('"usage"') + end(output_tokens=7) + STOP


def fed(*pieces: bytes) -> MessagesTap:
    tap = MessagesTap()
    for piece in pieces:
        assert tap.feed(piece) is piece
    assert tap.finish() == b""
    return tap


# -- usage


def test_cut_at_any_byte_the_usage_and_the_text_are_the_same() -> None:
    for at in range(len(STREAM) + 1):
        tap = fed(STREAM[:at], STREAM[at:])
        assert tap.usage == SEEN
        assert tap.text.decode() == 'Grüße, "usage"'
        assert tap.done and tap.finished and not tap.error


@given(st.lists(st.integers(0, len(STREAM)), max_size=12))
def test_cut_anywhere_they_are_the_same(points: list[int]) -> None:
    tap = fed(*[STREAM[a:b] for a, b in itertools.pairwise([0, *sorted(points), len(STREAM)])])
    assert (tap.usage, tap.text.decode()) == (SEEN, 'Grüße, "usage"')


@pytest.mark.parametrize(
    ("begun", "ended"),
    [
        ({**PROMPT, "output_tokens": 1}, {"output_tokens": 7}),
        ({**PROMPT, "output_tokens": 1}, {**PROMPT, "output_tokens": 7}),
        ({**PROMPT, "output_tokens": 1}, {"input_tokens": 300, "output_tokens": 7}),
        ({**PROMPT, "output_tokens": 1}, {"input_tokens": 0, "output_tokens": 7}),
        ({**PROMPT, "output_tokens": 1}, {"input_tokens": None, "output_tokens": 7}),
        ({"input_tokens": 0, "output_tokens": 0}, {**PROMPT, "output_tokens": 7}),
        ({"input_tokens": 370, "output_tokens": 0}, {**PROMPT, "output_tokens": 7}),
        ({"input_tokens": "many"}, {**PROMPT, "output_tokens": 7}),
    ],
)
def test_what_is_told_at_the_end_joins_what_was_told_at_the_beginning(
    begun: dict[str, Any], ended: dict[str, Any]
) -> None:
    assert fed(start(**begun), BLOCK, said("Hello"), end(**ended), STOP).usage == SEEN


def test_of_several_figures_for_the_answer_the_last_stands() -> None:
    assert fed(start(), said("Hel"), end(output_tokens=3), said("lo"), end(output_tokens=7)).usage == SEEN


def test_until_the_answer_is_told_there_is_only_the_prompt() -> None:
    tap = fed(start(), BLOCK, said("Hel"), said("lo"))
    assert tap.usage == Usage(input=300, cached_input=50, cache_write=20, output=1, source=UNKNOWN)
    assert (tap.text, tap.done, tap.finished) == (b"Hello", False, False)


@pytest.mark.parametrize(
    "ended",
    [{}, {"output_tokens": 0}, {"output_tokens": None}, {"output_tokens": "7"}, {"input_tokens": 300}],
)
def test_an_end_that_says_nothing_of_the_text_that_came_is_no_figure(ended: dict[str, Any]) -> None:
    tap = fed(start(), BLOCK, said("Hello"), end(**ended), STOP)
    assert tap.usage is not None and tap.usage.source == UNKNOWN
    assert (tap.usage.input_total, tap.text, tap.done) == (370, b"Hello", True)


def test_an_answer_of_nothing_has_no_tokens() -> None:
    assert fed(start(), end(output_tokens=0), STOP).usage == Usage(300, 50, 20, source=PROVIDER)


def test_a_prompt_that_nobody_tells_is_not_nothing() -> None:
    tap = fed(start(input_tokens=0, output_tokens=0), said("Hello"), end(output_tokens=7), STOP)
    assert tap.usage == Usage(output=7, source=UNKNOWN)


def test_without_any_usage_there_is_none() -> None:
    bare = event("message_start", message={"id": "msg_1", "usage": None})
    tap = fed(bare, said("Hello"), event("message_delta", delta={"stop_reason": "end_turn"}), STOP)
    assert (tap.usage, tap.text, tap.done) == (None, b"Hello", True)


def test_a_tool_that_is_given_a_usage_is_no_usage() -> None:
    asked = {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {"usage": {"input_tokens": 9}}}
    block = event("content_block_start", index=1, content_block=asked)
    assert fed(start(), block, end(output_tokens=7), STOP).usage == SEEN


# -- text


def test_all_that_was_generated_is_kept_as_text() -> None:
    searched = {"type": "mcp_tool_result", "content": [{"type": "text", "text": "found, not made"}]}
    tap = fed(
        start(),
        event("content_block_start", index=0, content_block={"type": "thinking", "thinking": ""}),
        delta("thinking_delta", "thinking", "think "),
        delta("signature_delta", "signature", "c2lnbmF0dXJl"),
        event("content_block_start", index=1, content_block=searched),
        event("content_block_start", index=2, content_block={"type": "text", "text": "first "}),
        said('say "hi"\n'),
        event("content_block_delta", index=2, delta={"text": "other order ", "type": "text_delta"}),
        event(
            "content_block_delta",
            index=2,
            delta={"type": "citations_delta", "citation": {"cited_text": "quoted", "title": "t"}},
        ),
        delta("input_json_delta", "partial_json", '{"a": 1}'),
    )
    assert tap.text.decode() == 'think first say "hi"\nother order {"a": 1}'


def test_whoever_watches_is_told_of_the_text_although_the_prompt_is_known() -> None:
    told: list[tuple[int, Usage | None]] = []
    tap = MessagesTap()
    tap.watch(lambda text, usage: told.append((text, usage)))
    tap.feed(start())
    for _ in range(100):
        tap.feed(said("word "))
    text, usage = told[-1]
    assert text >= 400
    assert usage is not None and (usage.input, usage.output, usage.source) == (300, 1, UNKNOWN)


@pytest.mark.parametrize(
    "piece",
    [
        said("a"),
        delta("thinking_delta", "thinking", "hm"),
        delta("input_json_delta", "partial_json", "{"),
        event("content_block_start", index=0, content_block={"type": "tool_use", "name": "f", "input": {}}),
    ],
)
def test_the_first_token_is_the_first_content(piece: bytes) -> None:
    tap = MessagesTap(clock=lambda: 3.0)
    for before in (start(), BLOCK, PING, delta("text_delta", "text", "")):
        tap.feed(before)
        assert tap.first_token == 0.0
    tap.feed(piece)
    assert tap.first_token == 3.0


# -- its end


def test_an_error_told_inside_the_stream_is_seen() -> None:
    error = event("error", error={"type": "overloaded_error", "message": "Overloaded"})
    assert fed(start(), said("a"), error).error
    assert not fed(start(), said('"type":"error" in words'), end(output_tokens=3), STOP).error


def test_words_about_an_end_are_none() -> None:
    tap = fed(start(), said('{"type":"message_stop","stop_reason":"end_turn"}'))
    assert not tap.done and not tap.finished
