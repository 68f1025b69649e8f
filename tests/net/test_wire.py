"""The reader of HTTP/1.1 responses, without sockets."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.net.wire import FIELD_LIMIT, HEAD_LIMIT, ResponseReader, WireError, end_to_end

OK = b"HTTP/1.1 200 OK\r\n"


@dataclass
class Seen:
    """All that a reader tells about one answer."""

    status: int = 0
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    length: int | None = None
    body: bytes = b""
    complete: bool = False
    keep: bool = False
    fault: str = ""


def feed(reader: ResponseReader, data: bytes) -> None:
    """As a connection does it."""
    if reader.headed or not reader.look_up(data):
        reader.receive(data)


def read(pieces: list[bytes], method: bytes = b"POST", eof: bool = False) -> Seen:
    """Feed the pieces to a new reader, stopping where a connection would."""
    reader = ResponseReader()
    reader.expect(method)
    seen = Seen()
    try:
        for piece in pieces:
            if reader.complete:
                reader.keep = False
                break
            feed(reader, piece)
            seen.body += b"".join(reader.pieces)
            reader.pieces.clear()
        if eof:
            reader.eof()
    except WireError as error:
        seen.fault = str(error)
    if reader.headed:
        seen.status, seen.headers, seen.length = reader.status, reader.headers, reader.length
    seen.complete, seen.keep = reader.complete, reader.keep
    return seen


def cut(data: bytes, at: list[int]) -> list[bytes]:
    """The data in pieces that end at these places."""
    places = [0, *sorted({place % (len(data) + 1) for place in at}), len(data)]
    return [data[a:b] for a, b in pairwise(places) if a < b]


GOOD = [
    OK + b"Content-Length: 5\r\nX-One: 1\r\n\r\nhello",
    OK
    + b"Transfer-Encoding: chunked\r\nX-One: 1\r\nX-One: 2\r\n\r\n"
    + b"3;x=y\r\nabc\r\n2\r\nde\r\n0\r\nX-Two: t\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"
    + OK
    + b"Content-Length: 2\r\n\r\nok",
    b"HTTP/1.1 204 No Content\r\nX-One: 1\r\n\r\n",
    b"HTTP/1.1 304 Not Modified\r\nContent-Length: 700\r\n\r\n",
    OK + b"Connection: close, X-One\r\nX-One: 1\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 1\r\n\r\na",
    b"\r\n" + OK + b"Content-Length: 0\r\n\r\n",
]
BAD = [
    b"garbage\r\n\r\n",
    b"\x16\x03\x01\x02\x00",
    b"HTTP/1.1 200 OK\nContent-Length: 0\n\n",
    b"HTTP/1.1 20 OK\r\n\r\n",
    b"HTTP/1.1 099 Odd\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 999 Odd\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\nblah",
    b"HTTP/1.1 100 Continue\r\nContent-Length: 2\r\n\r\n" + OK + b"Content-Length: 0\r\n\r\n",
    OK + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
    OK + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
    OK + b"Content-Length: 5, 5\r\n\r\nhello",
    OK + b"Content-Length: +5\r\n\r\nhello",
    OK + b"Content-Length: -1\r\n\r\n",
    OK + b"Content-Length: 99999999999999999999999\r\n\r\n",
    OK + b"Content-Length:\r\n\r\n",
    OK + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    OK + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
    OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    OK + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    OK + b"Transfer-Encoding: identity\r\n\r\nabc",
    OK + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    OK + b"Transfer-Encoding: chunked\r\n\r\n0x3\r\nabc\r\n",
    OK + b"Transfer-Encoding: chunked\r\n\r\n-3\r\nabc\r\n",
    OK + b"Transfer-Encoding: chunked\r\n\r\n3\nabc\n",
    OK + b"Transfer-Encoding: chunked\r\n\r\nfffffffffffffffffff\r\n",
    OK + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n",
    OK + b"X-One: a\r\n b\r\nContent-Length: 0\r\n\r\n",
    OK + b"X-One : a\r\nContent-Length: 0\r\n\r\n",
    OK + b"X-One: a\x00b\r\nContent-Length: 0\r\n\r\n",
    OK + b"X-One: a\rb\r\nContent-Length: 0\r\n\r\n",
    OK + b": a\r\nContent-Length: 0\r\n\r\n",
]


@given(st.sampled_from(GOOD), st.lists(st.integers(min_value=0, max_value=1 << 16), max_size=20))
def test_a_good_answer_reads_the_same_however_it_is_cut(answer: bytes, at: list[int]) -> None:
    assert read(cut(answer, at)) == read([answer])
    assert read([answer]).complete


@given(st.sampled_from(BAD), st.lists(st.integers(min_value=0, max_value=1 << 16), max_size=20))
def test_a_bad_answer_is_refused_however_it_is_cut(answer: bytes, at: list[int]) -> None:
    seen = read(cut(answer, at))
    assert seen.fault
    assert not seen.complete
    assert not seen.keep


@given(st.binary(max_size=300), st.lists(st.integers(min_value=0, max_value=300), max_size=10))
def test_any_bytes_read_the_same_however_they_are_cut(tail: bytes, at: list[int]) -> None:
    answer = OK + b"Transfer-Encoding: chunked\r\n\r\n" + tail
    whole, pieces = read([answer], eof=True), read(cut(answer, at), eof=True)
    assert (pieces.complete, pieces.body, bool(pieces.fault)) == (
        whole.complete,
        whole.body,
        bool(whole.fault),
    )


def test_one_reader_reads_many_answers() -> None:
    reader = ResponseReader()
    for _ in range(3):
        for answer, body in ((GOOD[0], b"hello"), (GOOD[1], b"abcde"), (GOOD[2], b"ok"), (GOOD[3], b"")):
            reader.expect(b"POST")
            feed(reader, answer)
            assert (reader.complete, reader.keep) == (True, True)
            assert b"".join(reader.pieces) == body
            reader.pieces.clear()


def test_hop_by_hop_fields_and_those_that_connection_names_are_removed() -> None:
    head = OK + b"Connection: keep-alive, X-Secret\r\nKeep-Alive: timeout=5, max=9\r\nX-SECRET: 1\r\n"
    rest = b"TE: x\r\nTrailer: y\r\nUpgrade: h2c\r\nProxy-Authenticate: z\r\nX-Kept: 1\r\n"
    seen = read([head + rest + b"Content-Length: 0\r\n\r\n"])
    assert seen.headers == [(b"x-kept", b"1")]
    assert seen.length == 0


def test_the_same_fields_are_removed_from_a_list() -> None:
    fields = [
        (b"connection", b"X-Secret, close"),
        (b"x-secret", b"1"),
        (b"content-length", b"3"),
        (b"a", b"b"),
    ]
    assert end_to_end(fields) == [(b"a", b"b")]


def test_repeated_fields_stay_in_order() -> None:
    seen = read([OK + b"Set-Cookie: a\r\nX: 1\r\nSet-Cookie: b\r\nContent-Length: 0\r\n\r\n"])
    assert seen.headers == [(b"set-cookie", b"a"), (b"x", b"1"), (b"set-cookie", b"b")]


def test_trailer_fields_are_dropped() -> None:
    assert read([GOOD[1]]).headers == [(b"x-one", b"1"), (b"x-one", b"2")]


def test_the_answer_to_head_has_no_body_whatever_it_declares() -> None:
    for framing in (b"Content-Length: 700\r\n", b"Transfer-Encoding: chunked\r\n", b""):
        seen = read([OK + framing + b"\r\n"], method=b"HEAD")
        assert (seen.complete, seen.keep, seen.body, seen.fault) == (True, False, b"", "")


def test_the_peers_keep_alive_timeout_is_noted() -> None:
    reader = ResponseReader()
    feed(reader, OK + b"Keep-Alive: timeout=5, max=100\r\nContent-Length: 0\r\n\r\n")
    assert reader.keep_for == 5.0
    reader.expect(b"GET")
    feed(reader, OK + b"Keep-Alive: timeout=soon\r\nContent-Length: 0\r\n\r\n")
    assert reader.keep_for is None


@pytest.mark.parametrize("version", [b"HTTP/1.1", b"HTTP/1.0"])
def test_without_framing_the_body_ends_where_the_connection_does(version: bytes) -> None:
    answer = version + b" 200 OK\r\n\r\nhello"
    assert not read([answer]).complete
    seen = read([answer, b" world"], eof=True)
    assert (seen.complete, seen.keep, seen.body) == (True, False, b"hello world")


@pytest.mark.parametrize("answer", [*GOOD[:2], GOOD[5]])
def test_an_end_in_the_middle_is_not_an_end(answer: bytes) -> None:
    for length in range(len(answer)):
        assert not read([answer[:length]], eof=True).complete


def test_bytes_after_the_end_leave_the_answer_good_and_the_connection_unusable() -> None:
    for more in (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nbad", b"x", b"HTT"):
        seen = read([GOOD[0] + more])
        assert (seen.complete, seen.keep, seen.body, seen.fault) == (True, False, b"hello", "")


def test_a_head_may_be_as_long_as_the_limit_and_no_longer() -> None:
    rest = OK + b"Content-Length: 0\r\nX: \r\n\r\n"
    for over in (0, 1):
        answer = rest.replace(b"X: ", b"X: " + b"v" * (HEAD_LIMIT - len(rest) + over))
        for pieces in ([answer], cut(answer, [1000, HEAD_LIMIT - 1]), [answer + b"surplus"]):
            seen = read(pieces)
            assert seen.complete is not bool(over)
            assert ("longer than 65536 bytes" in seen.fault) is bool(over)


def test_interim_heads_count_too() -> None:
    seen = read([b"HTTP/1.1 102 Processing\r\n\r\n"] * 4000)
    assert "longer than" in seen.fault


def test_a_long_body_after_a_short_head_is_no_long_head() -> None:
    seen = read([OK + b"Content-Length: 200000\r\n\r\n" + b"b" * 200_000])
    assert (seen.complete, seen.keep, len(seen.body)) == (True, True, 200_000)


def test_too_many_fields_are_refused() -> None:
    assert read([OK + b"A: 1\r\n" * FIELD_LIMIT + b"\r\n"]).status == 200
    assert "header fields" in read([OK + b"A: 1\r\n" * (FIELD_LIMIT + 1) + b"\r\n"]).fault


def test_endless_trailers_are_refused() -> None:
    head = OK + b"Transfer-Encoding: chunked\r\n\r\n0\r\nX: "
    assert "trailers" in read([head, *[b"v" * 1000] * 100]).fault


def test_single_byte_chunks_are_no_flood_of_framing() -> None:
    head = OK + b"Transfer-Encoding: chunked\r\n\r\n"
    pieces = [part for _ in range(40_000) for part in (b"1\r\n", b"x\r\n")]
    seen = read([head, *pieces, b"0\r\n\r\n"])
    assert (seen.complete, seen.keep, len(seen.body)) == (True, True, 40_000)
