"""What a call is charged whose provider stated no usage, before anybody has counted its texts."""

from __future__ import annotations

import json
from typing import Any, cast

import pytest

from gateway.backends.base.answer import measure
from gateway.core.codec import dumps
from gateway.core.messages import MessagesTap
from gateway.core.tap import ChatTap
from gateway.core.tokens import count
from gateway.core.usage import ESTIMATED, NONE, PROVIDER, UNKNOWN, Usage
from gateway.stages.meter import Meter
from tests.stages.given import call, parts

TEXTS = (
    "The quick brown fox jumps over the lazy dog. " * 40,
    ", ".join(str(7919 * n % 1000) for n in range(300)),
    "为什么天空是蓝色的？因为空气散射蓝光。" * 40,
    "def f(x):\n    return {'a': [x, x + 1], 'b': None}\n" * 40,
)

WORDS = b'data: {"choices":[{"delta":{"content":"%b"}}]}\n\n'


class Ended:
    """A source that has ended."""

    done_at = 1.0


class Journal:
    """Takes any record."""

    def end(self, slot: int, record: bytes) -> None:
        assert record


def charged(prompt: str, answer: str) -> Usage:
    given = parts()
    given.journal = cast(Any, Journal())
    document = {"model": "gpt-4o", "messages": [{"role": "user", "content": prompt}]}
    made = call(document=document)
    made.body = dumps(document)
    made.sent, made.status, made.outcome = 1.0, 200, "ok"
    made.memo["text"] = answer.encode()
    Meter({}, given).settle(made)
    return made.usage


@pytest.mark.parametrize("text", TEXTS)
def test_a_call_without_usage_is_charged_about_what_its_texts_count(text: str) -> None:
    usage, exact = charged(text, text), count("gpt-4o", text)
    assert usage.source == ESTIMATED
    assert 0.8 * exact <= usage.output <= 2 * exact
    assert 0.8 * exact <= usage.input <= 2 * exact + 20


def test_of_a_small_call_the_envelope_is_not_charged() -> None:
    assert charged("hi", "yes").input < 25


def chatted(tap: ChatTap, outcome: str = "truncated") -> Usage:
    given = parts()
    given.journal = cast(Any, Journal())
    made = call(document={"model": "gpt-4o", "messages": []})
    made.memo["source"], made.memo["tap"] = Ended(), tap
    made.usage, made.outcome = Usage(source=UNKNOWN), outcome
    Meter({}, given).settle(made)
    return made.usage


def test_a_stream_of_which_not_all_is_kept_is_charged_as_a_whole() -> None:
    tap = ChatTap()
    for _ in range(100):
        tap.feed(WORDS % (b"word " * 2000))
    assert 200_000 <= chatted(tap).output <= 300_000


