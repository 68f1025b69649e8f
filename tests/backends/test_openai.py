"""The OpenAI backend: what arrives upstream, and what comes back, byte for byte."""

from __future__ import annotations

import gzip
import json
import zlib
from typing import Any

import pytest

from gateway.core.errors import UpstreamError
from gateway.core.route import Target
from gateway.core.tap import BodyTap
from gateway.core.usage import ESTIMATED, NONE, PROVIDER, Usage
from gateway.settings.schema import Deadlines
from gateway.settings.secret import Secret
from tests.backends.given import (
    COMPLETION,
    KEY,
    USAGE,
    Seen,
    backend,
    call,
    chunked,
    document,
    reply,
    run,
    upstream,
    whole,
)

SEEN = Usage(input=11, output=7, source=PROVIDER)
UP = Target("up")
CHAT = {"model": "m", "messages": [{"role": "user", "content": "Hello"}]}


def frame(value: Any) -> bytes:
    return b"data: " + json.dumps(value).encode() + b"\n\n"


CHUNKS = [
    frame({"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]}),
    frame({"choices": [{"index": 0, "delta": {"content": "hi"}}]}),
    frame({"choices": [], "usage": USAGE}),
    b"data: [DONE]\n\n",
]


# -- what arrives


def test_the_body_arrives_byte_for_byte() -> None:
    body = b'{ "model":"m", "big": 12345678901234567890123, "far":1e400,\r\n "half":0.50, "x":{"b":1,"a":2} }'
    made = call(body=b'{"model":"m"}')
    made.body = body

    async def scenario() -> None:
        async with upstream(lambda seen: document(COMPLETION)) as up, backend(up.port) as asked:
            await asked.ask(made, UP)
            assert up.seen[0].body == body
            assert up.seen[0].header("content-length") == [str(len(body))]

    run(scenario())


@pytest.mark.parametrize(
    ("path", "base", "query", "target"),
    [
        ("/chat/completions", "/v1", b"", "/v1/chat/completions"),
        ("/chat/completions", "", b"", "/chat/completions"),
        ("/chat/completions", "/api/openai/v1", b"a=b&c", "/api/openai/v1/chat/completions?a=b&c"),
        ("/files/file-1/content", "/v1", b"", "/v1/files/file-1/content"),
        ("/models/org%2Fname", "/v1", b"", "/v1/models/org%2Fname"),
    ],
)
def test_the_path_is_appended_and_the_query_kept(path: str, base: str, query: bytes, target: str) -> None:
    async def scenario() -> None:
        async with upstream(lambda seen: document(COMPLETION)) as up, backend(up.port, path=base) as asked:
            for _ in range(2):
                await asked.ask(call(path, CHAT, query=query), UP)
            assert [seen.target for seen in up.seen] == [target, target]

    run(scenario())


def test_the_provider_gets_its_own_credential_and_the_clients_headers() -> None:
    passed = b"user-agent: sdk/1\r\ncontent-type: application/json\r\nopenai-beta: x=1\r\n"

    async def scenario() -> None:
        async with upstream(lambda seen: document(COMPLETION)) as up, backend(up.port) as asked:
            await asked.ask(call(value=CHAT, passed=passed), UP)
            seen = up.seen[0]
            assert seen.header("host") == [f"127.0.0.1:{up.port}"]
            assert seen.header("authorization") == [f"Bearer {KEY}"]
            assert seen.header("user-agent") == ["sdk/1"]
            assert seen.header("openai-beta") == ["x=1"]
            assert seen.header("accept-encoding") == ["identity"]

    run(scenario())


def test_headers_of_the_settings_replace_the_clients() -> None:
    passed = b"user-agent: evil\r\nx-team: evil\r\ncontent-type: application/json\r\n"
    rest: dict[str, Any] = {
        "headers": (("X-Team", "ours"), ("User-Agent", "penstock")),
        "secret_headers": (("authorization", Secret("Basic abc")),),
    }

    async def scenario() -> None:
        async with upstream(lambda seen: document(COMPLETION)) as up, backend(up.port, **rest) as asked:
            await asked.ask(call(value=CHAT, passed=passed), UP)
            seen = up.seen[0]
            assert (seen.header("x-team"), seen.header("user-agent")) == (["ours"], ["penstock"])
            assert seen.header("authorization") == ["Basic abc"]
            assert seen.header("content-type") == ["application/json"]

    run(scenario())


def test_without_a_key_no_credential_is_sent() -> None:
    async def scenario() -> None:
        async with upstream(lambda seen: document(COMPLETION)) as up, backend(up.port, keys=()) as asked:
            await asked.ask(call(value=CHAT), UP)
            assert up.seen[0].header("authorization") == []

    run(scenario())


def test_a_header_with_a_line_break_never_leaves_the_settings() -> None:
    async def scenario() -> None:
        with pytest.raises(ValueError, match="control character"):
            async with backend(1, keys=("key\r\nx-evil: 1",)):
                raise AssertionError("it was built")

    run(scenario())


def test_a_renamed_model_changes_nothing_else() -> None:
    body = b'{"messages":[{"content":"\\"model\\":1"}],"metadata":{"model":"x"}, "model" : "alias" ,"n":1.0}'

    async def scenario() -> None:
        async with upstream(lambda seen: document(COMPLETION)) as up, backend(up.port) as asked:
            await asked.ask(call(body=body), Target("up", "gpt-4o"))
            assert up.seen[0].body == body.replace(b'"alias"', b'"gpt-4o"')

    run(scenario())


def test_a_form_gets_the_renamed_model_and_its_file_stays() -> None:
    file = bytes(range(256)) * 10
    body = (
        b'--B\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n' + file + b"\r\n"
        b'--B\r\nContent-Disposition: form-data; name="model"\r\n\r\nalias\r\n--B--\r\n'
    )
    made = call("/audio/transcriptions", body=body)
    made.headers = [(b"content-type", b"multipart/form-data; boundary=B")]
    made.model = "alias"

    async def scenario() -> None:
        async with upstream(lambda seen: document({"text": "hi"})) as up, backend(up.port) as asked:
            await asked.ask(made, Target("up", "whisper-1"))
            assert up.seen[0].body == body.replace(b"alias", b"whisper-1")

    run(scenario())


@pytest.mark.parametrize(
    ("given_", "sent"),
    [
        (
            b'{"model":"m","stream":true}',
            b'{"model":"m","stream":true,"stream_options":{"include_usage":true}}',
        ),
        (
            b'{"stream_options": null,"stream":true}',
            b'{"stream_options": {"include_usage":true},"stream":true}',
        ),
        (
            b'{"stream":true,"stream_options":{"x" : 1.0}}',
            b'{"stream":true,"stream_options":{"x" : 1.0,"include_usage":true}}',
        ),
        (
            b'{"stream":true,"stream_options":{"include_usage":false}}',
            b'{"stream":true,"stream_options":{"include_usage":true}}',
        ),
    ],
)
def test_usage_is_asked_for_on_streams_and_kept_from_the_client(given_: bytes, sent: bytes) -> None:
    async def scenario() -> None:
        async with upstream(lambda seen: chunked(CHUNKS)) as up, backend(up.port) as asked:
            answer = await asked.ask(call(body=given_), UP)
            assert up.seen[0].body == sent
            assert answer.event_stream
            assert await whole(answer) == b"".join([*CHUNKS[:2], CHUNKS[3]])
            assert answer.tap is not None and answer.tap.usage == SEEN  # type: ignore[attr-defined]

    run(scenario())


@pytest.mark.parametrize(
    ("path", "body", "settings"),
    [
        ("/chat/completions", b'{"stream":true,"stream_options":{"include_usage":true}}', {}),
        ("/chat/completions", b'{"stream":true,"stream_options":"odd"}', {}),
        ("/chat/completions", b'{"stream":true}', {"stream_usage": False}),
        ("/chat/completions", b'{"stream":"yes"}', {}),
        ("/audio/speech", b'{"stream":true}', {}),
    ],
)
def test_otherwise_a_stream_passes_as_it_is(path: str, body: bytes, settings: dict[str, Any]) -> None:
    async def scenario() -> None:
        async with upstream(lambda seen: chunked(CHUNKS)) as up, backend(up.port, **settings) as asked:
            answer = await asked.ask(call(path, body=body), UP)
            assert up.seen[0].body == body
            assert await whole(answer) == b"".join(CHUNKS)
            assert answer.tap is not None and answer.tap.usage == SEEN  # type: ignore[attr-defined]

    run(scenario())


@pytest.mark.parametrize("field", ["api_base", "base_url", "api_key", "extra_headers", "custom_llm_provider"])
def test_nothing_in_a_body_changes_where_a_call_goes_or_with_which_credential(field: str) -> None:
    value = {**CHAT, field: "http://127.0.0.1:1/evil", "extra_body": {field: "x"}}
    passed = b"%b: http://127.0.0.1:1\r\n" % field.replace("_", "-").encode()

    async def scenario() -> None:
        async with upstream(lambda seen: document(COMPLETION)) as up, backend(up.port) as asked:
            await asked.ask(call(value=value, passed=passed), UP)
            assert up.seen[0].header("authorization") == [f"Bearer {KEY}"]
            assert up.seen[0].target == "/v1/chat/completions"

    run(scenario())


# -- what comes back


def test_an_answer_comes_back_byte_for_byte_with_its_usage() -> None:
    body = b'{ "usage" : {"prompt_tokens":11,"completion_tokens":7} , "x": 1e400 }'

    async def scenario() -> None:
        async with upstream(lambda seen: reply(200, body)) as up, backend(up.port) as asked:
            made = call(value=CHAT)
            answer = await asked.ask(made, UP)
            assert (answer.status, answer.body) == (200, body)
            assert made.sent and made.first_byte >= made.sent
            assert made.connect_time > 0

    run(scenario())


@pytest.mark.parametrize("more", [{}, {"http2": True}])
@pytest.mark.parametrize("kind", [b"", b"content-type: text/event-stream\r\n"])
def test_an_answer_without_a_body_does_not_come_in_pieces(kind: bytes, more: dict[str, Any]) -> None:
    async def scenario() -> None:
        head = b"HTTP/1.1 204 No Content\r\n%b\r\n" % kind
        async with upstream(lambda seen: head) as up, backend(up.port, **more) as asked:
            answer = await asked.ask(call(value=CHAT), UP)
            assert (answer.status, answer.body, answer.source) == (204, b"", None)

    run(scenario())


@pytest.mark.parametrize("more", [{}, {"http2": True}])
@pytest.mark.parametrize("kind", [b"application/json", b"application/octet-stream"])
def test_the_answer_to_a_head_request_keeps_the_length_of_the_body_it_speaks_of(
    kind: bytes, more: dict[str, Any]
) -> None:
    async def scenario() -> None:
        head = b"HTTP/1.1 200 OK\r\ncontent-type: %b\r\ncontent-length: 5000\r\n\r\n" % kind
        async with upstream(lambda seen: head) as up, backend(up.port, **more) as asked:
            answer = await asked.ask(call("/files/file-1/content", method="HEAD"), UP)
            assert answer.body is None and answer.source is not None
            assert (answer.source.length, await answer.source.read()) == (5000, b"")

    run(scenario())


def test_a_stream_in_a_coding_that_nobody_asked_for_passes_unread() -> None:
    async def scenario() -> None:
        head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-encoding: br\r\n"
        whole = head + b"content-length: 4\r\n\r\nzzzz"
        async with upstream(lambda seen: whole) as up, backend(up.port) as asked:
            answer = await asked.ask(call(value={**CHAT, "stream": True}), UP)
            assert answer.source is not None and isinstance(answer.tap, BodyTap)
            assert answer.tap.feed(await answer.source.read()) == b"zzzz"
            assert (answer.tap.finish(), answer.tap.done) == (b"", True)
            assert (b"content-encoding", b"br") in answer.headers

    run(scenario())


STATED = b'"usage":{"prompt_tokens":11,"completion_tokens":7}}'


@pytest.mark.parametrize(
    "body",
    [
        b'{"x":-Infinity,' + STATED,
        b'{"x":NaN,' + STATED,
        b'{"x":1e400,' + STATED,
        b'{"x":"\\ud800",' + STATED,
        b'{"x":"\xe9",' + STATED,
        b'\xef\xbb\xbf{"x":1,' + STATED,
    ],
)
def test_an_answer_that_is_not_strictly_json_comes_back_as_it_is_and_its_usage_counts(body: bytes) -> None:
    async def scenario() -> None:
        async with upstream(lambda seen: reply(200, body)) as up, backend(up.port) as asked:
            made = call(value=CHAT)
            answer = await asked.ask(made, UP)
            assert answer.body == body
            assert (made.usage.source, made.usage.input, made.usage.output) == ("provider", 11, 7)

    run(scenario())


@pytest.mark.parametrize(
    "kind", [b"", b"content-type: text/plain\r\n", b"content-type: application/x+json\r\n"]
)
def test_an_answer_is_known_for_a_document_whatever_its_server_calls_it(kind: bytes) -> None:
    body = b"{" + STATED
    head = b"HTTP/1.1 200 OK\r\n%bcontent-length: %d\r\n\r\n" % (kind, len(body))

    async def scenario() -> None:
        async with upstream(lambda seen: head + body) as up, backend(up.port) as asked:
            made = call(value=CHAT)
            answer = await asked.ask(made, UP)
            assert answer.body == body
            assert (made.usage.source, made.usage.input, made.usage.output) == ("provider", 11, 7)

    run(scenario())


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("/chat/completions", COMPLETION),
        ("/completions", {"choices": [{"text": "x"}], "usage": USAGE}),
        ("/responses", {"output": [], "usage": {"input_tokens": 11, "output_tokens": 7}}),
        ("/images/generations", {"data": [], "usage": {"input_tokens": 11, "output_tokens": 7}}),
        ("/chat/completions", {**COMPLETION, "padding": "x" * 100_000}),
        ("/chat/completions", {"usage": USAGE, "padding": ["x" * 1000] * 100}),
    ],
)
def test_usage_is_read_from_every_answer_that_has_one(path: str, value: Any) -> None:
    async def scenario() -> None:
        async with upstream(lambda seen: document(value)) as up, backend(up.port) as asked:
            made = call(path, CHAT)
            await asked.ask(made, UP)
            assert made.usage == SEEN

    run(scenario())


