"""Who may call: tokens of a real identity provider, tenants, networks and rotated keys, on two workers."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.gateway import Gateway, digest
from tests.e2e.provider import Provider
from tests.e2e.raw import Conversation
from tests.e2e.running import until
from tests.net.issuer import AUDIENCE, ISSUER, KeySetServer, forged, public_jwk, token

CHAT = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "hi"}]}

NEW, OLD, ENDED = "sk-identity-new", "sk-identity-old", "sk-identity-ended"
HERE, ELSEWHERE, ADMIN, OFF = (
    "sk-identity-here",
    "sk-identity-elsewhere",
    "sk-identity-admin",
    "sk-identity-off",
)

CONFIG = f"""
[auth.jwt]
issuer = "{ISSUER}"
audience = "{AUDIENCE}"
jwks = "%(jwks)s"
algorithms = ["RS256", "ES256"]
claims = {{ tenant = "org", team = "groups.0", user = "sub", roles = "roles" }}
cooldown = "%(cooldown)s"

[tenants.acme]
models = ["gpt-*"]
tags = ["acme"]
teams.search = {{ tags = ["search"] }}
users.mallory = {{ disabled = true }}

[tenants.off]
disabled = true

[[keys]]
name = "rotated"
hash = "{digest(NEW)}"
previous = "{digest(OLD)}"
previous_until = 2100-01-01

[[keys]]
name = "long-rotated"
hash = "{digest(NEW + "x")}"
previous = "{digest(ENDED)}"
previous_until = 2020-01-01

[[keys]]
name = "here"
hash = "{digest(HERE)}"
networks = ["127.0.0.0/8"]

[[keys]]
name = "elsewhere"
hash = "{digest(ELSEWHERE)}"
networks = ["192.0.2.0/24", "2001:db8::/32"]

[[keys]]
name = "operator"
hash = "{digest(ADMIN)}"
roles = ["admin"]

[[keys]]
name = "of-a-disabled-tenant"
hash = "{digest(OFF)}"
tenant = "off"

[backends.main]
kind = "openai"
base_url = "%(url)s/v1"
api_key = "env:PROVIDER_KEY"

