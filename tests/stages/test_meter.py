"""What the record says of a stream that has ended: how it did, not only that it did."""

from __future__ import annotations

import json
import zlib
from typing import Any, cast

import pytest

from gateway.backends.base.inflate import InflatingTap
from gateway.core.codec import loads
from gateway.core.messages import MessagesTap
from gateway.core.stream import StreamTap
from gateway.core.tap import BodyTap, ChatTap, ResponsesTap
from gateway.core.usage import UNKNOWN, Usage
from gateway.stages.meter import Meter
from tests.stages.given import call, parts

WORD = b'data: {"choices":[{"index":0,"delta":{"content":"hello"}}]}\n\n'
STOP = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
USAGE = b'data: {"choices":[],"usage":{"prompt_tokens":11,"completion_tokens":5}}\n\n'
DONE = b"data: [DONE]\n\n"
ERROR = b'data: {"error":{"message":"overloaded","type":"server_error"}}\n\n'
DELTA = b'data: {"type":"response.output_text.delta","delta":"hello"}\n\n'
FAILED = b'data: {"type":"response.failed","response":{"error":{"code":"server_error"}}}\n\n'
COMPLETED = (
    b'data: {"type":"response.completed","response":{"usage":{"input_tokens":11,"output_tokens":5}}}\n\n'
)
LONG = b'"output":[{"text":"%b"}]' % (b"word " * 2000)
UNCOUNTED = b'event: response.completed\ndata: {"type":"response.completed","response":{%b}}\n\n' % LONG
LOST = b'event: response.failed\ndata: {"type":"response.failed","response":{%b}}\n\n' % LONG
HUGE = COMPLETED.replace(b"{", b'{"pad":"' + b"x" * 100_000 + b'",', 1)

BEGUN = b'data: {"type":"message_start","message":{"usage":{"input_tokens":11,"output_tokens":1}}}\n\n'
SAID = b'data: {"type":"content_block_delta","delta":{"type":"text_delta","text":"hello"}}\n\n'
TOLD = b'data: {"type":"message_delta","delta":{},"usage":{"output_tokens":5}}\n\n'
TURNED = b'data: {"type":"message_delta","delta":{"stop_reason":"end_turn"}}\n\n'
ENDED = b'event: message_stop\ndata: {"type":"message_stop"}\n\n'
OVERLOADED = b'event: error\ndata: {"type":"error","error":{"type":"overloaded_error","message":"x"}}\n\n'

WHOLE, BROKEN, CUT = ("ok", ""), ("upstream_error", "upstream_error_event"), ("truncated", "upstream_closed")


class Journal:
    """Keeps the records that are written."""

    def __init__(self) -> None:
        self.records: list[dict[str, Any]] = []

    def end(self, slot: int, record: bytes) -> None:
        self.records.append(loads(record))


class Ended:
    """A source that has ended."""

    done_at = 1.0


def recorded(tap: Any, path: str = "/chat/completions", outcome: str = "ok") -> tuple[str, str]:
    """Outcome and code in the record of a call with this answer."""
    given = parts()
    given.journal = cast(Any, Journal())
    made = call(path, {"model": "m", "messages": [], "stream": True})
    made.status, made.outcome = 200, outcome
    made.memo["source"], made.memo["tap"] = Ended(), tap
    Meter({}, given).settle(made)
    (record,) = cast(Any, given.journal).records
    assert json.dumps(record)
    return record["outcome"], record["code"]


def fed(tap: Any, *pieces: bytes) -> Any:
    for piece in pieces:
        tap.feed(piece)
    tap.finish()
    return tap


@pytest.mark.parametrize(
    ("pieces", "said"),
    [
        ((WORD, STOP, USAGE, DONE), WHOLE),
        ((WORD, STOP), WHOLE),
        ((WORD, DONE), WHOLE),
        ((WORD, ERROR), BROKEN),
        ((WORD, ERROR, DONE), BROKEN),
        ((ERROR,), BROKEN),
        ((WORD,), CUT),
        ((WORD, WORD[:30]), CUT),
        ((), CUT),
    ],
)
def test_a_stream_of_chunks_ends_as_it_says_itself(pieces: tuple[bytes, ...], said: tuple[str, str]) -> None:
    assert recorded(fed(ChatTap(), *pieces)) == said
    packed = zlib.compress(b"".join(pieces))
    assert recorded(fed(InflatingTap(ChatTap(), "deflate"), packed)) == said


