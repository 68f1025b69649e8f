"""Bodies: parsed once, refused clearly, never a fault of ours."""

import gzip
import json
import sys
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.call import Call
from gateway.core.errors import CallerError
from gateway.front.body import read

LIMIT = 1 << 20


def call(body: bytes, endpoint: str = "chat/completions", **headers: str) -> Call:
    pairs = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return Call("POST", "/" + endpoint, endpoint, pairs, body)


def refused(made: Call) -> CallerError:
    with pytest.raises(CallerError) as caught:
        read(made, LIMIT)
    return caught.value


def test_model_and_stream_are_found() -> None:
    made = call(b'{"model":"m","stream":true,"unknown":[1]}')
    read(made, LIMIT)
    assert (made.model, made.stream, made.document and made.document["unknown"]) == ("m", True, [1])


@pytest.mark.parametrize("padding", [b"", b"x" * 20_000])
def test_numbers_that_no_double_holds_are_json_and_stay_as_they_are(padding: bytes) -> None:
    long = b"1" * 400
    body = b'{"messages":["%b"],"model":"m","x":[1e400,-1E+999,%b,{"y":"1e400"}]}' % (padding, long)
    made = call(body)
    read(made, LIMIT)
    assert made.body is body and made.model == "m"
    assert made.document is not None
    assert made.document["x"] == [sys.float_info.max, -sys.float_info.max, sys.float_info.max, {"y": "1e400"}]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"not json",
        b"[]",
        b'"text"',
        b"1",
        b"null",
        b"true",
        b'{"model":"m","x":NaN}',
        b'{"model":"m","x":Infinity}',
        b'{"model":"m","x":1e400,}',
        b'{"model":"m","x":1e400,"y":NaN}',
        b'{"model":"m","x":1e400,"y":"\\ud800"}',
        b'{"model":"m","x":01e400}',
        b'{"model":"m","x":1e400,"y":"' + b'\\"' * 100_000,
        b'{"model":"m","x":1e400,"y":"%b"}' % (b"a" * 300_000),
        b'{"model":"a","x":1e400,"model":"b"}',
        b'{"model":"m","x":"\\ud800"}',
        b'{"model":"m"',
        b'{"model":"m"}{"model":"m"}',
        b'{"model":"m","x":"\xff"}',
        b'\xef\xbb\xbf{"model":"m"}',
        b'{"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
        b'{"messages":[]}',
        b'{"model":null}',
        b'{"model":7}',
        b'{"model":["m"]}',
        b'{"model":"a","model":"b"}',
        b'{"model":"a","mod\\u0065l":"b"}',
        b'{"mod\\u0065l":"a","m\\u006fdel":"b"}',
    ],
)
def test_a_bad_body_is_400(body: bytes) -> None:
    assert refused(call(body)).status == 400


@pytest.mark.parametrize(
    "body", [b'{"model":"a","Model":"b"}', b'{"MODEL":"b"}', b'{"model":"a","mod\\u0045l":"b"}']
)
def test_the_model_is_written_in_small_letters(body: bytes) -> None:
    assert refused(call(body)).status == 400
    json_elsewhere = call(body, "other", content_type="Application/JSON")
    assert refused(json_elsewhere).status == 400


def test_a_media_type_has_no_case() -> None:
    data = form(("model", b"whisper-1"))
    made = call(data, "audio/transcriptions", content_type="Multipart/Form-Data; Boundary=bo-und")
    read(made, LIMIT)
    assert made.model == "whisper-1"


def test_two_models_are_refused_on_unknown_paths_too() -> None:
    twice = call(b'{"model":"a","model":"b"}', "other", content_type="application/json")
    assert refused(twice).status == 400


def test_model_may_stand_deeper_a_second_time() -> None:
    made = call(b'{"model":"m","metadata":{"model":"x"},"tools":[{"model":"y"}]}')
    read(made, LIMIT)
    assert made.model == "m"


def test_a_gzip_body_is_decoded() -> None:
    made = call(gzip.compress(b'{"model":"m"}'), content_encoding="gzip")
    read(made, LIMIT)
    assert (made.body, made.model) == (b'{"model":"m"}', "m")


def test_a_gzip_bomb_is_413() -> None:
    bomb = gzip.compress(b" " * (64 << 20))
    assert refused(call(bomb, content_encoding="gzip")).status == 413


WHOLE = gzip.compress(b"{}", mtime=0)  # the same in every test process


@pytest.mark.parametrize("body", [b"plain", WHOLE[:-4], WHOLE + b"x", b""])
def test_a_broken_gzip_body_is_400(body: bytes) -> None:
    assert refused(call(body, content_encoding="gzip")).status == 400


