"""JSON and server-sent events: strict, and the same however the bytes were cut."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.codec import FrameSplitter, JSONError, event, frame_data, frame_end, loads

lines = st.lists(
    st.sampled_from([b"data: x", b"data:y", b": c", b"event: e", b"", b"data: \xc3\xa9"]), max_size=12
)
ends = st.sampled_from([b"\n", b"\r\n", b"\r"])


@st.composite
def streams(draw: st.DrawFn) -> bytes:
    return b"".join(line + draw(ends) for line in draw(lines))


@st.composite
def cut(draw: st.DrawFn) -> list[bytes]:
    """A stream in pieces."""
    data = draw(streams())
    points = sorted(draw(st.lists(st.integers(0, len(data)), max_size=10)))
    return [data[a:b] for a, b in zip([0, *points], [*points, len(data)], strict=True)]


def reference(data: bytes) -> list[bytes]:
    """Frames by the book: lines end with CRLF, LF or CR, and an empty line ends a frame."""
    frames, frame = [], b""
    for line in re.findall(rb"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+\Z", data):
        frame += line
        if not line.strip(b"\r\n"):
            frames.append(frame)
            frame = b""
    return [*frames, frame] if frame else frames


@given(cut())
def test_frames_put_together_are_the_input(pieces: list[bytes]) -> None:
    splitter = FrameSplitter()
    out = b"".join(frame for piece in pieces for frame in splitter.feed(piece)) + splitter.flush()
    assert out == b"".join(pieces)


@given(streams())
def test_the_data_of_all_frames_is_that_of_the_book(data: bytes) -> None:
    splitter = FrameSplitter()
    frames = splitter.feed(data)
    frames.append(splitter.flush())
    found = [frame_data(frame) for frame in frames if frame_data(frame)]
    assert found == [frame_data(frame) for frame in reference(data) if frame_data(frame)]


@given(cut())
def test_the_cuts_do_not_change_the_data(pieces: list[bytes]) -> None:
    def data_of(given: list[bytes]) -> list[bytes]:
        splitter = FrameSplitter()
        frames = [frame for piece in given for frame in splitter.feed(piece)]
        return [data for frame in [*frames, splitter.flush()] if (data := frame_data(frame))]

    assert data_of(pieces) == data_of([b"".join(pieces)])


@pytest.mark.parametrize(
    ("data", "end"),
    [
        (b"data: x\n\n", 9),
        (b"data: x\r\n\r\n", 11),
        (b"data: x\r\rdata", 9),
        (b"data: x\r\r", -1),
        (b"data: x\r\r\n", 10),
        (b"data: x\n", -1),
        (b"data: x\r\n\n", 10),
        (b"data: x\n\r\n", 10),
    ],
)
def test_a_frame_ends_at_its_blank_line(data: bytes, end: int) -> None:
    assert frame_end(data) == end


def test_several_data_lines_are_joined_by_line_feeds() -> None:
    assert frame_data(b"event: e\r\ndata: a\r\ndata:b\r\ndata\r\n\r\n") == b"a\nb\n"


def test_a_frame_beyond_the_limit_comes_out_in_pieces() -> None:
    splitter = FrameSplitter(limit=100)
    assert b"".join(splitter.feed(b"data: " + b"x" * 200)) == b"data: " + b"x" * 200
    assert splitter.held == b""


@pytest.mark.parametrize(
    "text", [b"NaN", b'{"a":Infinity}', b'"\\ud800"', b"{", b"\xef\xbb\xbf{}", b"[" * 5000]
)
def test_json_that_is_not_strict_is_refused(text: bytes) -> None:
    with pytest.raises(JSONError):
        loads(text)


def test_an_event_is_one_frame() -> None:
    assert event({"a": "x\ny"}) == b'data: {"a":"x\\ny"}\n\n'