def test_an_answer_without_usage_is_estimated() -> None:
    value = {"choices": [{"message": {"content": "word " * 40}}]}

    async def scenario() -> None:
        async with upstream(lambda seen: document(value)) as up, backend(up.port) as asked:
            made = call(value=CHAT)
            await asked.ask(made, UP)
            assert made.usage.source == ESTIMATED
            assert (made.usage.output, made.usage.input > 0) == (50, True)
            assert made.memo["text"] == b"word " * 40

    run(scenario())


@pytest.mark.parametrize(
    ("method", "path", "endpoint"),
    [("GET", "/responses/resp_1", "responses"), ("POST", "/responses/resp_1/cancel", "responses")],
)
def test_what_was_made_before_is_not_counted_again(method: str, path: str, endpoint: str) -> None:
    value = {"status": "completed", "usage": {"input_tokens": 11, "output_tokens": 7}}

    async def scenario() -> None:
        async with upstream(lambda seen: document(value)) as up, backend(up.port) as asked:
            made = call(path, method=method, endpoint=endpoint)
            await asked.ask(made, UP)
            assert made.usage.source == NONE

    run(scenario())


def test_a_compaction_is_paid_for_as_the_answers_are() -> None:
    value = {"object": "response.compaction", "usage": {"input_tokens": 11, "output_tokens": 7}}

    async def scenario() -> None:
        async with upstream(lambda seen: document(value)) as up, backend(up.port) as asked:
            made = call("/responses/compact", {"model": "up", "input": "x"}, endpoint="responses")
            await asked.ask(made, UP)
            assert (made.usage.input, made.usage.output) == (11, 7)

    run(scenario())


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_an_encoded_answer_passes_as_it_is_and_is_looked_into(encoding: str) -> None:
    plain = json.dumps(COMPLETION).encode()
    body = gzip.compress(plain) if encoding == "gzip" else zlib.compress(plain)

    async def scenario() -> None:
        answering = reply(200, body, f"content-encoding: {encoding}")
        async with upstream(lambda seen: answering) as up, backend(up.port) as asked:
            made = call(value=CHAT)
            answer = await asked.ask(made, UP)
            assert answer.body == body
            assert (b"content-encoding", encoding.encode()) in answer.headers
            assert made.usage == SEEN

    run(scenario())