def test_deflate_is_decoded_and_other_codings_are_415() -> None:
    made = call(zlib.compress(b'{"model":"m"}'), content_encoding="deflate")
    read(made, LIMIT)
    assert made.model == "m"
    assert refused(call(b"x", content_encoding="br")).status == 415
    assert refused(call(b"x", content_encoding="gzip, gzip")).status == 415


def form(*parts: tuple[str, bytes], boundary: bytes = b"bo-und") -> bytes:
    made = b""
    for name, value in parts:
        made += b'--%b\r\nContent-Disposition: form-data; name="%b"\r\n\r\n%b\r\n' % (
            boundary,
            name.encode(),
            value,
        )
    return made + b"--" + boundary + b"--\r\n"


def test_the_model_of_a_form_is_found_and_the_bytes_stay() -> None:
    data = form(("file", b"\x00\xff" * 5000), ("model", b"whisper-1"))
    made = call(data, "audio/transcriptions", content_type="multipart/form-data; boundary=bo-und")
    read(made, LIMIT)
    assert (made.model, made.body) == ("whisper-1", data)


def test_a_form_with_two_models_or_no_boundary_is_400() -> None:
    twice = form(("model", b"a"), ("model", b"b"))
    kind = "multipart/form-data; boundary=bo-und"
    assert refused(call(twice, "audio/transcriptions", content_type=kind)).status == 400
    assert refused(call(twice, "audio/transcriptions", content_type="multipart/form-data")).status == 400


def test_unknown_paths_take_any_bytes() -> None:
    made = call(b"\x00\xffanything", "other", content_type="application/json")
    read(made, LIMIT)
    assert (made.model, made.body) == ("", b"\x00\xffanything")


@given(st.binary(max_size=300), st.sampled_from(["application/json", "multipart/form-data; boundary=x", ""]))
def test_no_bytes_make_it_fail_in_another_way(body: bytes, kind: str) -> None:
    for endpoint in ("chat/completions", "audio/transcriptions", "other"):
        try:
            read(call(body, endpoint, content_type=kind), LIMIT)
        except CallerError as error:
            assert error.status in (400, 413, 415)


@given(st.dictionaries(st.text(max_size=8), st.one_of(st.text(max_size=8), st.integers(), st.none())))
def test_every_json_object_with_a_model_passes(document: dict[str, object]) -> None:
    document["model"] = "m"
    made = call(json.dumps(document).encode())
    try:
        read(made, LIMIT)
    except CallerError:  # integers beyond 64 bits and lone surrogates are not JSON to us
        assert any(
            isinstance(v, int) and abs(v) >= 1 << 63 for v in document.values()
        ) or "\\ud" in json.dumps(document)
    else:
        assert made.model == "m"


def verdict(body: bytes) -> tuple[str, object]:
    """What becomes of a body: its document, or its refusal."""
    made = call(body)
    try:
        read(made, LIMIT)
    except CallerError as error:
        return "refused", error.message
    return made.model, made.document


_names = st.sampled_from(["model", "messages", "input", "m\\u006fdel", "mod\\u0065l", "tools", "n"])
_leaves = st.sampled_from(
    ['"x"', "1", '"]"', '"[{"', '"\\"model\\":"', "null", "NaN", "01", '"\\ud800"', "[]"]
)
_values = st.recursive(
    _leaves,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda each: f"[{', '.join(each)}]"),
        st.lists(st.tuples(_names, inner), max_size=3).map(
            lambda each: "{" + ",".join(f'"{name}" : {value}' for name, value in each) + "}"
        ),
    ),
    max_leaves=8,
)
_members = st.lists(st.tuples(_names, _values), min_size=1, max_size=5)
_tails = st.sampled_from(["}", "]}", "}]", "", '"}', "} x"])


@given(_members, _tails)
def test_a_large_body_is_judged_as_if_it_were_parsed_in_one(
    members: list[tuple[str, str]], tail: str
) -> None:
    text = "{" + ",".join(f'"{name}":{value}' for name, value in members) + tail
    with pytest.MonkeyPatch.context() as patch:
        whole = verdict(text.encode())
        patch.setattr("gateway.front.body._LARGE", 0)
        assert verdict(text.encode()) == whole


@pytest.mark.parametrize(
    "body",
    [
        b'{"model":"a","messages":[%b],"model":"b"}',
        b'{"messages":[%b],"model":"a","mod\\u0065l":"b"}',
        b'{"model":"a","messages":[%b],"tools":[1],"model":"b"}',
        b'{"model":"a","metadata":{"messages":[%b]},"model":"b"}',
    ],
)
def test_a_second_model_is_found_around_large_messages(body: bytes) -> None:
    error = refused(call(body % (b'"%b"' % (b"x" * 20_000))))
    assert error.message == "'model' is given twice."
