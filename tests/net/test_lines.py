"""Answers that are looked up read exactly as the parser reads them, or are left to it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.net.lines import Lines
from gateway.net.wire import ResponseReader, WireError
from tests.net.test_wire import BAD, GOOD, OK, cut, feed


class Parsing(ResponseReader):
    """The reference: leaves every answer to the parser."""

    def look_up(self, data: bytes) -> bool:
        return False


def outcome(reader: ResponseReader, exchanges: list[list[bytes]], method: bytes = b"POST") -> list[Any]:
    """All that a reader tells of answers on one connection, stopping where a connection would."""
    told: list[Any] = []
    for pieces in exchanges:
        reader.expect(method)
        fault, bodies = "", []
        try:
            for piece in pieces:
                if reader.complete:
                    reader.keep = False
                    break
                feed(reader, piece)
                bodies.append(b"".join(reader.pieces))
                reader.pieces.clear()
        except WireError as error:
            fault = str(error)
        seen = [reader.headed, b"".join(bodies), reader.complete, reader.keep, fault]
        if reader.headed:
            seen += [reader.status, reader.headers, reader.length, reader.kind, reader.coding]
            seen += [reader.keep_for]
        told.append(seen)
        if fault or not reader.keep:
            break
    return told


LINES = [
    b"Content-Type: application/json",
    b"content-type: text/event-stream; charset=utf-8",
    b"Content-Encoding: gzip",
    b"X-Request-Id: req_1",
    b"x-one: a: b; c=\"d\"",
    b"Set-Cookie: a=b",
    b"Connection: keep-alive",
    b"Connection: Keep-Alive",
    b"Keep-Alive: timeout=5, max=100",
    b"Retry-After: 3",
]  # fmt: skip
ODD = [
    b"Connection: close",
    b"Connection: x-one, keep-alive",
    b"Keep-Alive: timeout=soon",
    b"Keep-Alive: x",
    b"Transfer-Encoding: chunked",
    b"transfer-encoding: gzip",
    b"Proxy-Authenticate: x",
    b"Upgrade: h2c",
    b"Trailer: x",
    b"X-Empty:",
    b"X-Empty: ",
    b"X-Tight:a",
    b"X-Loose:  a",
    b"X-Tail: a ",
    b"X-Tab:\ta\tb\t",
    b"X-Space : a",
    b"X-Fold: a\r\n b",
    b" folded",
    b"X-High: \xe9",
    b"X-Nul: a\x00b",
    b"X-Del: a\x7fb",
    b"X-Bell: a\x07b",
    b"X-LF: a\nb",
    b"X-CR: a\rb",
    b"X-L\xe9: a",
    b"X-B\x00: a",
    b"no colon",
    b"nocolon",
    b": no name",
    b"Content-Length: 3",
    b"Content-Length: 03",
    b"Content-Length: +3",
    b"Content-Length: 3 ",
    b"Content-Length: 3, 3",
    b"Content-Length: 99999999999999999999",
    b"content-LENGTH: 1_0",
    b"Content-Length: \xb2",
    b"X(y): a",
    b"X/y: a",
    b"X-Long: " + b"v" * 5000,
    b"N" * 200 + b": a",
]
STATUSES = [
    b"HTTP/1.1 200 OK",
    b"HTTP/1.1 200 ",
    b"HTTP/1.1 404 Not Found: really",
    b"HTTP/1.1 503 X",
    b"HTTP/1.1 599 " + b"r" * 64,
]
ODD_STATUSES = [
    b"HTTP/1.1 200",
    b"HTTP/1.1 204 No Content",
    b"HTTP/1.1 304 Not Modified",
    b"HTTP/1.1 100 Continue",
    b"HTTP/1.1 101 Switching",
    b"HTTP/1.1 600 X",
    b"HTTP/1.1 2000 X",
    b"HTTP/1.1  200 OK",
    b"HTTP/1.0 200 OK",
    b"HTTP/2.0 200 OK",
    b"http/1.1 200 OK",
    b" HTTP/1.1 200 OK",
    b"HTTP/1.1 200 \xe9",
    b"HTTP/1.1 200 a\tb",
    b"HTTP/1.1 200 a\rb",
    b"HTTP/1.1 200 a\nb",
    b"\r\nHTTP/1.1 200 OK",
    b"200 OK",
]
places = st.lists(st.integers(min_value=0, max_value=1 << 16), max_size=6)


@st.composite
def answers(draw: st.DrawFn) -> list[bytes]:
    """An answer, mostly an ordinary one but for a thing or two, cut anywhere."""
    lines = draw(st.lists(st.sampled_from(LINES), max_size=6))
    if draw(st.booleans()):
        lines += draw(st.lists(st.sampled_from(ODD), min_size=1, max_size=2))
    body = draw(st.binary(max_size=40))
    if draw(st.integers(min_value=0, max_value=9)):
        lines.append(b"Content-Length: %d" % len(body))
    lines = draw(st.permutations(lines))
    usual = draw(st.integers(min_value=0, max_value=4))
    status = draw(st.sampled_from(STATUSES if usual else ODD_STATUSES))
    body += draw(st.sampled_from([b"", b"", b"", b"", b"x", b"\r\n", b"\r\n\r\n", b"HTTP/1.1 200 OK\r\n"]))
    data = b"\r\n".join([status, *lines, b"", body])
    return cut(data, draw(places)) if draw(st.booleans()) else [data]


@given(st.lists(answers(), min_size=1, max_size=3))
def test_looked_up_or_parsed_an_answer_reads_the_same(exchanges: list[list[bytes]]) -> None:
    lines = Lines()
    for _ in range(2):  # the second time the lines are known
        assert outcome(ResponseReader(lines), exchanges) == outcome(Parsing(), exchanges)


@given(st.sampled_from(GOOD + BAD), st.sampled_from([b"POST", b"GET", b"HEAD"]), places)
def test_so_do_the_parsers_own_examples(answer: bytes, method: bytes, at: list[int]) -> None:
    pieces = cut(answer, at)
    assert outcome(ResponseReader(), [pieces], method) == outcome(Parsing(), [pieces], method)


@given(st.sampled_from(LINES + ODD), st.binary(max_size=3), st.integers(min_value=0, max_value=40))
def test_bytes_put_into_a_line_change_nothing_about_that(line: bytes, more: bytes, at: int) -> None:
    answer = [OK + line[:at] + more + line[at:] + b"\r\nContent-Length: 2\r\n\r\nok"]
    assert outcome(ResponseReader(), [answer]) == outcome(Parsing(), [answer])


def looked_up(answer: bytes, method: bytes = b"POST") -> bool:
    reader = ResponseReader()
    reader.expect(method)
    try:
        feed(reader, answer)
    except WireError:
        return False
    return reader.onward is not None


@pytest.mark.parametrize("status", STATUSES)
def test_ordinary_answers_are_looked_up(status: bytes) -> None:
    for line in LINES:
        assert looked_up(status + b"\r\n" + line + b"\r\nContent-Length: 2\r\n\r\nok")


def test_a_body_that_comes_later_is_counted() -> None:
    reader = ResponseReader()
    feed(reader, OK + b"Content-Length: 5\r\n\r\n")
    assert (reader.onward, reader.headed, reader.complete) == (b"", True, False)
    feed(reader, b"hel")
    assert not reader.complete
    feed(reader, b"lo")
    assert (reader.pieces, reader.complete, reader.keep) == ([b"hel", b"lo"], True, True)


@pytest.mark.parametrize("line", ODD)
def test_what_is_not_beyond_doubt_is_left_to_the_parser(line: bytes) -> None:
    assert not looked_up(OK + line + b"\r\nContent-Length: 2\r\n\r\nok")


@pytest.mark.parametrize("status", ODD_STATUSES)
def test_so_is_an_odd_first_line(status: bytes) -> None:
    assert not looked_up(status + b"\r\nContent-Length: 2\r\n\r\nok")


def test_so_are_answers_without_length_with_more_bytes_or_to_head() -> None:
    assert not looked_up(OK + b"X-One: 1\r\n\r\n")
    assert not looked_up(OK + b"Content-Length: 2\r\n\r\nokay")
    assert not looked_up(OK + b"Content-Length: 2\r\n\r\n", b"HEAD")
    assert not looked_up(OK + b"Content-Length: 2\r\n")


def test_the_wire_form_is_what_the_judge_lets_go_on() -> None:
    names = {b"server": b"", b"x-request-id": b"x-upstream-request-id"}
    reader = ResponseReader(Lines(lambda name: names.get(name, name)))
    feed(reader, OK + b"Server: x\r\nX-Request-ID: r1\r\nContent-Length: 0\r\nContent-Type: a/b\r\n\r\n")
    assert reader.onward == b"x-upstream-request-id: r1\r\ncontent-type: a/b\r\n"
    assert reader.headers == [(b"server", b"x"), (b"x-request-id", b"r1"), (b"content-type", b"a/b")]


def test_what_is_remembered_is_bounded() -> None:
    lines = Lines()
    for number in range(10_000):
        lines.learn(b"X-Request-Id: %d" % number)
        lines.learn(b"X-Name-%d: x" % number)
        lines.status(b"HTTP/1.1 200 %d" % number)
    lines.learn(b"X-Long: " + b"v" * 1000)
    assert len(lines.known) <= 2048
    assert len(lines.statuses) <= 512
    assert len(lines._names) <= 512
    assert max(map(len, lines.known)) <= 256