@pytest.mark.parametrize(
    "body",
    [b"\x00\x01 no gzip", gzip.compress(b"{" * 10, mtime=0)[:-5], gzip.compress(bytes(8 << 20), mtime=0)],
)
def test_an_answer_that_is_badly_encoded_still_passes(body: bytes) -> None:
    async def scenario() -> None:
        answering = reply(200, body, "content-encoding: gzip")
        async with upstream(lambda seen: answering) as up, backend(up.port) as asked:
            assert (await asked.ask(call(value=CHAT), UP)).body == body

    run(scenario())


def test_an_encoded_stream_comes_out_in_plain() -> None:
    data = gzip.compress(b"".join(CHUNKS))
    pieces = [data[at : at + 7] for at in range(0, len(data), 7)]

    async def scenario() -> None:
        answering = chunked(pieces, "content-encoding: gzip")
        async with upstream(lambda seen: answering) as up, backend(up.port) as asked:
            answer = await asked.ask(call(value={**CHAT, "stream": True}), UP)
            assert await whole(answer) == b"".join([*CHUNKS[:2], CHUNKS[3]])
            assert b"content-encoding" not in dict(answer.headers)
            assert answer.tap is not None and answer.tap.usage == SEEN  # type: ignore[attr-defined]
            assert answer.tap.clean and answer.tap.first_token and not answer.tap.text  # type: ignore[attr-defined]

    run(scenario())


