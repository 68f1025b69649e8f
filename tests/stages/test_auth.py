"""Who is calling: keys found by hash, expired and revoked ones refused, garbage refused alike."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.errors import CallerError
from gateway.core.keys import Keys
from gateway.stages.auth import Auth
from tests.stages.given import SECRET, call, entry, parts

BEARER = (b"authorization", b"Bearer " + SECRET)


def refusal(auth: Auth, *headers: tuple[bytes, bytes]) -> CallerError:
    made = call(headers=headers)
    with pytest.raises(CallerError) as caught:
        auth.admit(made)
    assert made.principal is None
    assert caught.value.status == 401
    return caught.value


@pytest.mark.parametrize(
    "header",
    [
        BEARER,
        (b"authorization", b"bearer " + SECRET),
        (b"authorization", b"Bearer   " + SECRET + b" "),
        (b"x-api-key", SECRET),
        (b"api-key", SECRET),
    ],
)
def test_a_known_key_names_its_principal(header: tuple[bytes, bytes]) -> None:
    auth = Auth({}, parts(keys=[entry()]))
    for _ in range(2):  # the second time it is remembered
        made = call(headers=[(b"host", b"x"), header])
        assert auth.admit(made) is None
        assert made.principal is not None and made.principal.key.id == "key_1"


def test_the_same_key_always_gives_the_same_principal() -> None:
    auth = Auth({}, parts(keys=[entry()]))
    one, two = call(headers=[BEARER]), call(headers=[(b"x-api-key", SECRET)])
    auth.admit(one)
    auth.admit(two)
    assert one.principal is two.principal


@pytest.mark.parametrize(
    "secret",
    [
        b"'; DROP TABLE keys; --",
        b'" OR 1=1',
        b"%%%",
        b"a\x00b",
        b"\xff\xfe\xf0",
        "ключ".encode(),
        b"x" * 65536,
        SECRET + b"x",
        SECRET[:-1],
        SECRET.upper(),
        b"a\r\nb",
        b"sha256:" + b"0" * 64,
    ],
)
def test_whatever_an_unknown_key_is_the_answer_is_the_same(secret: bytes) -> None:
    auth = Auth({}, parts(keys=[entry()]))
    plain = refusal(auth, (b"x-api-key", b"unknown")).document("r")
    for header in ((b"authorization", b"Bearer " + secret), (b"x-api-key", secret)):
        error = refusal(auth, header)
        assert error.code == "caller_unknown_key"
        assert error.document("r") == plain


@given(st.binary(max_size=300))
def test_no_header_ever_raises_anything_else(value: bytes) -> None:
    auth = Auth({}, parts(keys=[entry()]))
    for name in (b"authorization", b"x-api-key"):
        if SECRET not in value:
            refusal(auth, (name, value))


@pytest.mark.parametrize(
    "headers", [[], [(b"authorization", b"Basic abc")], [(b"authorization", b"Bearer ")]]
)
def test_without_a_key_the_answer_says_how_to_send_one(headers: list[tuple[bytes, bytes]]) -> None:
    error = refusal(Auth({}, parts(keys=[entry()])), *headers)
    assert error.code == "caller_no_key"
    assert "Authorization: Bearer" in error.message


def test_an_expired_key_is_refused_from_that_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    auth = Auth({}, parts(keys=[entry(expires=1000.0)]))
    monkeypatch.setattr(time, "time", lambda: 999.9)
    auth.admit(call(headers=[BEARER]))
    monkeypatch.setattr(time, "time", lambda: 1000.0)
    assert refusal(auth, BEARER).code == "caller_expired_key"


def test_a_revoked_key_is_refused_although_it_was_remembered() -> None:
    keys = Keys([entry()])
    given_ = parts()
    given_.keys = keys
    auth = Auth({}, given_)
    auth.admit(call(headers=[BEARER]))
    keys.replace([replace(entry(), revoked=True)])
    assert refusal(auth, BEARER).code == "caller_revoked_key"
    keys.replace([])
    assert refusal(auth, BEARER).code == "caller_unknown_key"


def test_nothing_a_caller_sends_is_in_the_answer() -> None:
    error = refusal(Auth({}, parts(keys=[entry()])), (b"authorization", b"Bearer canary-secret"))
    assert "canary" not in str(error.document("r"))


def test_what_is_remembered_is_bounded() -> None:
    auth = Auth({}, parts(keys=[entry()]))
    for number in range(10_000):
        auth.admit(call(headers=[(b"authorization", b"Bearer" + b" " * (number % 5000 + 1) + SECRET)]))
    assert len(auth._seen) <= 4096


def test_in_open_mode_everybody_is_the_same_principal() -> None:
    auth = Auth({}, parts(keys=[entry()], mode="open"))
    one, two = call(), call(headers=[(b"authorization", b"Bearer whatever")])
    auth.admit(one)
    auth.admit(two)
    assert one.principal is two.principal
    assert one.principal is not None and one.principal.key.name == "open"