@pytest.mark.parametrize(
    ("pieces", "said"),
    [
        ((DELTA, COMPLETED), WHOLE),
        ((DELTA, UNCOUNTED), WHOLE),
        ((DELTA + UNCOUNTED,), WHOLE),
        ((DELTA, UNCOUNTED.replace(b"\n", b"\r\n")), WHOLE),
        ((DELTA, HUGE), WHOLE),
        ((DELTA, FAILED), BROKEN),
        ((DELTA, LOST), BROKEN),
        ((DELTA,), CUT),
    ],
)
def test_a_stream_of_events_ends_as_it_says_itself(pieces: tuple[bytes, ...], said: tuple[str, str]) -> None:
    assert recorded(fed(ResponsesTap(), *pieces), "/responses") == said


@pytest.mark.parametrize(
    ("pieces", "said"),
    [
        ((BEGUN, SAID, TOLD), WHOLE),
        ((BEGUN, SAID, ENDED), WHOLE),
        ((SAID, TURNED), WHOLE),
        ((BEGUN, SAID, OVERLOADED), BROKEN),
        ((BEGUN, SAID), CUT),
        ((BEGUN,), CUT),
        ((), CUT),
    ],
)
def test_a_stream_of_a_message_ends_as_it_says_itself(
    pieces: tuple[bytes, ...], said: tuple[str, str]
) -> None:
    assert recorded(fed(MessagesTap(), *pieces), "/messages") == said
    packed = zlib.compress(b"".join(pieces))
    assert recorded(fed(InflatingTap(MessagesTap(), "deflate"), packed), "/messages") == said


@pytest.mark.parametrize(
    ("tap", "path"),
    [(ResponsesTap(), "/images/edits"), (ResponsesTap(), "/audio/speech"), (BodyTap(), "/chat/completions")],
)
def test_an_answer_that_knows_no_such_words_is_whole_when_it_has_ended(tap: StreamTap, path: str) -> None:
    assert recorded(fed(tap, b"anything"), path) == WHOLE


def test_what_is_known_of_an_end_already_stands() -> None:
    assert recorded(fed(ChatTap(), WORD, ERROR), outcome="client_gone") == ("client_gone", "")


@pytest.mark.parametrize(("status", "source"), [(200, "estimated"), (302, "none"), (400, "none")])
def test_only_an_answer_that_was_made_is_owed_for(status: int, source: str) -> None:
    given = parts()
    given.journal = cast(Any, Journal())
    made = call("/chat/completions", {"model": "m", "messages": [{"role": "user", "content": "hello"}]})
    made.status, made.outcome, made.sent = status, "ok", 1.0
    Meter({}, given).settle(made)
    assert cast(Any, given.journal).records[0].get("usage_source", "none") == source


def test_a_call_that_the_drain_cut_off_has_sent_its_prompt() -> None:
    given = parts()
    given.journal = cast(Any, Journal())
    made = call("/chat/completions", {"model": "m", "messages": [{"role": "user", "content": "hello"}]})
    made.status, made.outcome, made.code, made.sent = 503, "failed", "gateway_draining", 1.0
    Meter({}, given).settle(made)
    (record,) = cast(Any, given.journal).records
    assert record["usage_source"] == "estimated" and record["input"] > 0


@pytest.mark.parametrize("broken", ["usage", "reasons", "cost"])
def test_a_call_has_its_row_whatever_cannot_be_told_of_it(
    broken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows: list[dict[str, Any]] = []

    class Rows:
        def end(self, slot: int, record: bytes) -> None:
            rows.append(loads(record))

    given = parts()
    given.journal = cast(Any, Rows())
    made = call(document={"model": "m"})
    made.outcome, made.status = "ok", 200
    if broken == "usage":
        made.usage = Usage(source=UNKNOWN)
        monkeypatch.setattr("gateway.stages.meter.guessed", lambda *of: 1 // 0)
    elif broken == "reasons":
        made.reasons = cast(Any, {("no", "text"): object()})
    else:
        made.cost = 10**30
    Meter({}, given).settle(made)
    assert [(row["status"], row.get("cost_micros", 0)) for row in rows] == [(200, 0)]
    assert broken != "usage" or rows[0]["usage_source"] == UNKNOWN
