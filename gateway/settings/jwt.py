"""`[auth.jwt]`: tokens of an identity provider, beside keys."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

from gateway.core.token import ASYMMETRIC, SYMMETRIC, Claims, Jwt
from gateway.settings.faults import did_you_mean, quote
from gateway.settings.kinds import INVALID, Kind, PathName, Reading, Text, Wrong, read_small, text_of
from gateway.settings.quantities import Duration
from gateway.settings.sealed import Sealed
from gateway.settings.tables import Field, Many, Table
from gateway.settings.tree import Node

_SOURCES = ("jwks", "key", "secret")
_SHORTEST_SECRET = {"HS256": 32, "HS384": 48, "HS512": 64}  # bytes (RFC 7518, 3.2)


class KeySetUrl(Kind):
    """Where the provider's public keys are: https, or http on this machine."""

    def parse(self, node: Node, reading: Reading) -> str:
        url = text_of(node, 'a URL such as "https://idp.example/jwks"')
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
        except ValueError:
            host, port = None, 0
        if not host or port == 0 or not url.isascii() or not url.isprintable() or set(' \\"') & set(url):
            raise Wrong('is not a URL such as "https://idp.example/jwks"')
        if "@" in parts.netloc or "#" in url:
            raise Wrong("must not hold a credential or a fragment: public keys are fetched without one")
        if parts.scheme != "https" and not (parts.scheme == "http" and _loopback(host)):
            raise Wrong("must start with https://: who can change the keys on their way can be anyone")
        return url

    def schema(self) -> dict[str, Any]:
        return {"type": "string", "pattern": "^https?://[^@#\\s]+$"}


def _loopback(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


class PublicKey(PathName):
    """A PEM public key, read from its file and again when that changes."""

    def parse(self, node: Node, reading: Reading) -> str:
        name = text_of(node, 'a file such as "file:pub.pem"')
        super().parse(node, reading)
        data = read_small(
            node.source.directory / name.removeprefix("file:"), name.removeprefix("file:"), 64 << 10
        )
        if b"PRIVATE KEY-----" in data:
            raise Wrong("holds a private key; the gateway checks tokens with the public one")
        if b"-----BEGIN " not in data or not data.isascii():
            raise Wrong('holds no PEM public key ("-----BEGIN PUBLIC KEY-----")')
        return data.decode()


class Algorithm(Kind):
    """One signature algorithm; `none` is not one."""

    def parse(self, node: Node, reading: Reading) -> str:
        text = text_of(node, 'an algorithm such as "RS256"')
        known = (*ASYMMETRIC, *SYMMETRIC)
        if text not in known:
            raise Wrong(
                f"{quote(text)} is not allowed{did_you_mean(text, known)}  (allowed: {', '.join(known)})"
            )
        return text

    def schema(self) -> dict[str, Any]:
        return {"enum": [*ASYMMETRIC, *SYMMETRIC]}


class ClaimPath(Text):
    """Where in a token something stands: a claim's name, or a dotted path to it ("groups.0")."""

    def __init__(self) -> None:
        super().__init__(meaning='a claim such as "sub", "org.name" or "groups.0"', most=256)

    def check(self, text: str) -> str:
        super().check(text)
        if text.count(".") > 16:
            raise Wrong("has more than 16 dots")
        return text


def _jwt(values: dict[str, Any], node: Node, reading: Reading) -> Any:
    given = [name for name in _SOURCES if name in node.value]
    if len(given) > 1:
        reading.fault(node.value[given[1]], f"{given[0]} is given too; keep one of them", at_key=True)
    elif not given and node.value.keys() <= JWT.fields.keys():  # else one of them was misspelt
        reading.fault(node, 'is missing: jwks = "https://…", or key = "file:pub.pem"', "jwks")
    if len(given) != 1 or given[0] not in values:
        return INVALID
    stated = node.value.get("algorithms", node)
    values.setdefault("algorithms", ("RS256",) if given[0] != "secret" else ("HS256",))
    wanted = SYMMETRIC if given[0] == "secret" else ASYMMETRIC
    wrong = [name for name in values["algorithms"] if name not in wanted]
    if wrong and given[0] == "secret":
        told = f"{wrong[0]} needs a public key (jwks or key), not a secret"
    elif wrong:
        told = f"{wrong[0]} needs a secret that only the issuer and this gateway know: a public key is none"
    else:
        told = _unusable(given[0], values, reading)
    if told:
        reading.fault(stated if wrong else node.value[given[0]], told)
        return INVALID
    return Jwt(**values) if "issuer" in values and "audience" in values else INVALID


def _unusable(given: str, values: dict[str, Any], reading: Reading) -> str:
    """What is wrong with the key or the secret itself."""
    if given == "secret" and reading.resolve:
        longest = max(values["algorithms"], key=lambda name: _SHORTEST_SECRET[name])
        least = _SHORTEST_SECRET[longest]
        if len(values["secret"].reveal()) < least:
            return f"is shorter than the {least} bytes of {longest}: it could be guessed from a token"
    if given == "key":
        from gateway.net.jwt import public_key  # the cryptography behind it takes long to import

        try:
            for algorithm in values["algorithms"]:
                public_key(values["key"], algorithm)
        except ValueError as error:
            return str(error)
    return ""


CLAIMS = Table(
    "auth.jwt.claims",
    Claims,
    {
        "tenant": Field(ClaimPath(), "the tenant"),
        "team": Field(ClaimPath(), "the team"),
        "user": Field(ClaimPath(), "the user"),
        "roles": Field(ClaimPath(), "the roles: a list, or words with blanks between"),
        "models": Field(ClaimPath(), "models it may call, as globs; a token that does not say may call all"),
        "tags": Field(ClaimPath(), "noted with each call"),
    },
)

JWT = Table(
    "auth.jwt",
    Jwt,
    {
        "issuer": Field(Text(), "the claim iss, exactly", required=True),
        "audience": Field(
            Many(Text(), least=1, single=True, most=100),
            "the claim aud: this, or one of these",
            required=True,
        ),
        "jwks": Field(KeySetUrl(), "URL of the provider's public keys (a JWK set)"),
        "key": Field(PublicKey("file:pub.pem"), 'one public key instead: "file:pub.pem"'),
        "secret": Field(Sealed(), 'for HS256, HS384 and HS512 alone: "env:NAME", "file:PATH"'),
        "algorithms": Field(Many(Algorithm(), least=1), "signatures that are accepted"),
        "claims": Field(CLAIMS, "which claims say tenant, team, user, roles"),
        "required": Field(Many(ClaimPath(), most=100), "claims a token must have, beside exp"),
        "leeway": Field(Duration(least=0.0, most=300.0, example="10s"), "the issuer's clock may be ahead by"),
        "refresh": Field(Duration(least=10.0, most=86_400.0, example="1h"), "jwks is fetched anew after"),
        "cooldown": Field(
            Duration(least=1.0, most=3600.0, example="30s"), "and for unknown keys at most every"
        ),
        "cache": Field(
            Duration(least=1.0, most=3600.0, example="5m"), "a good token is not checked again for"
        ),
        "ca": Field(PathName("file:ca.pem"), "PEM file of extra roots for jwks"),
    },
    finish=_jwt,
    rules={"oneOf": [{"required": [name]} for name in _SOURCES]},
)