def test_a_long_answer_streams_through_and_its_usage_is_found_at_the_end() -> None:
    body = json.dumps({"data": ["x" * 1000] * 3000, "usage": USAGE}).encode()

    async def scenario() -> None:
        async with upstream(lambda seen: reply(200, body)) as up, backend(up.port) as asked:
            answer = await asked.ask(call("/embeddings", CHAT), UP)
            assert answer.source is not None and not answer.event_stream
            assert await whole(answer) == body
            assert answer.tap is not None and answer.tap.usage == SEEN  # type: ignore[attr-defined]

    run(scenario())


def test_what_is_no_json_streams_through_untouched() -> None:
    pieces = [bytes([n]) * 100 for n in range(50)]

    async def scenario() -> None:
        async with upstream(lambda seen: chunked(pieces, kind="audio/mpeg")) as up, backend(up.port) as asked:
            answer = await asked.ask(call("/audio/speech", CHAT), UP)
            assert answer.tap is None
            assert await whole(answer) == b"".join(pieces)

    run(scenario())


def test_only_end_to_end_headers_of_use_to_the_caller_come_back() -> None:
    headers = [
        "x-request-id: up-1",
        "set-cookie: __cf=1",
        "x-ratelimit-remaining-requests: 5",
        "x-penstock-target: evil",
        "openai-organization: secret-org",
        "openai-processing-ms: 12",
        "retry-after: 3",
        "x-custom: kept",
    ]

    async def scenario() -> None:
        async with upstream(lambda seen: document(COMPLETION, *headers)) as up, backend(up.port) as asked:
            answer = await asked.ask(call(value=CHAT), UP)
            assert sorted(answer.headers) == [
                (b"content-type", b"application/json"),
                (b"openai-processing-ms", b"12"),
                (b"retry-after", b"3"),
                (b"x-custom", b"kept"),
                (b"x-upstream-request-id", b"up-1"),
            ]

    run(scenario())


