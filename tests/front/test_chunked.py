"""A chunked request body, strictly."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.errors import CallerError
from gateway.front.chunked import ChunkedBody


def read(data: bytes, limit: int = 1000) -> tuple[bytes, bytes, bool]:
    body = ChunkedBody(limit)
    rest = body.feed(data)
    return bytes(body.body), rest, body.done


def test_chunks_are_joined_and_what_follows_is_given_back() -> None:
    assert read(b'3;q="a b"\r\nabc\r\nA ; x=Y;sum-1=09aF\r\n0123456789\r\n0\r\n\r\nGET /') == (
        b"abc0123456789",
        b"GET /",
        True,
    )


@pytest.mark.parametrize(
    "data",
    [
        b"0x3\r\nabc\r\n",
        b"+3\r\nabc\r\n",
        b"-1\r\n",
        b"3_0\r\nabc",
        b"3 \r\nabc\r\n",
        b" 3\r\nabc\r\n",
        b"\r\nabc\r\n",
        b"g\r\n",
        b"3\nabc\n0\n\n",
        b"3\r\nabcX\r\n",
        b"3\r\nabc\n0\r\n\r\n",
        b"123456789\r\n",
        b"3;" + b"x" * 300 + b"\r\nabc",
        b"3;a\x00b\r\nabc\r\n",
        b"3\r\nabc\r\n0\r\nContent-Length: 5\r\n\r\n",
        b"3\r\nabc\r\n0\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"3\r\nabc\r\n0\r\nAuthorization: x\r\n\r\n",
        b"3\r\nabc\r\n0\r\n folded\r\n\r\n",
        b"3\r\nabc\r\n0\r\nno-colon\r\n\r\n",
    ],
)
def test_chunks_that_could_be_read_in_two_ways_are_refused(data: bytes) -> None:
    with pytest.raises(CallerError) as caught:
        read(data)
    assert caught.value.status == 400


def test_a_body_beyond_the_limit_is_413_as_soon_as_it_is_known() -> None:
    with pytest.raises(CallerError) as caught:
        read(b"3e9\r\n" + b"x" * 1001)
    assert caught.value.status == 413


def test_ordinary_trailers_are_read_and_dropped() -> None:
    assert read(b"1\r\nx\r\n0\r\nX-Checksum: 1\r\n\r\nrest") == (b"x", b"rest", True)


def test_endless_trailers_are_431() -> None:
    body = ChunkedBody(10)
    body.feed(b"0\r\n")
    with pytest.raises(CallerError) as caught:
        for _ in range(1000):
            body.feed(b"X-T: " + b"v" * 100 + b"\r\n")
    assert caught.value.status == 431


@given(st.lists(st.binary(min_size=1, max_size=20), max_size=6), st.lists(st.integers(0, 200), max_size=8))
def test_it_reads_the_same_wherever_the_bytes_are_cut(chunks: list[bytes], cuts: list[int]) -> None:
    data = b"".join(b"%x\r\n%b\r\n" % (len(c), c) for c in chunks) + b"0\r\n\r\nnext"
    edges = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    body, rest = ChunkedBody(10_000), b""
    for start, end in pairwise(edges):
        rest = rest + data[start:end] if body.done else body.feed(data[start:end])
    assert (bytes(body.body), rest, body.done) == (b"".join(chunks), b"next", True)


@given(st.binary(max_size=200))
def test_no_bytes_make_it_fail_in_another_way(data: bytes) -> None:
    try:
        read(data)
    except CallerError as error:
        assert error.status in (400, 413, 431)
