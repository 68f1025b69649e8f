"""Tokens: the good ones name their caller, and nothing a bad one says makes it a good one."""

from __future__ import annotations

import hashlib
import hmac
import time
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.token import ASYMMETRIC, LONGEST, Claims, Jwt, KeySet
from gateway.net.jwt import BadToken, Checker, UnknownKey, fits, is_token, public_key, usable
from gateway.settings.secret import Secret
from tests.net.issuer import AUDIENCE, ISSUER, claims, encoded, forged, key, public_jwk, public_pem, token

RULE = Jwt(ISSUER, (AUDIENCE,), jwks="https://idp.example/jwks", algorithms=("RS256", "ES256"))


def checker(*keys: dict[str, Any], **rule: Any) -> Checker:
    key_set = KeySet()
    key_set.replace(keys or (public_jwk("one"),), 30.0)
    made = {name: getattr(RULE, name) for name in ("issuer", "audience", "jwks", "algorithms")}
    return Checker(Jwt(**{**made, **rule}), key_set)


def refused(made: bytes, check: Checker | None = None) -> str:
    with pytest.raises(BadToken) as caught:
        (check or checker()).check(made, time.time())
    return str(caught.value)


def test_a_good_token_names_its_caller() -> None:
    expires = int(time.time()) + 60
    made = token(exp=expires, org="acme", groups=["search", "x"], roles=["caller", "admin"])
    where = Claims(tenant="org", team="groups.0", user="sub", roles="roles")
    entry = checker(claims=where).check(made, time.time())
    assert (entry.tenant, entry.team, entry.user, entry.name) == ("acme", "search", "ada", "ada")
    assert (entry.roles, entry.expires, entry.origin) == (("caller", "admin"), expires, "jwt")
    again = checker(claims=where).check(token(exp=expires + 60, org="acme"), time.time())
    assert entry.id.startswith("jwt:") and len(entry.id) == 20 and again.id == entry.id


@pytest.mark.parametrize("kind", ASYMMETRIC)
def test_every_algorithm_that_may_be_configured_works(kind: str) -> None:
    check = checker(public_jwk(f"k{kind}", kind), algorithms=(kind,))
    assert check.check(token(f"k{kind}", kind), time.time()).user == "ada"
    other = "RS256" if kind == "ES256" else "ES256"
    assert refused(token("other", other, {"kid": f"k{kind}"}), check) == "its algorithm is not allowed"


@pytest.mark.parametrize("aud", [AUDIENCE, [AUDIENCE], ["else", AUDIENCE]])
def test_the_audience_may_be_one_of_several_on_either_side(aud: Any) -> None:
    check = checker(audience=("first", AUDIENCE))
    assert check.check(token(aud=aud), time.time()).user == "ada"


# ------------------------------------------------------------------- the abuse set

NOW = int(time.time())
# The tokens are made when the tests are collected: their names do not hang on the clock, they do.
ABUSE = {
    "alg none": forged({"alg": "none", "typ": "JWT"}, claims(), b""),
    "alg none, with a signature": forged({"alg": "none", "kid": "one"}, claims()),
    "alg None": forged({"alg": "None", "kid": "one"}, claims()),
    "alg nOnE": forged({"alg": "nOnE", "kid": "one"}, claims()),
    "alg empty": forged({"alg": "", "kid": "one"}, claims()),
    "alg a list": forged({"alg": ["RS256"], "kid": "one"}, claims()),
    "no alg": forged({"kid": "one"}, claims()),
    "alg not on the list": forged({"alg": "RS512", "kid": "one"}, claims()),
    "kid a path": forged({"alg": "RS256", "kid": "../../../../dev/null"}, claims()),
    "kid SQL": forged({"alg": "RS256", "kid": "x' UNION SELECT 'secret"}, claims()),
    "kid NUL": forged({"alg": "RS256", "kid": "one\x00"}, claims()),
    "kid a URL": forged({"alg": "RS256", "kid": "http://127.0.0.1:9/key"}, claims()),
    "kid a number": forged({"alg": "RS256", "kid": 1}, claims()),
    "kid an object": forged({"alg": "RS256", "kid": {"one": 1}}, claims()),
    "kid too long": forged({"alg": "RS256", "kid": "k" * 257}, claims()),
    "crit": forged({"alg": "RS256", "kid": "one", "crit": ["b64"], "b64": False}, claims()),
    "b64 false": forged({"alg": "RS256", "kid": "one", "b64": False}, claims()),
    "encrypted": b".".join([encoded({"alg": "RSA-OAEP", "enc": "A256GCM"})] + [b"YQ"] * 4),
    "enc in the header": forged({"alg": "RS256", "kid": "one", "enc": "A256GCM"}, claims()),
    "nested": forged({"alg": "RS256", "kid": "one", "cty": "JWT"}, b"x.y.z"),
    "another type of token": forged({"alg": "RS256", "kid": "one", "typ": "logout+jwt"}, claims()),
    "header no object": forged([1], claims()),
    "header not JSON": forged(b"{", claims()),
    "header nested deep": forged(b"[" * 3000, claims()),
    "header twice": forged(b'{"alg":"RS256","kid":"one","kid":"two"}', claims()),
    "no signature": forged({"alg": "RS256", "kid": "one"}, claims(), b""),
    "padding": token() + b"=",
    "one bit of the signature": token()[:-6] + b"AAAAAA",
    "signature of another key": token("two", headers={"kid": "one"}),
    "expired": token(exp=NOW - 3600),
    "expired this second": token(exp=NOW - 1),
    "without exp": token(exp=None),
    "exp a text": token(exp="9999999999"),
    "exp infinite": token(exp=float("inf")),
    "exp true": token(exp=True),
    "exp of 400 digits": token(exp=10**400),
    "nbf of 400 digits": token(nbf=-(10**400)),
    "not yet valid": token(nbf=NOW + 3600),
    "issued in the future": token(iat=NOW + 3600),
    "nbf a text": forged({"alg": "RS256", "kid": "one"}, claims(nbf="later")),
    "another audience": token(aud="someone-else"),
    "audience a list of others": token(aud=["a", "b"]),
    "audience a part": token(aud=AUDIENCE + "x"),
    "audience an object": token(aud={AUDIENCE: 1}),
    "without audience": token(aud=None),
    "another issuer": token(iss="https://evil.example"),
    "issuer a list": forged({"alg": "RS256", "kid": "one"}, claims(iss=[ISSUER])),
    "issuer with more": token(iss=f"{ISSUER}/"),
    "without issuer": token(iss=None),
    "without subject": token(sub=None),
    "too long": token(pad="x" * LONGEST),
    "1 MB": b"eyJhbGciOiJSUzI1NiJ9." + b"A" * (1 << 20) + b".AAAA",
}


