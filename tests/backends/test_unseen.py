"""Answers whose text the gateway does not see whole: what they are booked as, from provider to ledger."""

from __future__ import annotations

import gzip
import json
import random
from typing import Any, cast

import pytest

from gateway.core.call import Call
from gateway.core.codec import loads
from gateway.core.errors import UpstreamError
from gateway.core.hold import Hold
from gateway.core.route import Target
from gateway.link.seal import Seal
from gateway.settings.schema import BackendSettings, Settings
from gateway.stages.meter import Meter
from gateway.supervisor.batch import batched
from gateway.supervisor.capture import Texts
from gateway.supervisor.counting import Counting
from tests.backends.given import backend, call, chunked, reply, run, upstream, whole
from tests.stages.given import parts

CHAT: dict[str, Any] = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Tell me a long story"}]}
STREAM = {**CHAT, "stream": True}
USAGE = {"prompt_tokens": 800, "completion_tokens": 1000, "total_tokens": 1800}
STATED = {"usage_source": "provider", "input": 800, "output": 1000}
SEAL = Seal.fresh()
GZIP = "content-encoding: gzip"
DONE = b"data: [DONE]\n\n"


class Journal:
    """Keeps the last record."""

    line = b""

    def end(self, slot: int, record: bytes) -> None:
        self.line = record


def booked(made: Call, answering: bytes, ended: bool = True) -> dict[str, Any]:
    """The row of a call with this answer."""
    given = parts()
    given.journal = journal = cast(Any, Journal())
    given.seal = SEAL.close

    async def scenario() -> None:
        async with upstream(lambda seen: answering) as up, backend(up.port) as asked:
            given.backends["up"] = asked
            made.target, made.tries, made.hold = Target("up"), 1, Hold(5000, 0)
            answer = await asked.ask(made, made.target)
            made.status, made.outcome = answer.status, "ok" if ended else "truncated"
            if answer.source is not None:
                made.memo["source"], made.memo["tap"] = answer.source, answer.tap
                try:
                    await whole(answer)
                except UpstreamError:
                    assert not ended
        Meter({}, given).settle(made)

    run(scenario())
    counting = Counting(Settings(backends={"up": BackendSettings(name="up", kind="openai")}))
    (line,) = batched([journal.line], counting, Texts(SEAL)).lines
    return cast("dict[str, Any]", loads(line))


def of(row: dict[str, Any], names: Any = STATED) -> dict[str, Any]:
    return {name: row[name] for name in names}


def completion(text: str, **more: Any) -> dict[str, Any]:
    return {"id": "x", "choices": [{"index": 0, "message": {"content": text}}], **more}


def packed(document: Any) -> bytes:
    return gzip.compress(json.dumps(document).encode(), 1, mtime=0)


def frame(text: str, **first: Any) -> bytes:
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": "stop"}
    return b"data: " + json.dumps({**first, "choices": [choice]}).encode() + b"\n\n"


WORDS = "so many words " * 100_000
NOISE = random.Random(7).randbytes(1 << 20).hex()
LOGS = {"prompt_logprobs": [{"1": {"logprob": -1.5, "rank": 1}}] * 2000}


@pytest.mark.parametrize(
    "answering",
    [
        reply(200, json.dumps({"usage": USAGE, **completion(WORDS)}).encode()),
        reply(200, json.dumps({**completion(WORDS, usage=USAGE), **LOGS}).encode()),
        reply(200, json.dumps(completion(WORDS, usage=USAGE)).encode(), kind="text/plain"),
        reply(200, packed(completion(WORDS * 4, usage=USAGE)), GZIP),
        reply(200, packed({"usage": USAGE, **completion(WORDS * 4)}), GZIP),
        reply(200, packed(completion(NOISE, usage=USAGE)), GZIP),
        reply(200, json.dumps({"usage": USAGE, **completion(WORDS[:50_000])}).encode()),
    ],
    ids=["first", "before logs", "text", "packed", "packed, first", "packed and long", "short"],
)
def test_a_usage_is_found_wherever_it_stands(answering: bytes) -> None:
    assert of(booked(call(value=CHAT), answering)) == STATED


@pytest.mark.parametrize("size", [1000, 60_000, 1 << 20])
def test_a_usage_at_the_beginning_of_a_long_frame_is_found(size: int) -> None:
    data = frame(WORDS[:120_000], usage=USAGE) + DONE
    pieces = [data[at : at + size] for at in range(0, len(data), size)]
    assert of(booked(call(value=STREAM), chunked(pieces))) == STATED


