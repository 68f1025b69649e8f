"""Which calls are captured, and what of them goes along."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.call import Call
from gateway.core.capture import BEYOND, MOST, chosen, conversation, cut, document, generated
from gateway.core.group import Capture


def call(value: Any) -> Call:
    made = Call("POST", "/chat/completions", "chat/completions", [], b"")
    made.document = value
    return made


def test_nothing_is_in_a_sample_of_nothing_and_everything_in_one_of_all() -> None:
    ids = [f"req_{number}" for number in range(200)]
    assert not any(chosen(Capture(), id) for id in ids)
    assert all(chosen(Capture(sample=1.0), id) for id in ids)


def test_a_sample_is_about_its_share_and_the_same_each_time() -> None:
    ids = [f"req_{number:032x}" for number in range(4000)]
    found = [id for id in ids if chosen(Capture(sample=0.25), id)]
    assert 800 < len(found) < 1200
    assert found == [id for id in ids if chosen(Capture(sample=0.25), id)]
    assert set(found) <= {id for id in ids if chosen(Capture(sample=0.5), id)}


def test_a_conversation_is_told_message_by_message() -> None:
    messages = [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": [{"type": "text", "text": "what is"}, {"type": "text", "text": "this?"}]},
        {
            "role": "user",
            "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}],
        },
        "odd",
        {"content": "no role"},
    ]
    told = conversation({"messages": messages}, 1000)
    assert told == "[system] be brief\n[user] what is\nthis?\n[user] \nodd\nno role"
    assert conversation({"input": "embed me"}, 1000) == "embed me"
    assert conversation(None, 1000) == conversation([], 1000) == ""


@pytest.mark.parametrize("system", ["be brief", [{"type": "text", "text": "be brief"}]])
def test_a_system_prompt_beside_the_messages_comes_before_them(system: Any) -> None:
    asked = {"system": system, "messages": [{"role": "user", "content": "what is this?"}]}
    assert conversation(asked, 1000) == "[system] be brief\n[user] what is this?"
    assert conversation({**asked, "system": None}, 1000) == "[user] what is this?"


@given(st.text(), st.integers(0, 50))
def test_a_cut_is_a_beginning_in_whole_characters(text: str, most: int) -> None:
    text = text.encode("utf-8", "replace").decode()
    short = cut(text, most)
    assert len(short.encode()) <= most or short == text
    assert text.startswith(short)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ({"choices": [{"message": {"content": "one"}}, {"message": {"content": "two"}}]}, ["one", "two"]),
        ({"choices": [{"text": "old"}]}, ["old"]),
        ({"output": [{"content": [{"type": "output_text", "text": "new"}]}]}, ["new"]),
        ({"choices": [{"message": {"tool_calls": [{"function": {"arguments": "{}"}}]}}]}, ["{}"]),
        (
            {
                "content": [
                    {"type": "thinking", "thinking": "hm", "signature": "c2ln"},
                    {"type": "text", "text": "Here"},
                    {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {"city": "Ulm", "days": 3}},
                ]
            },
            ["hm", "Here", "Ulm\n3"],
        ),
        ({"data": [{"embedding": [1]}]}, []),
    ],
)
def test_what_a_model_wrote_is_found_in_order(answer: dict[str, Any], said: list[str]) -> None:
    assert generated(answer) == said


def test_what_goes_along_is_bounded_whatever_was_asked_for() -> None:
    long = "x" * (2 * MOST)
    answer = json.dumps({"choices": [{"message": {"content": long}}]}).encode()
    for kind in ({"answer": answer, "text": b""}, {"answer": b"", "text": long.encode()}):
        found = document(
            call({"messages": [{"role": "user", "content": long}]}), Capture(1.0, most=1 << 40), **kind
        )
        assert len(found["prompt"]) == len(found["response"]) == MOST + BEYOND
        assert found["most"] == MOST


def test_an_answer_that_is_no_json_leaves_nothing() -> None:
    assert document(call({}), Capture(1.0), b"<html>", b"")["response"] == ""
    assert document(call({}), Capture(1.0), b"[1]", b"")["response"] == ""
