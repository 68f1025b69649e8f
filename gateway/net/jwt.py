"""Is this token good? PyJWT's signatures, and around them what a token may not do to us (RFC 8725).

A token is checked with keys that were there before it came. What it says about keys (jwk, jku, x5u, x5c) is
not looked at; its `kid` is compared with the names of known keys and nothing else.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

import jwt

from gateway.core import claims as claimed
from gateway.core.principal import KeyEntry
from gateway.core.token import LONGEST, Jwt, KeySet

_FORM = re.compile(
    rb"[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]*){2}(?:(?:\.[A-Za-z0-9_-]*){2})?"
)  # JWS, or JWE (5 parts)
_SIGNED = re.compile(rb"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.[A-Za-z0-9_-]+")
_LATEST = 1 << 53  # seconds
_MOST_KID = 256
_MOST_TRIED = 4  # keys for a token that names none
_WIDEST = 2800  # characters of an RSA modulus: 16384 bits
_MEMBERS = ("kty", "kid", "use", "key_ops", "alg", "n", "e", "crv", "x", "y")  # the public ones
_CURVES = {"ES256": "P-256", "ES384": "P-384", "ES512": "P-521", "EdDSA": "Ed25519"}
_TYPES = {"R": "RSA", "P": "RSA", "E": "EC"}  # by an algorithm's first letter
_SIGNATURE_ALONE = {
    "verify_exp": False, "verify_nbf": False, "verify_iat": False, "enforce_minimum_key_length": True,
    "require": ["exp", "iss", "aud"],
}  # fmt: skip
_FAILURES = (jwt.PyJWTError, ValueError, TypeError, OverflowError, RecursionError)


class BadToken(Exception):
    """The token is not good. The message is for operators; callers are told nothing of it."""


class UnknownKey(BadToken):
    """No known key is the one it was signed with: a fresh key set may have it."""


def is_token(credential: bytes) -> bool:
    """Whether it has the form of a token, good or not."""
    return _FORM.fullmatch(credential) is not None


class Checker:
    """Checks tokens for one `[auth.jwt]`, with the newest keys of a key set."""

    def __init__(self, rule: Jwt, keys: KeySet) -> None:
        self._rule = rule
        self._keys = keys
        self._generation = -1
        self._ready: dict[tuple[int, str], Any] = {}  # (place in the set, algorithm) → key
        self._fixed = {name: _fixed(rule, name) for name in rule.algorithms} if not rule.jwks else {}

    def check(self, token: bytes, now: float) -> KeyEntry:
        """Who calls with this token, at `now` in epoch seconds. Raises `BadToken`, `UnknownKey`."""
        if len(token) > LONGEST:
            raise BadToken(f"longer than {LONGEST} bytes")
        parts = _SIGNED.fullmatch(token)
        if parts is None:
            raise BadToken("not signed, or encrypted")
        header = _header(parts[1], self._rule)
        claims = self._verified(token, header)
        _object(parts[2])  # a claim that is there twice was let pass until here
        expires = _timely(claims, now, self._rule.leeway)
        try:
            return claimed.entry(self._rule, claims, expires)
        except claimed.Unfit as error:
            raise BadToken(f"the claim {error}") from None

    def _verified(self, token: bytes, header: dict[str, Any]) -> dict[str, Any]:
        algorithm, kid = header["alg"], header.get("kid")
        why = "no key fits"
        for key in self._candidates(kid, algorithm):
            try:
                claims: dict[str, Any] = jwt.decode(
                    token,
                    key,
                    algorithms=[algorithm],
                    audience=self._rule.audience,
                    issuer=self._rule.issuer,
                    options=_SIGNATURE_ALONE,  # type: ignore[arg-type]
                )
                return claims
            except _FAILURES as error:
                why = str(error)[:200]
        if kid is None and self._rule.jwks:
            raise UnknownKey(f"it names no key: {why}")
        raise BadToken(why)

    def _candidates(self, kid: str | None, algorithm: str) -> Iterator[Any]:
        if not self._rule.jwks:
            yield self._fixed[algorithm]
            return
        if self._generation != self._keys.generation:
            self._generation = self._keys.generation
            self._ready.clear()
        named = [at for at, key in enumerate(self._keys.keys) if kid is None or key.get("kid") == kid]
        if not named:
            raise UnknownKey("its key is not in the key set")
        fitting = [at for at in named if fits(self._keys.keys[at], algorithm)]
        for at in fitting[:_MOST_TRIED]:
            key = self._prepared(at, algorithm)
            if key is not None:
                yield key

    def _prepared(self, at: int, algorithm: str) -> Any:
        if (at, algorithm) not in self._ready:
            try:
                made = jwt.PyJWK(dict(self._keys.keys[at]), algorithm).key
            except _FAILURES:
                made = None
            self._ready[at, algorithm] = made
        return self._ready[at, algorithm]


def _fixed(rule: Jwt, algorithm: str) -> Any:
    return rule.secret.reveal().encode() if rule.secret is not None else public_key(rule.key, algorithm)


def public_key(pem: str, algorithm: str) -> Any:
    """The key in a PEM text, ready for one algorithm. Raises `ValueError` where it is not one for it."""
    known = jwt.get_algorithm_by_name(algorithm)
    try:
        key = known.prepare_key(pem)
        weak = known.check_key_length(key)
    except (jwt.PyJWTError, ValueError, TypeError):
        raise ValueError(f"holds no public key for {algorithm}") from None
    if weak:
        raise ValueError(f"holds a key that is too short for {algorithm}")
    if hasattr(key, "private_bytes"):
        raise ValueError("holds a private key; the gateway checks tokens with the public one")
    return key


def fits(key: Mapping[str, Any], algorithm: str) -> bool:
    """Whether a key of the key set may check signatures of this algorithm: its kind decides."""
    operations = key.get("key_ops")
    if key.get("use", "sig") != "sig" or (isinstance(operations, list) and "verify" not in operations):
        return False
    if key.get("alg", algorithm) != algorithm:
        return False
    kind = "OKP" if algorithm == "EdDSA" else _TYPES[algorithm[0]]
    return key.get("kty") == kind and (kind == "RSA" or key.get("crv") == _CURVES[algorithm])


def usable(document: Any) -> list[dict[str, Any]]:
    """The public keys of a JWK set (RFC 7517), without members that we do not need. Raises `ValueError`."""
    keys = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(keys, list):
        raise ValueError('no JWK set: it has no list "keys"')
    found = []
    for key in keys:
        if not isinstance(key, dict) or key.get("kty") not in ("RSA", "EC", "OKP"):
            continue  # a symmetric key in a public set is nobody's secret
        kid, modulus = key.get("kid"), key.get("n", "")
        named = kid is None or (isinstance(kid, str) and len(kid) <= _MOST_KID)
        if named and isinstance(modulus, str) and len(modulus) <= _WIDEST:
            found.append({name: key[name] for name in _MEMBERS if key.get(name) is not None})
    return found


def _header(part: bytes, rule: Jwt) -> dict[str, Any]:
    header = _object(part)
    algorithm, kid, kind = header.get("alg"), header.get("kid"), header.get("typ", "JWT")
    if not isinstance(algorithm, str) or algorithm not in rule.algorithms:
        raise BadToken("its algorithm is not allowed")
    if kid is not None and not (isinstance(kid, str) and len(kid) <= _MOST_KID):
        raise BadToken("its kid is no name of a key")
    if "crit" in header or header.get("b64", True) is not True:
        raise BadToken("it demands an extension")
    if "enc" in header or str(header.get("cty", "")).upper() == "JWT":
        raise BadToken("it holds another token, or is encrypted")
    if not isinstance(kind, str) or kind.lower().removeprefix("application/") not in ("jwt", "at+jwt"):
        raise BadToken("its type is another one")
    return header


def _object(part: bytes) -> dict[str, Any]:
    try:
        data = base64.b64decode(part + b"=" * (-len(part) % 4), b"-_", validate=True)
        found = json.loads(data, object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise BadToken(f"not JSON: {str(error)[:80]}") from None
    if not isinstance(found, dict):
        raise BadToken("not a JSON object")
    return found


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a member is there twice")
    return found


def _timely(claims: Mapping[str, Any], now: float, leeway: float) -> float:
    """When it expires. A token that has, or that is not valid yet, is none."""
    expires = _moment(claims, "exp")
    if expires is None or expires <= now:
        raise BadToken("it has expired")
    for name in ("nbf", "iat"):
        begins = _moment(claims, name)
        if begins is not None and begins > now + leeway:
            raise BadToken(f"it is not valid yet ({name})")
    return expires


def _moment(claims: Mapping[str, Any], name: str) -> float | None:
    value = claims.get(name)
    if value is None and name not in claims:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < _LATEST:
        raise BadToken(f"{name} is no time")
    return float(value)