[models."*"]
targets = [ {{ backend = "main" }} ]
"""


@pytest.fixture(scope="module")
def idp() -> Iterator[KeySetServer]:
    with KeySetServer("one") as running:
        yield running


@pytest.fixture(scope="module")
def identity(
    tmp_path_factory: pytest.TempPathFactory, provider: Provider, idp: KeySetServer
) -> Iterator[Gateway]:
    """A gateway whose provider of identities may be asked once in an hour."""
    config = CONFIG % {"url": provider.url, "jwks": idp.url, "cooldown": "1h"}
    with Gateway(tmp_path_factory.mktemp("identity"), config, workers=2) as running:
        until("tokens are known", lambda: status(running, token()) == 200)
        yield running


def ask(
    gateway: Gateway, credential: bytes | str, **document: Any
) -> tuple[int, dict[str, str], dict[str, Any]]:
    bearer = credential.decode() if isinstance(credential, bytes) else credential
    found, headers, body = gateway.post({**CHAT, **document}, key=bearer)
    return found, headers, json.loads(body)


def status(gateway: Gateway, credential: bytes | str, **document: Any) -> int:
    return ask(gateway, credential, **document)[0]


def code(gateway: Gateway, credential: bytes | str, **document: Any) -> str:
    found = ask(gateway, credential, **document)[2]
    return str(found["error"]["code"]) if "error" in found else ""


def test_a_tokens_claims_stand_in_the_ledger(identity: Gateway) -> None:
    made = token(org="acme", groups=["search", "x"], sub="ada|1")
    found, headers, _ = ask(identity, made)
    assert found == 200
    row = identity.row(headers["x-request-id"])
    assert (row["tenant"], row["team"], row["user"]) == ("acme", "search", "ada%7C1")
    again = identity.row(ask(identity, token(org="acme", sub="ada|1", jti="2"))[1]["x-request-id"])
    assert again["key"] == row["key"] and row["key"].startswith("jwt:")


def test_what_the_tenant_does_not_allow_no_token_may_do(identity: Gateway) -> None:
    assert code(identity, token(org="acme"), model="o3") == "policy_model_denied"
    assert code(identity, token(), model="o3") == ""
    assert code(identity, token(org="acme", sub="mallory")) == "policy_disabled"
    assert code(identity, token(org="off")) == code(identity, OFF) == "policy_disabled"
    assert code(identity, token(roles=["admin"])) == code(identity, ADMIN) == "policy_role_required"
    assert code(identity, token(roles=["admin", "caller"])) == ""


def test_the_list_of_models_is_what_the_tenant_may_use(identity: Gateway) -> None:
    headers = {"authorization": f"Bearer {token(org='acme').decode()}"}
    _, _, body = identity.request("GET", "/v1/models", headers=headers)
    names = [model["id"] for model in json.loads(body)["data"]]
    assert names and all(name.startswith("gpt-") for name in names)


ABUSE = {
    "alg none": forged({"alg": "none"}, {"sub": "root"}, b""),
    "alg none, signed": forged({"alg": "none", "kid": "one"}, {"sub": "root"}),
    "hs256": forged({"alg": "HS256", "kid": "one"}, {"sub": "root"}),
    "embedded key": token("attacker", headers={"jwk": public_jwk("attacker")}),
    "embedded address": token(
        "attacker", headers={"jku": "http://127.0.0.1:9/jwks", "x5u": "http://127.0.0.1:9"}
    ),
    "kid a path": forged({"alg": "RS256", "kid": "../../dev/null"}, {}),
    "kid SQL": forged({"alg": "RS256", "kid": "' OR 1=1 --"}, {}),
    "unknown kid": token("two"),
    "expired": token(exp=int(time.time()) - 5),
    "not yet valid": token(nbf=int(time.time()) + 3600),
    "another audience": token(aud="else"),
    "another issuer": token(iss="https://evil.example"),
    "signature cut": token()[:-5],
    "encrypted": b"eyJlbmMiOiJBMjU2R0NNIn0.AA.AA.AA.AA",
    "long": b"eyJhbGciOiJSUzI1NiJ9." + b"A" * 20_000 + b".AAAA",
}


@pytest.mark.parametrize("name", ABUSE)
def test_the_abuse_set_is_refused_alike_and_nobody_outside_is_asked(
    identity: Gateway, idp: KeySetServer, provider: Provider, name: str
) -> None:
    asked, called = idp.asked, len(provider.journal())
    found, headers, body = ask(identity, ABUSE[name])
    assert found == 401
    assert body["error"] == {
        "message": "This token is not valid here; get a new one from your provider.",
        "type": "authentication_error",
        "param": None,
        "code": "caller_invalid_token",
        "request_id": headers["x-request-id"],
    }
    assert headers["www-authenticate"] == 'Bearer error="invalid_token"'
    assert (idp.asked, len(provider.journal())) == (asked, called)


def test_a_flood_of_unknown_keys_asks_nobody(identity: Gateway, idp: KeySetServer) -> None:
    asked = idp.asked
    for number in range(200):
        assert status(identity, forged({"alg": "RS256", "kid": f"k{number}"}, {})) == 401
    assert idp.asked == asked == 1


CORPUS = {
    "quotes": b"\"';--",
    "percent": b"%s%n%00%0d%0a",
    "non-ascii": b"\xff\xfe\xf0",
    "utf-8": "schlüssel-🔑".encode(),
    "30 KiB": b"x" * 30_000,
    "64 KiB": b"x" * 65_536,
    "1 MiB": b"x" * (1 << 20),
    "a token of 1 MiB": b"eyJhbGciOiJSUzI1NiJ9." + b"A" * (1 << 20) + b".AAAA",
    "almost": NEW.encode()[:-1],
    "more": NEW.encode() + b"y",
    # No header may hold these: the connection is closed after the same answer, and nothing was read twice.
    "NUL": b"a\x00b",
    "DEL": b"a\x7fb",
    "CR": b"a\rb",
    "LF": b"a\nb",
    "CRLF": b"a\r\nb",
    "CRLF and a header": b"a\r\nX-Injected: b",
    "escape": b"a\x1bb",
}


def raw(gateway: Gateway, bearer: bytes) -> tuple[int, bytes, dict[str, Any]]:
    """Status, header block without what differs by nature, and the error."""
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer "
    with Conversation(gateway.url) as talk:
        try:
            body = json.dumps(CHAT).encode()
            talk.send(head + bearer + b"\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        except OSError:
            pass  # it was answered before the end
        answer = talk.rest()
    block, _, body = answer.partition(b"\r\n\r\n")
    lines = [line for line in block.split(b"\r\n")[1:] if not line.startswith((b"x-request-id", b"date"))]
    return int(answer[9:12]), b"\r\n".join(lines), json.loads(body)["error"]


@pytest.mark.parametrize("name", CORPUS)
def test_a_hostile_credential_gets_the_answer_that_every_unknown_one_gets(
    identity: Gateway, name: str
) -> None:
    plain, found = raw(identity, b"sk-unknown"), raw(identity, CORPUS[name])
    for answer in (plain, found):
        assert answer[2].pop("request_id")
    assert plain[0] == 401 and plain[2]["code"] == "caller_unknown_key"
    assert (found[0], found[2]) == (401, plain[2])
    names = [{line.partition(b":")[0] for line in each[1].split(b"\r\n")} for each in (plain, found)]
    assert b"content-length" in names[0] and names[0] - {b"connection"} <= names[1] | {b"x-penstock-revision"}


def test_a_rotated_key_works_with_both_secrets_and_both_are_one_key(identity: Gateway) -> None:
    rows = [identity.row(ask(identity, key)[1]["x-request-id"]) for key in (NEW, OLD)]
    assert rows[0]["key"] == rows[1]["key"] and rows[0]["status"] == rows[1]["status"] == 200
    assert code(identity, ENDED) == "caller_expired_key"


def test_a_key_is_good_in_its_networks_alone(identity: Gateway) -> None:
    for _ in range(3):  # also where the same head has been seen before
        assert status(identity, HERE) == 200
        assert code(identity, ELSEWHERE) == "policy_address_not_allowed"


# ------------------------------------------------------------------- what changes meanwhile


def test_rotated_keys_of_the_provider_are_taken_within_the_cool_down_and_the_old_ones_dropped(
    tmp_path: Any, provider: Provider
) -> None:
    with KeySetServer("one") as idp:
        config = CONFIG % {"url": provider.url, "jwks": idp.url, "cooldown": "1s"}
        with Gateway(tmp_path / "gw", config, workers=2) as gateway:
            old, new = token("one"), token("two")
            until("the first key is known", lambda: status(gateway, old) == 200)
            assert status(gateway, new) == 401
            idp.keys = [public_jwk("two")]
            until("the new key is known", lambda: status(gateway, new) == 200)
            until("the old key is not", lambda: {status(gateway, old) for _ in range(8)} == {401})
            for number in range(8):  # whichever worker is asked
                assert status(gateway, new, user=f"u{number}") == 200
                assert status(gateway, old, user=f"u{number}") == 401
            idp.status = 500

            def failed() -> bool:
                """Once the cool-down is over it is asked again for a key that nobody knows."""
                status(gateway, token("three", jti=str(time.monotonic())))
                return 'penstock_jwks_fetches_total{result="failed"}' in gateway.admin("/metrics")[1]

            until("the set was asked for in vain", failed)
            assert status(gateway, new) == 200, "while it fails, what is known goes on"


def test_a_provider_that_is_away_keeps_nobody_from_starting_and_is_heard_when_it_is_back(
    tmp_path: Any, provider: Provider
) -> None:
    with KeySetServer("one") as idp:
        idp.gate.clear()
        config = CONFIG % {"url": provider.url, "jwks": idp.url, "cooldown": "1s"}
        with Gateway(tmp_path / "gw", config) as gateway:
            assert status(gateway, NEW) == 200
            assert status(gateway, token()) == 401
            idp.gate.set()
            until("tokens are known", lambda: status(gateway, token()) == 200)


def test_a_tenant_that_is_switched_off_is_refused_from_the_next_revision_on(
    tmp_path: Any, provider: Provider, idp: KeySetServer
) -> None:
    config = CONFIG % {"url": provider.url, "jwks": idp.url, "cooldown": "1h"}
    with Gateway(tmp_path / "gw", config) as gateway:
        until("tokens are known", lambda: status(gateway, token(org="acme")) == 200)
        made = token(org="acme")
        assert status(gateway, made) == 200
        gateway.write(config.replace("[tenants.acme]", "[tenants.acme]\ndisabled = true"))
        until("the tenant is off", lambda: code(gateway, made) == "policy_disabled")
        gateway.write(config)
        until("it is on again", lambda: status(gateway, made) == 200)
