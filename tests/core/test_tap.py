"""Taps: however a stream is cut, the same bytes go on and the same usage is seen."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.search import last_usage
from gateway.core.stream import HOLD, MAX_KEPT, StreamTap
from gateway.core.tap import BodyTap, ChatTap, ResponsesTap
from gateway.core.usage import PROVIDER, Usage

USAGE = {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18}
SEEN = Usage(input=11, output=7, source=PROVIDER)


def frame(document: Any, end: bytes = b"\n\n") -> bytes:
    return b"data: " + json.dumps(document, ensure_ascii=False).encode() + end


def chunk(content: str | None = None, **more: Any) -> dict[str, Any]:
    delta = {} if content is None else {"content": content}
    return {"id": "c", "choices": [{"index": 0, "delta": delta, "finish_reason": None}], **more}


ROLE = frame({"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]})
LAST = frame({"id": "c", "choices": [], "usage": USAGE})
DONE = b"data: [DONE]\n\n"
STREAM = (
    ROLE + frame(chunk("Grüße, ", usage=None)) + frame(chunk('"usage"')) + frame(chunk("✓")) + LAST + DONE
)


def run(tap: StreamTap, pieces: list[bytes]) -> bytes:
    return b"".join([tap.feed(piece) for piece in pieces]) + tap.finish()


def cuts(data: bytes, points: list[int]) -> list[bytes]:
    return [data[a:b] for a, b in itertools.pairwise([0, *sorted(points), len(data)])]


# -- what goes on


@pytest.mark.parametrize("hide", [False, True])
def test_cut_at_any_byte_the_result_is_the_same(hide: bool) -> None:
    expected = STREAM.replace(LAST, b"") if hide else STREAM
    for at in range(len(STREAM) + 1):
        tap = ChatTap(hide)
        assert run(tap, [STREAM[:at], STREAM[at:]]) == expected
        assert tap.usage == SEEN
        assert tap.done and not tap.error


def test_without_usage_the_text_is_the_same_wherever_the_cut() -> None:
    stream = STREAM.replace(LAST, b"")
    for at in range(len(stream)):
        tap = ChatTap(True)
        assert run(tap, [stream[:at], stream[at:]]) == stream
        assert tap.usage is None
        assert tap.text.decode() == 'Grüße, "usage"✓'


lines = st.sampled_from([b"\n", b"\r\n", b"\r"])
frames = st.lists(
    st.sampled_from(
        [
            json.dumps(chunk("word")).encode(),
            json.dumps(chunk("x", usage=None), separators=(",", ":")).encode(),
            json.dumps(chunk("y", usage=USAGE)).encode(),
            json.dumps({"choices": [], "usage": USAGE}).encode(),
            json.dumps({"choices": [], "usage": None}).encode(),
            json.dumps({"choices": [], "prompt_filter_results": []}).encode(),
            b'{"choices":[],"usage":',
            b'{"usage":{"prompt_tokens":"many"},"choices":[]}',
            b'{"error":{"message":"overloaded"}}',
            b"[DONE]",
            b"[1]",
            b"not json",
            b"",
        ]
    ),
    max_size=8,
)


@st.composite
def streams(draw: st.DrawFn) -> bytes:
    """Frames with any line ends, comments, names, several data lines, perhaps a BOM, perhaps cut short."""
    out = draw(st.sampled_from([b"", b"\xef\xbb\xbf"]))
    for data in draw(frames):
        end = draw(lines)
        out += draw(st.sampled_from([b"", b": comment" + end, b"event: e" + end, b"id:1" + end, end]))
        space = draw(st.sampled_from([b"", b" "]))
        parts = [data]
        if draw(st.booleans()) and b',"usage"' in data:
            at = data.index(b',"usage"')
            parts = [data[:at], data[at:]]
        out += b"".join(b"data:" + space + part + end for part in parts) + end
    short = draw(st.integers(0, 3))
    return out[: len(out) - short] if short else out


@given(streams(), st.booleans(), st.data())
def test_cut_anywhere_any_stream_gives_the_same(data: bytes, hide: bool, draw: st.DataObject) -> None:
    points = draw.draw(st.lists(st.integers(0, len(data)), max_size=12))
    whole, cut, single = ChatTap(hide), ChatTap(hide), ChatTap(hide)
    expected = run(whole, [data])
    assert run(cut, cuts(data, points)) == expected
    assert run(single, [data[n : n + 1] for n in range(len(data))]) == expected
    assert whole.usage == cut.usage == single.usage
    assert whole.usage is not None or whole.text == cut.text == single.text
    assert whole.done == cut.done == single.done
    assert whole.error == cut.error == single.error
    assert bool(whole.first_token) == bool(cut.first_token) == bool(single.first_token)
    if not hide:
        assert expected == data


@given(streams(), st.data())
def test_without_hiding_every_piece_goes_on_at_once(data: bytes, draw: st.DataObject) -> None:
    tap = ChatTap(False)
    for piece in cuts(data, draw.draw(st.lists(st.integers(0, len(data)), max_size=8))):
        assert tap.feed(piece) is piece
    assert tap.finish() == b""


@pytest.mark.parametrize("end", [b"\n\n", b"\r\n\r\n", b"\r\r"])
def test_only_the_chunk_that_is_there_for_usage_is_hidden(end: bytes) -> None:
    nothing: dict[str, Any] = {"choices": [], "usage": None}
    kept = [frame(chunk("a", usage=USAGE), end), frame(nothing, end)]
    hidden = frame({"choices": [], "usage": USAGE, "id": "x"}, end)
    tap = ChatTap(True)
    assert run(tap, [kept[0] + hidden + kept[1]]) == kept[0] + kept[1]
    assert tap.usage == SEEN


def test_a_usage_chunk_without_its_last_line_end_is_hidden_too() -> None:
    tap = ChatTap(True)
    assert run(tap, [frame(chunk("a")), LAST.rstrip(b"\n")]) == frame(chunk("a"))
    assert tap.usage == SEEN


def test_a_frame_that_cannot_be_the_usage_is_not_held_back() -> None:
    tap = ChatTap(True)
    seen = []
    for piece in (b'data: {"choices":[{"delta":{"con', b'tent":"x"}}]}\n\n', b'data: {"choices":[],'):
        seen.append((tap.feed(piece) == piece, tap.clean))
    assert seen == [(True, False), (True, True), (False, True)]


@pytest.mark.parametrize("size", [1000, HOLD + 1, 1 << 20])
@pytest.mark.parametrize("piece", [999, 16384, 1 << 21])
@pytest.mark.parametrize("hide", [False, True])
def test_a_very_long_line_passes_in_bounded_memory(size: int, piece: int, hide: bool) -> None:
    data = frame(chunk("x" * size)) + LAST + DONE
    tap = ChatTap(hide)
    out = b""
    for at in range(0, len(data), piece):
        out += tap.feed(data[at : at + piece])
        assert len(tap._held) <= HOLD + piece
    assert out + tap.finish() == (data.replace(LAST, b"") if hide else data)
    assert tap.usage == SEEN


# -- what is seen


def test_the_last_of_several_usages_stands() -> None:
    growing = [frame(chunk("x", usage={"prompt_tokens": 5, "completion_tokens": n})) for n in range(1, 5)]
    tap = ChatTap(False)
    run(tap, growing)
    assert tap.usage == Usage(input=5, output=4, source=PROVIDER)


def test_no_usage_is_none_and_never_zero() -> None:
    tap = ChatTap(False)
    run(tap, [frame(chunk("a", usage=None)), DONE])
    assert tap.usage is None
    assert tap.text == b"a"


def test_the_first_token_is_the_first_content_and_not_the_role() -> None:
    times = iter([1.0, 2.0])
    tap = ChatTap(False, lambda: next(times))
    tap.feed(ROLE)
    assert tap.first_token == 0.0
    tap.feed(frame(chunk("a")))
    tap.feed(frame(chunk("b")))
    assert tap.first_token == 1.0


@pytest.mark.parametrize(
    "delta",
    [
        {"tool_calls": [{"index": 0, "function": {"name": "f", "arguments": ""}}]},
        {"reasoning_content": "hm"},
        {"refusal": "no"},
        {"function_call": {"name": "f"}},
    ],
)
def test_other_content_is_a_first_token_too(delta: dict[str, Any]) -> None:
    tap = ChatTap(False, lambda: 3.0)
    tap.feed(frame({"choices": [{"delta": delta}]}))
    assert tap.first_token == 3.0


def test_all_that_was_generated_is_kept_as_text() -> None:
    deltas = [
        {"reasoning_content": "think "},
        {"content": 'say "hi"\n'},
        {"tool_calls": [{"function": {"name": "f", "arguments": '{"a": 1}'}}]},
    ]
    tap = ChatTap(False)
    run(tap, [frame({"choices": [{"delta": delta}]}) for delta in deltas])
    assert sorted(tap.text.decode()) == sorted('think say "hi"\n{"a": 1}')


def test_a_completion_of_the_older_kind_has_text_too() -> None:
    tap = ChatTap(False)
    run(tap, [frame({"choices": [{"text": "once", "index": 0}]}), frame({"choices": [{"text": " upon"}]})])
    assert tap.text == b"once upon"
    assert tap.first_token


def test_a_long_stream_keeps_its_text_and_little_more() -> None:
    tap = ChatTap(True)
    for number in range(3000):
        tap.feed(frame(chunk(f"w{number} ", system_fingerprint="f" * 200)))
        assert tap._size <= MAX_KEPT + 1024
    assert tap.text.decode().split() == [f"w{number}" for number in range(3000)]


def test_the_text_is_bounded() -> None:
    tap = ChatTap(False)
    for _ in range(40):
        tap.feed(frame(chunk("x" * 10_000)))
    assert len(tap.text) == 256 * 1024 and tap.size == 400_000


def test_who_looks_in_hears_of_text_that_is_not_kept_too() -> None:
    tap, heard = ChatTap(False), []
    tap.watch(lambda text, usage: heard.append(text))
    for _ in range(40):
        tap.feed(frame(chunk("x" * 10_000)))
    assert heard == [10_000 * n for n in range(1, 41)]


def test_the_end_of_a_stream_is_known() -> None:
    done, cut = ChatTap(False), ChatTap(False)
    finish = frame({"choices": [{"delta": {}, "finish_reason": "stop"}]})
    run(done, [frame(chunk("data: [DONE]")), finish, DONE])
    run(cut, [frame(chunk("data: [DONE]"))])
    assert (done.done, done.finished) == (True, True)
    assert (cut.done, cut.finished) == (False, False)


def test_an_error_told_inside_the_stream_is_seen() -> None:
    tap, talk = ChatTap(False), ChatTap(False)
    run(tap, [frame(chunk("a")), frame({"error": {"message": "overloaded", "type": "server_error"}})])
    run(talk, [frame(chunk('an "error": {} in words'))])
    assert tap.error and not talk.error


# -- other streams


def response_stream(status: str = "completed", usage: Any = None) -> list[bytes]:
    def event(kind: str, **rest: Any) -> bytes:
        return b"event: " + kind.encode() + b"\n" + frame({"type": kind, **rest})

    usage = usage or {"input_tokens": 11, "output_tokens": 7}
    return [
        event("response.created", response={"status": "in_progress", "usage": None}),
        event("response.output_text.delta", delta="Hel"),
        event("response.output_text.delta", delta="lo"),
        event(f"response.{status}", response={"status": status, "usage": usage, "tools": []}),
    ]


@pytest.mark.parametrize("status", ["completed", "incomplete", "failed"])
def test_a_response_has_its_usage_in_its_last_event(status: str) -> None:
    pieces = response_stream(status)
    tap = ResponsesTap()
    assert run(tap, pieces) == b"".join(pieces)
    assert (tap.usage, tap.done) == (SEEN, True)
    assert tap.error == (status == "failed")


def test_a_response_that_breaks_off_leaves_its_text() -> None:
    tap = ResponsesTap()
    run(tap, response_stream()[:3])
    assert (tap.usage, tap.text, tap.done) == (None, b"Hello", False)


def test_a_last_event_too_long_to_parse_still_gives_the_usage() -> None:
    document = {
        "response": {"instructions": "x" * 100_000, "usage": {"input_tokens": 11, "output_tokens": 7}}
    }
    data = frame({"type": "response.completed", **document})
    for size in (len(data), 4096, 100):
        tap = ResponsesTap()
        assert run(tap, [data[at : at + size] for at in range(0, len(data), size)]) == data
        assert tap.usage == SEEN


def test_a_long_body_is_measured_by_its_end() -> None:
    body = json.dumps({"data": [0.5] * 100_000, "usage": USAGE}).encode()
    tap = BodyTap()
    assert b"".join(tap.feed(body[at : at + 7777]) for at in range(0, len(body), 7777)) + tap.finish() == body
    assert tap.usage == SEEN


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b'{"usage":null}',
        b'{"usage":{"x":{"y":{}}}}',
        b'{"usage":{' * 3000,
        b'"usage"',
        b'{"usage":{bad}}',
    ],
)
def test_what_is_no_usage_is_not_taken_for_one(data: bytes) -> None:
    assert last_usage(data) is None