@pytest.mark.parametrize("kind", ["application/json", "text/event-stream"])
@pytest.mark.parametrize("size", [2000, 2 << 20])
@pytest.mark.parametrize("coding", ["br", "zstd", "gzip, br"])
def test_of_an_answer_in_a_coding_that_nobody_reads_nothing_is_known(
    kind: str, size: int, coding: str
) -> None:
    answering = reply(200, b"\x8b" * size, f"content-encoding: {coding}", kind=kind)
    row = booked(call(value=STREAM if "event" in kind else CHAT), answering)
    assert (row["outcome"], row["usage_source"], row["hold_tokens"]) == ("ok", "unknown", 5000)
    assert (row["input"], row["output"]) == (0, 0)


def test_what_does_not_unpack_is_not_known_either() -> None:
    assert booked(call(value=CHAT), reply(200, b"no gzip", GZIP))["usage_source"] == "unknown"


def test_an_answer_to_embeddings_has_no_tokens_whatever_its_coding() -> None:
    value = {"model": "text-embedding-3-small", "input": "hello world"}
    row = booked(call("/embeddings", value), reply(200, b"\x8b" * 9, "content-encoding: br"))
    assert (row["usage_source"], row["input"], row["output"]) == ("counted", 2, 0)


@pytest.mark.parametrize(
    ("answering", "size"),
    [
        (reply(200, json.dumps(completion(WORDS)).encode()), len(WORDS)),
        (reply(200, packed(completion(WORDS * 4)), GZIP), 4 * len(WORDS)),
        (reply(200, WORDS[:30_000].encode(), kind="text/plain"), 30_000),
        (reply(200, b"[" + json.dumps(completion(WORDS[:30_000])).encode() + b"]"), 30_000),
    ],
    ids=["long", "packed", "text", "another shape"],
)
def test_without_usage_what_was_not_seen_is_estimated_by_its_bytes(answering: bytes, size: int) -> None:
    row = booked(call(value=CHAT), answering)
    assert (row["outcome"], row["usage_source"]) == ("ok", "estimated")
    assert 0.2 * size < row["output"] < 0.3 * size


def test_a_long_body_that_breaks_off_is_estimated_by_what_came() -> None:
    body = json.dumps(completion("word " * 600_000)).encode()
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"
    answering = head + b"%x\r\n%b\r\nbroken\r\n" % (2_000_000, body[:2_000_000])
    row = booked(call(value=CHAT), answering, ended=False)
    assert row["usage_source"] == "estimated"
    assert 400_000 < row["output"] <= 500_000


@pytest.mark.parametrize("size", [1000, 60_000, 100_000])
def test_the_text_of_a_long_frame_is_estimated(size: int) -> None:
    data = frame(WORDS[:700_000]) + DONE
    pieces = [data[at : at + size] for at in range(0, len(data), size)]
    row = booked(call(value=STREAM), chunked(pieces))
    assert (row["outcome"], row["usage_source"]) == ("ok", "estimated")
    assert row["output"] == pytest.approx(150_000, rel=0.02)


def test_of_a_long_stream_all_of_its_text_is_estimated() -> None:
    pieces = [frame(WORDS[:1400]) for _ in range(1000)]
    row = booked(call(value=STREAM), chunked([*pieces, DONE]))
    assert (row["outcome"], row["usage_source"]) == ("ok", "estimated")
    assert row["output"] == pytest.approx(300_000, rel=0.02)


def test_what_was_seen_whole_is_still_counted() -> None:
    plain = booked(call(value=CHAT), reply(200, json.dumps(completion("hello world")).encode()))
    stream = booked(call(value=STREAM), chunked([frame("hello"), frame(" world"), DONE]))
    coded = booked(call(value=CHAT), reply(200, packed(completion("hello world")), GZIP))
    for row in (plain, stream, coded):
        assert (row["outcome"], row["usage_source"], row["output"]) == ("ok", "counted", 2)


@pytest.mark.parametrize("document", [{}, {"candidates": [{"parts": ["hello"]}]}])
def test_an_answer_without_any_text_is_never_counted(document: Any) -> None:
    for answering, value in (
        (reply(200, json.dumps(document).encode()), CHAT),
        (chunked([b"data: " + json.dumps(document).encode() + b"\n\n", DONE]), STREAM),
    ):
        assert booked(call(value=value), answering)["usage_source"] == "estimated"


def test_no_negative_count_is_taken_for_one() -> None:
    stated = {"prompt_tokens": -5, "completion_tokens": 3}
    row = booked(call(value=CHAT), reply(200, json.dumps(completion("hello", usage=stated)).encode()))
    assert row["usage_source"] == "counted" and row["input"] > 0
