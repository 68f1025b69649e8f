"""The strict request head: what passes, what is refused, what may go on."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.errors import CallerError
from gateway.front.request import CHUNKED, parse, recall, remember

HOST = b"\r\nHost: gateway.example:8080"


def refused(data: bytes) -> int:
    with pytest.raises(CallerError) as caught:
        parse(data)
    return caught.value.status


@pytest.mark.parametrize(
    ("target", "path", "endpoint"),
    [
        (b"/v1/chat/completions", "/chat/completions", "chat/completions"),
        (b"/chat/completions", "/chat/completions", "chat/completions"),
        (b"/v1/files/file-1/content", "/files/file-1/content", "files"),
        (b"/v1beta/models", "/v1beta/models", "other"),
        (b"/v1", "", "other"),
        (b"/models/meta%2FLlama", "/models/meta%2FLlama", "models"),
    ],
)
def test_the_path_is_known_with_and_without_v1(target: bytes, path: str, endpoint: str) -> None:
    head = parse(b"GET " + target + b" HTTP/1.1" + HOST)
    assert (head.path, head.endpoint) == (path, endpoint)


def test_the_query_is_kept_as_it_came() -> None:
    head = parse(b"GET /v1/files?purpose=batch&after=a%20b HTTP/1.1" + HOST)
    assert head.query == b"purpose=batch&after=a%20b"


@pytest.mark.parametrize(
    "line",
    [
        b"GET http://other.example/v1/models HTTP/1.1",
        b"GET other.example:443 HTTP/1.1",
        b"GET * HTTP/1.1",
        b"OPTIONS * HTTP/1.1",
        b"GET  /v1/models HTTP/1.1",
        b"GET /v1/models  HTTP/1.1",
        b"GET /v1/models HTTP/2.0",
        b"GET /v1/models http/1.1",
        b"GET /v1/models HTTP/1.1 ",
        b"GET /v1/models",
        b"get /v1/models HTTP/1.1",
        b"G\tT /v1/models HTTP/1.1",
        b"GET /v1/mod\x00els HTTP/1.1",
        b"GET /v1/mod\xc3\xa9ls HTTP/1.1",
        b"GET /v1/models#top HTTP/1.1",
        b"GET /v1/../admin HTTP/1.1",
        b"GET /v1/%2e%2e/admin HTTP/1.1",
        b"GET /v1/chat/%2e%2e%2ffiles HTTP/1.1",
        b"GET /v1/chat/..%2Ffiles HTTP/1.1",
        b"GET /v1/chat/x%2f%2e%2E%2ffiles HTTP/1.1",
        b"GET /v1/chat/x%2F%2e HTTP/1.1",
        b"GET /v1/chat/..;/files HTTP/1.1",
        b"GET /v1/chat/%2ffiles HTTP/1.1",
        b"GET /v1/.%2E/admin HTTP/1.1",
        b"GET /v1//models HTTP/1.1",
        b"GET //evil.example/models HTTP/1.1",
        b"GET /v1/a%00b HTTP/1.1",
        b"GET /v1/a%5c..%5cb HTTP/1.1",
        b"GET /v1/a%zz HTTP/1.1",
        b"GET /v1\\models HTTP/1.1",
        b"\x16\x03\x01\x02",
        b"",
    ],
)
def test_a_request_line_that_is_not_plain_is_refused(line: bytes) -> None:
    assert refused(line + HOST) == 400


def test_connect_and_trace_are_not_offered() -> None:
    assert refused(b"CONNECT /v1 HTTP/1.1" + HOST) == 405
    assert refused(b"TRACE /v1 HTTP/1.1" + HOST) == 405


def test_a_target_that_is_too_long_is_414() -> None:
    assert refused(b"GET /" + b"a" * 9000 + b" HTTP/1.1" + HOST) == 414


@pytest.mark.parametrize(
    "headers",
    [
        b"Content-Length: 5\r\nContent-Length: 5",
        b"Content-Length: 5\r\nContent-Length: 6",
        b"Content-Length: 5, 5",
        b"Content-Length: +5",
        b"Content-Length: -1",
        b"Content-Length: 0x5",
        b"Content-Length: 5_0",
        b"Content-Length: ",
        b"Content-Length: 1e3",
        b"Content-Length: \xd9\xa3",
        b"Content-Length: 9999999999999999999",
        b"Content-Length : 5",
        b"Content-Length\t: 5",
        b"Content-Length: 5\r\nTransfer-Encoding: chunked",
        b"Transfer-Encoding: chunked\r\nContent-Length: 5",
        b"Transfer-Encoding: chunked, identity",
        b"Transfer-Encoding: identity",
        b"Transfer-Encoding: gzip, chunked",
        b"Transfer-Encoding: xchunked",
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        b"Transfer-Encoding: \x0bchunked",
        b"Transfer-Encoding: chunked;q=1",
        b"Transfer-Encoding:",
        b"Expect: 200-ok",
        b"Content-Type: text/plain\r\nContent-Type: application/json",
        b"Authorization: Bearer a\r\nAuthorization: Bearer b",
        b"X-Folded: one\r\n two",
        b"X-Folded: one\r\n\ttwo",
        b" X-First: folded",
        b"X-Nul: a\x00b",
        b"X-Ctl: a\x01b",
        b"X-Del: a\x7fb",
        b"X-Bare-CR: a\rb",
        b"X-Bare-LF: a\nb: c",
        b"No-Colon",
        b": empty-name",
        b"Bad Name: x",
        b"B\xc3\xa4d: x",
        b"(comment): x",
    ],
)
def test_a_header_that_could_be_read_in_two_ways_is_refused(headers: bytes) -> None:
    assert refused(b"POST /v1/chat/completions HTTP/1.1" + HOST + b"\r\n" + headers) == 400


@pytest.mark.parametrize(
    "host",
    [
        b"",
        b"\r\nHost: a\r\nHost: a",
        b"\r\nHost: a\r\nHost: b",
        b"\r\nHost: x/ ?#@",
        b"\r\nHost: user@a",
        b"\r\nHost: a b",
        b"\r\nHost: a/b",
        b"\r\nHost: a?b",
        b"\r\nHost: a:port",
        b"\r\nHost:",
        b"\r\nHost: a,b",
    ],
)
def test_host_must_come_once_and_be_a_host(host: bytes) -> None:
    assert refused(b"GET /v1/models HTTP/1.1" + host) == 400


@pytest.mark.parametrize("host", [b"localhost", b"127.0.0.1:8080", b"[::1]:8080", b"a-b.example"])
def test_ordinary_hosts_pass(host: bytes) -> None:
    assert parse(b"GET /v1/models HTTP/1.1\r\nHost: " + host).path == "/models"


def test_a_flood_of_headers_is_431() -> None:
    many = b"".join(b"\r\nX-H%d: v" % n for n in range(200))
    assert refused(b"GET /v1/models HTTP/1.1" + HOST + many) == 431


def test_only_end_to_end_headers_go_on() -> None:
    head = parse(
        b"POST /v1/chat/completions HTTP/1.1" + HOST + b"\r\nAuthorization: Bearer secret"
        b"\r\nConnection: keep-alive, X-Hop\r\nX-Hop: 1\r\nKeep-Alive: 3\r\nTE: trailers"
        b"\r\nProxy-Authorization: x\r\nX-Api-Key: k\r\nApi-Key: k\r\nCookie: c"
        b"\r\nX-Penstock-Cache: off\r\nX-Forwarded-For: 1.1.1.1\r\nOpenAI-Organization: theirs"
        b"\r\nX_Forwarded_For: 1.1.1.1\r\nUpgrade: h2c\r\nX-Stainless-Lang: python\r\nX-Custom:   spaced  "
        b"\r\nContent-Length: 2"
    )
    assert head.passed == b"x-stainless-lang: python\r\nx-custom: spaced\r\n"
    assert head.length == 2


def test_keep_alive_follows_version_and_connection() -> None:
    assert parse(b"GET / HTTP/1.1" + HOST).keep_alive
    assert not parse(b"GET / HTTP/1.1" + HOST + b"\r\nConnection: close").keep_alive
    assert not parse(b"GET / HTTP/1.0").keep_alive
    assert parse(b"GET / HTTP/1.0\r\nConnection: Keep-Alive").keep_alive


def test_chunked_is_known_by_its_name_in_any_case() -> None:
    head = parse(b"POST / HTTP/1.1" + HOST + b"\r\nTransfer-Encoding: Chunked")
    assert head.length == CHUNKED


def test_chunked_in_http_1_0_is_refused() -> None:
    assert refused(b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked") == 400


@given(st.binary(max_size=400))
def test_no_bytes_make_it_fail_in_another_way(data: bytes) -> None:
    for text in (data, b"GET / HTTP/1.1\r\n" + data, b"GET / HTTP/1.1" + HOST + b"\r\nX: " + data):
        try:
            head = parse(text)
        except CallerError as error:
            assert error.status in (400, 401, 405, 413, 414, 431)
        else:
            assert b"\n\n" not in head.passed and b"\x00" not in head.passed


def learn(data: bytes) -> None:
    end = data.index(b"\r\n\r\n")
    remember(data, end, parse(data[:end]))


def recalled(data: bytes) -> int | None:
    found = recall(data, data.index(b"\r\n\r\n"))
    return None if found is None else found[1]


CHAT = b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nContent-Length: %b\r\nX-One: 1\r\n\r\n"


def test_a_head_met_before_is_known_by_all_but_its_length() -> None:
    learn(CHAT % b"12")
    assert recalled(CHAT % b"12") == 12
    assert recalled(CHAT % b"99999") == 99999


@pytest.mark.parametrize(
    "length", [b"+5", b"5 ", b" 5", b"5, 5", b"0x5", b"", b"-1", b"\xd9\xa3", b"1" * 19, b"5_0"]
)
def test_a_length_that_is_no_plain_number_is_never_taken_from_memory(length: bytes) -> None:
    learn(CHAT % b"12")
    assert recalled(CHAT % length) is None


def test_only_the_length_may_differ() -> None:
    learn(CHAT % b"12")
    assert recalled((CHAT % b"12").replace(b"X-One: 1", b"X-One: 2")) is None
    assert recalled((CHAT % b"12").replace(b"\r\nX-One", b"\r\nContent-Length: 12\r\nX-One")) is None
    assert recalled((CHAT % b"12").replace(b"\r\nX-One", b"\r\nTransfer-Encoding: chunked\r\nX-One")) is None


def test_a_number_in_another_header_is_not_taken_for_the_length() -> None:
    data = b"POST /v1/files HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nX-Strength: 7\r\n\r\n"
    learn(data)
    assert recalled(data) is None
    assert recalled(data.replace(b"7", b"999")) is None


@given(st.binary(max_size=60), st.binary(max_size=12))
def test_what_is_recalled_is_what_would_be_parsed(name: bytes, length: bytes) -> None:
    data = b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\n%bContent-Length: %b\r\n\r\n"
    end = len(data % (name, b"3")) - 4
    try:
        remember(data % (name, b"3"), end, parse((data % (name, b"3"))[:end]))
    except CallerError:
        return
    other = data % (name, length)
    found = recall(other, other.index(b"\r\n\r\n"))
    if found is not None:
        assert parse(other[: other.index(b"\r\n\r\n")]).length == found[1]


PARENT = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def test_a_valid_trace_context_goes_on_and_its_id_is_known() -> None:
    head = parse(b"GET / HTTP/1.1" + HOST + b"\r\nTraceparent: " + PARENT + b"\r\nTracestate: a=1")
    assert head.trace == "0af7651916cd43dd8448eb211c80319c"
    assert head.passed == b"traceparent: " + PARENT + b"\r\ntracestate: a=1\r\n"


@pytest.mark.parametrize(
    "value", [PARENT.upper(), PARENT[:-1], b"ff" + PARENT[2:], b"00-" + b"0" * 32 + PARENT[35:]]
)
def test_an_invalid_trace_context_goes_no_further(value: bytes) -> None:
    head = parse(b"GET / HTTP/1.1" + HOST + b"\r\nTraceparent: " + value + b"\r\nTracestate: a=1")
    assert (head.trace, head.passed) == ("", b"")