def test_an_error_is_an_answer_and_never_shows_the_credential() -> None:
    value = {"error": {"message": f"Incorrect API key provided: {KEY}."}}

    async def scenario() -> None:
        async with upstream(lambda seen: document(value, status=401)) as up, backend(up.port) as asked:
            answer = await asked.ask(call(value=CHAT), UP)
            assert answer.status == 401
            assert answer.body == json.dumps(value).encode().replace(KEY.encode(), b"***")
            assert KEY not in repr(vars(asked))

    run(scenario())


def test_an_error_never_shows_the_credential_of_a_forward_proxy() -> None:
    def told(seen: Seen) -> bytes:
        return document({"error": {"message": f"{seen.header('proxy-authorization')} p@ss word"}}, status=500)

    async def scenario() -> None:
        async with upstream(told) as up:
            proxy = Secret(f"http://user:p%40ss%20word@127.0.0.1:{up.port}")
            async with backend(up.port, proxy=proxy) as asked:
                answer = await asked.ask(call(value=CHAT), UP)
                assert up.seen[0].header("proxy-authorization")
                assert json.loads(answer.body)["error"]["message"] == "['Basic ***'] ***"

    run(scenario())


@pytest.mark.parametrize("coding", ["identity", "gzip"])
@pytest.mark.parametrize("path", ["/chat/completions", "/responses"])
def test_a_stream_never_shows_the_credential(path: str, coding: str) -> None:
    told = frame({"error": {"message": f"No quota for {KEY}."}})
    sent = gzip.compress(told) if coding == "gzip" else told
    stream = chunked([sent], f"content-encoding: {coding}")

    async def scenario() -> None:
        async with upstream(lambda seen: stream) as up, backend(up.port) as asked:
            answer = await asked.ask(call(path, {**CHAT, "stream": True}), UP)
            assert await whole(answer) == told.replace(KEY.encode(), b"***")

    run(scenario())


