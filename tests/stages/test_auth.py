"""Who is calling: keys found by hash, expired and revoked ones refused, garbage refused alike."""

from __future__ import annotations

import asyncio
import inspect
import time
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.errors import CallerError
from gateway.core.group import Tenant
from gateway.core.keys import Keys
from gateway.core.principal import KeyEntry, digest
from gateway.core.token import Claims, Jwt, KeySet
from gateway.stages.auth import Auth
from tests.net.issuer import AUDIENCE, ISSUER, forged, public_jwk, token
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


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.stages.auth._MAX_SEEN", 1000)
    auth = Auth({}, parts(keys=[entry()]))
    for number in range(10_000):
        auth.admit(call(headers=[(b"authorization", b"Bearer" + b" " * (number % 5000 + 1) + SECRET)]))
    assert 1000 <= len(auth._seen) <= 2000


def test_in_open_mode_everybody_is_the_same_principal() -> None:
    auth = Auth({}, parts(keys=[entry()], mode="open"))
    one, two = call(), call(headers=[(b"authorization", b"Bearer whatever")])
    auth.admit(one)
    auth.admit(two)
    assert one.principal is two.principal
    assert one.principal is not None and one.principal.key.name == "open"


def test_both_secrets_of_a_rotated_key_are_one_caller_until_the_old_one_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    old = (b"authorization", b"Bearer sk-before")
    rotated = entry(previous=digest(b"sk-before"), previous_until=1000.0)
    auth = Auth({}, parts(keys=[rotated]))
    monkeypatch.setattr(time, "time", lambda: 999.9)
    one, two = call(headers=[BEARER]), call(headers=[old])
    auth.admit(one)
    auth.admit(two)
    assert one.principal is not None and two.principal is not None
    assert one.principal.key.id == two.principal.key.id and one.principal.memo is two.principal.memo
    monkeypatch.setattr(time, "time", lambda: 1000.0)
    assert refusal(auth, old).code == "caller_expired_key"
    auth.admit(call(headers=[BEARER]))


# ------------------------------------------------------------------- tokens

RULE = Jwt(
    ISSUER,
    (AUDIENCE,),
    jwks="https://idp.example/jwks",
    claims=Claims(tenant="org", user="sub", roles="roles"),
)


def with_tokens(*keys: KeyEntry, asked: list[int] | None = None) -> tuple[Auth, KeySet]:
    made = parts(keys=keys)
    made.jwt = RULE
    made.key_set = KeySet(lambda: asked.append(1)) if asked is not None else KeySet()
    made.key_set.replace([public_jwk("one")], 0.0)
    return Auth({}, made), made.key_set


def bearer(made: bytes) -> tuple[bytes, bytes]:
    return b"authorization", b"Bearer " + made


@pytest.mark.parametrize("name", [b"x-api-key", b"api-key", b""])
def test_a_good_token_names_its_caller_in_any_header(name: bytes) -> None:
    auth, _ = with_tokens(entry())
    made = token(org="acme", roles="caller")
    for _ in range(2):
        asks = call(headers=[(name, made) if name else bearer(made)])
        assert auth.admit(asks) is None
        assert asks.principal is not None and asks.principal.key.tenant == "acme"
        assert asks.principal.key.origin == "jwt"
    known = call(headers=[BEARER])
    auth.admit(known)
    assert known.principal is not None and known.principal.key.id == "key_1"


def test_whatever_is_wrong_with_a_token_the_answer_is_the_same() -> None:
    auth, _ = with_tokens(entry())
    wrong = [
        token(exp=1), token(aud="x"), token("two"), b"a.b.c", b"a.b.c.d.e", b"eyJ." + b"A" * 20_000 + b".A",
        forged({"alg": "none"}, {}, b""),
    ]  # fmt: skip
    answers = {
        repr((error.document("r"), error.headers))
        for made in wrong
        for error in [refusal(auth, bearer(made))]
    }
    assert len(answers) == 1
    error = refusal(auth, bearer(b"a.b.c"))
    assert error.code == "caller_invalid_token"
    assert error.headers == ((b"www-authenticate", b'Bearer error="invalid_token"'),)


def test_a_key_that_looks_like_a_token_is_still_a_key() -> None:
    auth, _ = with_tokens(entry(digest=digest(b"one.two.three")))
    made = call(headers=[bearer(b"one.two.three")])
    auth.admit(made)
    assert made.principal is not None and made.principal.key.id == "key_1"


def test_what_is_no_token_is_an_unknown_key_and_without_tokens_everything_is() -> None:
    auth, _ = with_tokens(entry())
    assert refusal(auth, bearer(b"sk-unknown")).code == "caller_unknown_key"
    assert refusal(Auth({}, parts(keys=[entry()])), bearer(token())).code == "caller_unknown_key"


def test_a_token_whose_key_is_new_waits_for_it_and_one_with_a_made_up_key_only_once() -> None:
    async def scenario() -> None:
        asked: list[int] = []
        auth, key_set = with_tokens(asked=asked)
        made = call(headers=[bearer(token("two"))])
        waiting = auth.admit(made)
        assert inspect.isawaitable(waiting)
        task = asyncio.ensure_future(waiting)  # type: ignore[arg-type]
        while not asked:
            await asyncio.sleep(0)
        key_set.replace([public_jwk("two")], 30.0)
        assert await task is None and made.principal is not None
        for number in range(100):
            refusal(auth, bearer(token("three", jti=str(number))))
        assert len(asked) == 1

    asyncio.run(scenario())


def test_a_wait_in_vain_ends_in_the_same_refusal() -> None:
    async def scenario() -> None:
        asked: list[int] = []
        auth, key_set = with_tokens(asked=asked)
        task = asyncio.ensure_future(auth.admit(call(headers=[bearer(token("two"))])))  # type: ignore[arg-type]
        while not asked:
            await asyncio.sleep(0)
        key_set.replace([public_jwk("one")], 30.0)
        with pytest.raises(CallerError) as caught:
            await task
        assert caught.value.code == "caller_invalid_token"

    asyncio.run(scenario())


def test_other_tenants_are_seen_by_tokens_that_were_seen_before() -> None:
    made = parts(keys=[])
    made.jwt, made.key_set = RULE, KeySet()
    made.key_set.replace([public_jwk("one")], 0.0)
    auth, header = Auth({}, made), bearer(token(org="acme"))
    before = call(headers=[header])
    auth.admit(before)
    made.keys.replace([], [Tenant("acme", disabled=True)])
    after = call(headers=[header])
    auth.admit(after)
    assert before.principal is not None and before.principal.groups == ()
    assert after.principal is not None and after.principal.groups[0].rules.disabled