@pytest.mark.parametrize("outcome", ["ok", "truncated", "client_gone"])
@pytest.mark.parametrize("words", [100, 10_000])
def test_a_stream_that_states_no_more_than_zeros_is_charged_by_its_text(words: int, outcome: str) -> None:
    tap = ChatTap()
    tap.feed(b'data: {"choices":[],"usage":{"prompt_tokens":77,"completion_tokens":0}}\n\n')
    for _ in range(words // 100):
        tap.feed(WORDS % (b"word " * 100))
    usage = chatted(tap, outcome)
    assert (usage.input, usage.source) == (77, ESTIMATED)
    assert words <= usage.output <= 1.5 * words


@pytest.mark.parametrize("outcome", ["ok", "client_gone"])
def test_a_count_that_can_be_true_stands_however_the_stream_ended(outcome: str) -> None:
    tap = ChatTap()
    tap.feed(WORDS % (b"word " * 100))
    tap.feed(b'data: {"choices":[],"usage":{"prompt_tokens":77,"completion_tokens":101}}\n\n')
    assert chatted(tap, outcome) == Usage(input=77, output=101, source=PROVIDER)


@pytest.mark.parametrize(
    ("code", "sent", "source"),
    [
        ("upstream_first_byte_timeout", 1.0, ESTIMATED),
        ("upstream_idle_timeout", 1.0, ESTIMATED),
        ("upstream_total_timeout", 1.0, ESTIMATED),
        ("upstream_total_timeout", 0.0, NONE),  # it was over before there was a connection
        ("upstream_closed", 1.0, NONE),
        ("upstream_error_status", 1.0, NONE),
    ],
)
def test_a_provider_that_was_given_up_has_the_prompt_and_one_that_fails_asks_nothing(
    code: str, sent: float, source: str
) -> None:
    given = parts()
    given.journal = cast(Any, Journal())
    document = {"model": "gpt-4o", "messages": [{"role": "user", "content": "hello there"}]}
    made = call(document=document)
    made.sent, made.status, made.outcome, made.code = sent, 504, "upstream_error", code
    Meter({}, given).settle(made)
    assert made.usage.source == source
    assert (made.usage.input > 0, made.usage.output) == (source == ESTIMATED, 0)


@pytest.mark.parametrize("text", TEXTS)
def test_a_whole_answer_without_usage_is_charged_likewise(text: str) -> None:
    document = {"model": "gpt-4o", "messages": [{"role": "user", "content": text}]}
    made = call(document=document)
    made.body = dumps(document)
    measure(made, dumps({"choices": [{"message": {"content": text}}]}), b"")
    assert made.usage == charged(text, text)


@pytest.mark.parametrize("outcome", ["client_gone", "truncated", "ok"])
def test_a_message_that_ends_before_its_usage_is_charged_its_prompt_as_told_and_its_text(
    outcome: str,
) -> None:
    tap = MessagesTap()
    begun = {"input_tokens": 300, "cache_read_input_tokens": 50, "output_tokens": 1}
    tap.feed(b"data: " + dumps({"type": "message_start", "message": {"usage": begun}}) + b"\n\n")
    for word in TEXTS[0].split(" "):
        delta = {"type": "text_delta", "text": word + " "}
        tap.feed(b"data: " + dumps({"type": "content_block_delta", "delta": delta}) + b"\n\n")
    usage, sealed = streamed(tap, outcome)
    exact = count("claude", TEXTS[0])
    assert (usage.source, usage.input, usage.cached_input) == (ESTIMATED, 300, 50)
    assert 0.8 * exact <= usage.output <= 2 * exact
    assert (sealed["prompt"], sealed["text"].strip()) == ("", TEXTS[0].strip())


def test_a_message_whose_prompt_nobody_told_has_it_estimated() -> None:
    tap = MessagesTap()
    tap.feed(b'data: {"type":"message_delta","usage":{"output_tokens":70}}\n\n')
    usage, sealed = streamed(tap, "ok")
    assert (usage.source, usage.output, usage.input > 4, sealed["prompt"]) == (
        ESTIMATED,
        70,
        True,
        "hello there",
    )


def streamed(tap: MessagesTap, outcome: str) -> tuple[Usage, dict[str, Any]]:
    """Usage of a call with this answer, and the texts that go along to be counted."""
    texts: list[dict[str, Any]] = []
    given = parts()
    given.journal = cast(Any, Journal())
    given.seal = lambda each: texts.append(dict(each)) or "sealed"
    made = call("/messages", {"model": "claude", "messages": [{"role": "user", "content": "hello there"}]})
    made.sent, made.status, made.outcome = 1.0, 200, outcome
    made.memo["source"], made.memo["tap"] = Ended(), tap
    Meter({}, given).settle(made)
    (sealed,) = texts
    return made.usage, sealed


@pytest.mark.parametrize("status", ["queued", "in_progress"])
def test_of_a_response_that_is_yet_to_be_made_nobody_knows_the_usage(status: str) -> None:
    given = parts()
    given.journal = cast(Any, Journal())
    made = call(document={"model": "m", "input": "write a book", "background": True})
    made.endpoint, made.path, made.status, made.sent = "responses", "/responses", 200, 1.0
    measure(made, json.dumps({"id": "r", "status": status, "output": [], "usage": None}).encode(), b"")
    Meter({}, given).settle(made)
    assert made.usage == Usage(source=UNKNOWN)