# -- several keys


def test_several_keys_take_turns() -> None:
    async def scenario() -> None:
        async with (
            upstream(lambda seen: document(COMPLETION)) as up,
            backend(up.port, keys=("a", "b", "c")) as asked,
        ):
            for _ in range(6):
                await asked.ask(call(value=CHAT), UP)
            sent = [seen.header("authorization")[0][-1] for seen in up.seen]
            assert sent == ["a", "b", "c", "a", "b", "c"]

    run(scenario())


@pytest.mark.parametrize("status", [401, 403, 429])
def test_a_key_that_was_refused_rests(status: int) -> None:
    async def scenario() -> None:
        def answer(seen: Any) -> bytes:
            bad = seen.header("authorization") == ["Bearer a"]
            return document(COMPLETION, "retry-after: 30", status=status if bad else 200)

        async with upstream(answer) as up, backend(up.port, keys=("a", "b")) as asked:
            for _ in range(5):
                await asked.ask(call(value=CHAT), UP)
            assert "".join(seen.header("authorization")[0][-1] for seen in up.seen) == "abbbbb"

    run(scenario())


# -- the list of models


def test_the_list_of_models_is_asked_for_once() -> None:
    listed = {"data": [{"id": "a"}, {"id": "b"}]}

    async def scenario() -> None:
        async with upstream(lambda seen: document(listed)) as up, backend(up.port) as asked:
            assert [await asked.models() for _ in range(3)] == [listed["data"]] * 3
            assert [(seen.method, seen.target) for seen in up.seen] == [("GET", "/v1/models")]

    run(scenario())