@pytest.mark.parametrize("name", ABUSE)
def test_a_token_of_the_abuse_set_is_refused(name: str) -> None:
    assert refused(ABUSE[name])


def hmac_token(secret: str, kind: str = "HS256", **headers: Any) -> bytes:
    """Signed by hand: PyJWT would not make such a token."""
    head = encoded({"alg": kind, "kid": "one", **headers}) + b"." + encoded(claims())
    return head + b"." + encoded(hmac.new(secret.encode(), head, hashlib.sha256).digest())


@pytest.mark.parametrize("secret", [public_pem(key("one")), public_pem(key("one")).strip(), ""])
def test_a_public_key_is_never_taken_for_a_secret(secret: str) -> None:
    made = hmac_token(secret)
    assert refused(made) == "its algorithm is not allowed"
    pem = checker(jwks="", key=public_pem(key("one")), algorithms=("RS256",))
    assert pem.check(token(), time.time()).user == "ada"
    assert refused(made, pem) == "its algorithm is not allowed"


def test_keys_and_addresses_in_the_token_are_not_looked_at() -> None:
    own = public_jwk("attacker")
    for header in (
        {"kid": "attacker", "jwk": own},
        {"kid": "attacker", "jku": "http://127.0.0.1:9/jwks"},
        {"kid": "attacker", "x5u": "http://127.0.0.1:9/chain"},
        {"kid": "attacker", "x5c": ["AAAA"]},
        {"kid": None, "jwk": own},
    ):
        assert refused(token("attacker", headers=header))
    for header in ({"kid": "one", "jwk": own}, {"kid": "one", "jku": "http://127.0.0.1:9/"}):
        assert refused(token("attacker", headers=header)) == "Signature verification failed"


def test_a_symmetric_or_foreign_key_in_the_set_checks_nothing() -> None:
    document = {"keys": [{"kty": "oct", "k": "c2VjcmV0", "kid": "one"}, {"kty": 3}, 7, public_jwk("two")]}
    (left,) = usable(document)
    assert left["kid"] == "two"
    assert refused(hmac_token("secret", "HS256"), checker(left, algorithms=("RS256",)))


def test_a_key_is_used_for_what_it_is_alone() -> None:
    good = public_jwk("one")
    assert fits(good, "RS256") and not fits(good, "RS512") and not fits(good, "ES256")
    assert not fits({**good, "use": "enc"}, "RS256")
    assert not fits({**good, "key_ops": ["encrypt"]}, "RS256")
    assert fits({**good, "key_ops": ["verify"]}, "RS256")
    bare = {name: good[name] for name in ("kty", "n", "e")}
    assert fits(bare, "PS256") and not fits(bare, "EdDSA")
    curve = public_jwk("k384", "ES384")
    del curve["alg"]
    assert fits(curve, "ES384") and not fits(curve, "ES256")


def test_a_key_set_gives_up_what_is_private_or_too_large() -> None:
    private = {**public_jwk("one"), "d": "AAAA", "p": "AAAA", "x5c": ["AAAA"]}
    (left,) = usable(
        {"keys": [private, {**public_jwk("two"), "n": "A" * 3000}, {**public_jwk("x"), "kid": 4}]}
    )
    assert set(left) == {"kty", "kid", "use", "alg", "n", "e"} | ({"key_ops"} & set(left))
    for document in ([], {}, {"keys": "x"}, None):
        with pytest.raises(ValueError, match="no JWK set"):
            usable(document)


