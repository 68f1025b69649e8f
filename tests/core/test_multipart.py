import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.errors import CallerError
from gateway.core.multipart import is_form, model_of, model_span

KIND = b"multipart/form-data; boundary=B"


def part(name: str, value: bytes, more: str = "", mark: bytes = b"--B") -> bytes:
    head = f'Content-Disposition: form-data; name="{name}"{more}'
    return b"%b\r\n%b\r\n\r\n%b\r\n" % (mark, head.encode(), value)


def form(*parts: bytes) -> bytes:
    return b"".join(parts) + b"--B--\r\n"


MODEL = part("model", b"m")
HIDING = part("file", b"\r\n" + part("model", b"cheap", mark=b"--A") + b"--A--", '; filename="x"')


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (KIND, form(MODEL)),
        (b"Multipart/Form-Data;Boundary=B", form(MODEL)),
        (b'multipart/form-data; charset=utf-8; boundary="B" ;', form(MODEL)),
        (KIND, b"\r\n" + form(MODEL)[:-2] + b"\r\n\r\n"),
        (KIND, form(part("file", b"a--B\r\n--A", r'; filename="a\".mp3"; filename*=utf-8' + "''a"), MODEL)),
        (KIND, form(part("file", b""), MODEL)),
        (KIND, b"--B\r\ncontent-disposition: form-data; name=model\r\nContent-Type: text/plain\r\n"
               b"Content-Transfer-Encoding: 8bit\r\n\r\nm\r\n--B--"),
    ],
)  # fmt: skip
def test_forms_as_clients_write_them_are_read(kind: bytes, body: bytes) -> None:
    assert is_form(kind)
    assert model_of(body, kind) == "m"


@pytest.mark.parametrize("kind", [b"", b"multipart/form-datax; boundary=B", b"multipart/mixed; boundary=B"])
def test_other_types_are_no_forms(kind: bytes) -> None:
    assert not is_form(kind)


@pytest.mark.parametrize(
    "kind",
    [
        b"multipart/form-data",
        b"multipart/form-data; xboundary=A",
        b"multipart/form-data; boundary=A; boundary=B",
        b'multipart/form-data; boundary=""',
        b'multipart/form-data; boundary="\\B"',
        b"multipart/form-data; x; boundary=B",
        b"multipart/form-data; boundary=%b" % (b"x" * 71),
    ],
)
def test_a_form_has_one_boundary_that_can_be_read_in_one_way(kind: bytes) -> None:
    with pytest.raises(CallerError, match="one boundary"):
        model_of(form(MODEL), kind)


def test_another_parameter_is_not_taken_for_the_boundary() -> None:
    kind = b"multipart/form-data; xboundary=A; boundary=B"
    assert model_of(form(part("model", b"dear"), HIDING), kind) == "dear"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"preamble\r\n" + form(MODEL),
        form(MODEL).replace(b"\r\n", b"\n"),
        form(MODEL)[:-6],
        form(MODEL) + part("model", b"dear"),
        form(part("x", b"y", "\r\nX-A: " + "a" * 5000), MODEL),
        form(part("x", b"y\n--B\n"), MODEL),
        form(part("x", b"y\r--B\r"), MODEL),
        form(part("x", b"\n--B\n"), MODEL),
        form(part("x", b"y\r\n--Bx"), MODEL),
        form(part("x", b"y\r\n--B \r\n"), MODEL),
        form(b'--B\r\nContent-Disposition: form-data;\r\n name="model"\r\n\r\ndear\r\n', MODEL),
        form(b"--B\r\nContent-Disposition: form-data; name*=utf-8''model\r\n\r\ndear\r\n", MODEL),
        form(part("x", b"y", '; name="model"'), MODEL),
        form(part("x", b"y", '\r\nContent-Disposition: form-data; name="model"'), MODEL),
        form(b"--B\r\n\r\nno headers\r\n", MODEL),
        form(part("mo\\del", b"dear"), MODEL),
        form(part("Model", b"dear"), MODEL),
        form(part("model", b"ZGVhcg==", "\r\nContent-Transfer-Encoding: base64")),
        form(MODEL, MODEL),
        form(part("model", b"m" * 513)),
        form(part("model", b"\xff")),
    ],
)
def test_a_form_that_two_servers_could_read_differently_is_refused(body: bytes) -> None:
    with pytest.raises(CallerError) as caught:
        model_of(body, KIND)
    assert caught.value.status == 400


@given(st.lists(st.binary(max_size=40), max_size=4))
def test_what_is_in_files_is_no_matter(files: list[bytes]) -> None:
    whole = form(*[part("file", data.replace(b"--B", b"--C"), '; filename="x"') for data in files], MODEL)
    start, end = model_span(whole, KIND) or (0, 0)
    assert whole[start:end] == b"m"


@given(st.binary(max_size=200))
def test_no_bytes_make_it_fail_in_another_way(data: bytes) -> None:
    for body in (data, form(b"--B\r\n" + data), form(part("x", data))):
        try:
            model_span(body, KIND)
        except CallerError as error:
            assert error.status == 400