@pytest.mark.parametrize(
    "answering",
    [document({}, status=500), document({"data": 3}), reply(200, b"<html>"), document([{"id": 1}])],
)
def test_a_list_that_is_none_is_an_upstream_error(answering: bytes) -> None:
    async def scenario() -> None:
        async with upstream(lambda seen: answering) as up, backend(up.port) as asked:
            for _ in range(2):
                with pytest.raises(UpstreamError, match="does not list its models"):
                    await asked.models()
            assert len(up.seen) == 1

    run(scenario())


def test_a_provider_that_is_away_is_an_upstream_error() -> None:
    async def scenario() -> None:
        async with backend(1, timeout=Deadlines(connect=1)) as asked:
            with pytest.raises(UpstreamError) as caught:
                await asked.ask(call(value=CHAT), UP)
            assert caught.value.code == "upstream_connect_failed"
            with pytest.raises(UpstreamError):
                await asked.models()

    run(scenario())


@pytest.mark.parametrize("more", [[], ["connection: close"], ["x-odd:tight"]])
def test_the_same_headers_go_on_whether_the_head_was_looked_up_or_parsed(more: list[str]) -> None:
    async def scenario() -> None:
        said = [
            "Server: x", "X-Request-ID: r1", "X-RateLimit-Remaining: 3", "Set-Cookie: a=b",
            "OpenAI-Version: 2020-10-01", *more,
        ]  # fmt: skip
        async with upstream(lambda _: document(COMPLETION, *said)) as there, backend(there.port) as up:
            for _ in range(2):
                made = call(value={"model": "m"})
                answer = await up.ask(made, Target("up"))
                assert bool(answer.wire) is not bool(more)
                assert answer.headers[:3] == [
                    (b"content-type", b"application/json"),
                    (b"x-upstream-request-id", b"r1"),
                    (b"openai-version", b"2020-10-01"),
                ]
                assert made.usage.total == 18

    run(scenario())


def test_two_calls_for_one_path_keep_their_own_queries_models_and_methods() -> None:
    async def scenario() -> None:
        async with upstream(lambda _: document(COMPLETION)) as there, backend(there.port) as up:
            for query in (b"", b"a=1", b"", b"b=2"):
                await up.ask(call(value={"model": "m"}, query=query), Target("up"))
            await up.ask(call(path="/files", method="GET"), Target("up"))
            await up.ask(call(path="/files", method="POST"), Target("up"))
            assert [(seen.method, seen.target) for seen in there.seen] == [
                ("POST", "/v1/chat/completions"),
                ("POST", "/v1/chat/completions?a=1"),
                ("POST", "/v1/chat/completions"),
                ("POST", "/v1/chat/completions?b=2"),
                ("GET", "/v1/files"),
                ("POST", "/v1/files"),
            ]

    run(scenario())


def test_a_stream_of_a_message_passes_as_it_is_and_is_read_from_both_ends() -> None:
    begun = {"input_tokens": 9, "cache_read_input_tokens": 50, "output_tokens": 1}
    pieces = [
        frame({"type": "message_start", "message": {"usage": begun}}),
        frame({"type": "content_block_delta", "delta": {"type": "text_delta", "text": f"say {KEY}"}}),
        frame({"type": "message_delta", "delta": {}, "usage": {"output_tokens": 7}}),
        frame({"type": "message_stop"}),
    ]

    async def scenario() -> None:
        async with upstream(lambda seen: chunked(pieces)) as up, backend(up.port) as asked:
            body = b'{"model":"m","stream":true}'
            answer = await asked.ask(call("/messages", body=body), UP)
            got = await whole(answer)
            assert (got.count(b"data: "), KEY.encode() in got) == (4, False)
            assert up.seen[0].body == body
            tap: Any = answer.tap
            assert tap.usage == Usage(input=9, cached_input=50, output=7, source=PROVIDER)
            assert tap.text.startswith(b"say ") and tap.done

    run(scenario())