def test_a_broken_key_in_the_set_is_as_if_it_were_not_there() -> None:
    broken = {**public_jwk("one"), "n": "!"}
    assert refused(token(), checker(broken)) == "no key fits"


def test_an_unknown_key_is_told_apart_because_a_fresh_set_may_have_it() -> None:
    with pytest.raises(UnknownKey):
        checker().check(token("two"), time.time())
    with pytest.raises(UnknownKey):
        checker().check(token("two", headers={"kid": None}), time.time())


def test_a_token_that_names_no_key_is_tried_with_those_that_fit() -> None:
    check = checker(public_jwk("two"), public_jwk("kes", "ES256"), public_jwk("one"))
    assert check.check(token(headers={"kid": None}), time.time()).user == "ada"


def test_after_a_rotation_the_old_key_is_no_key() -> None:
    key_set = KeySet()
    key_set.replace([public_jwk("one")], 30.0)
    check = Checker(RULE, key_set)
    old = token()
    assert check.check(old, time.time())
    key_set.replace([public_jwk("two")], 30.0)
    with pytest.raises(UnknownKey):
        check.check(old, time.time())
    assert check.check(token("two"), time.time())


def test_a_secret_checks_its_own_algorithms_alone() -> None:
    secret = "s" * 32
    check = checker(jwks="", secret=Secret(secret), algorithms=("HS256",))
    assert check.check(hmac_token(secret), time.time()).user == "ada"
    assert refused(hmac_token(secret + "x"), check)
    assert refused(token(), check) == "its algorithm is not allowed"


def test_two_tokens_with_the_same_beginning_are_two_tokens() -> None:
    one, two = token(pad="x" * 4000, sub="ada"), token(pad="x" * 4000, sub="bob")
    head = encoded({"alg": "RS256", "kid": "one", "typ": "JWT"})
    assert one.startswith(one[:100]) and head
    first, second = (checker().check(made, time.time()) for made in (one, two))
    assert (first.user, second.user) == ("ada", "bob") and first.id != second.id


def test_leeway_is_for_clocks_that_are_ahead_and_never_for_what_has_expired() -> None:
    check = checker(leeway=30.0)
    assert check.check(token(nbf=NOW + 20, iat=NOW + 20, exp=NOW + 3600), float(NOW))
    assert "nbf" in refused(token(nbf=NOW + 3600), check)
    assert "expired" in refused(token(exp=NOW - 1), check)


def test_a_claim_that_is_there_twice_makes_no_token() -> None:
    head = encoded({"alg": "RS256", "kid": "one"})
    body = encoded(
        b'{"sub":"ada","sub":"root","iss":"%b","aud":"penstock","exp":%d}' % (ISSUER.encode(), NOW + 99)
    )
    signature = jwt.get_algorithm_by_name("RS256").sign(head + b"." + body, key("one"))
    assert "twice" in refused(head + b"." + body + b"." + encoded(signature))


def test_required_claims_have_to_be_there() -> None:
    check = checker(required=("org.name", "sub"))
    assert check.check(token(org={"name": "acme"}), time.time())
    assert refused(token(org={"name": ""}), check) == "the claim org.name is missing"


def test_a_public_key_is_tried_before_it_is_used() -> None:
    assert public_key(public_pem(key("one")), "RS256")
    for pem, kind in (
        (public_pem(key("one")), "ES256"),
        (public_pem(key("k384", "ES384")), "ES256"),
        ("x", "RS256"),
    ):
        with pytest.raises(ValueError, match="holds no public key"):
            public_key(pem, kind)
    short = rsa.generate_private_key(65537, 1024)
    with pytest.raises(ValueError, match="too short"):
        public_key(public_pem(short), "RS256")


@given(st.binary(max_size=300))
def test_whatever_comes_is_refused_and_nothing_else_happens(data: bytes) -> None:
    check = checker()
    for made in (
        data,
        forged(data, data, data),
        b".".join((encoded({"alg": "RS256", "kid": "one"}), data, data)),
    ):
        refused(made, check)


@given(st.from_regex(rb"[A-Za-z0-9_-]{1,9}(\.[A-Za-z0-9_-]{0,9}){0,6}", fullmatch=True))
def test_tokens_are_known_by_their_three_or_five_parts(credential: bytes) -> None:
    assert is_token(credential) == (credential.count(b".") in (2, 4))


@pytest.mark.parametrize(
    "credential", [b"", b"sk-penstock", b"a.b", b".b.c", b"a.b.c ", b"a.b.c\n", b"a.b!.c", b"a.b.c.d"]
)
def test_what_is_no_token_is_a_key(credential: bytes) -> None:
    assert not is_token(credential)
