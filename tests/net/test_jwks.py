"""Fetching a key set: bounded in time, size and number, without redirects."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator

import pytest

from gateway.net import jwks
from gateway.net.jwks import NoKeys, fetch
from tests.net.issuer import KeySetServer, public_jwk


@pytest.fixture
def server() -> Iterator[KeySetServer]:
    with KeySetServer("one") as running:
        yield running


def refused(server: KeySetServer) -> str:
    with pytest.raises(NoKeys) as caught:
        asyncio.run(fetch(server.url))
    return str(caught.value)


def test_a_key_set_is_fetched_with_its_public_members_alone(server: KeySetServer) -> None:
    server.keys.append({**public_jwk("two"), "d": "private", "x5c": ["…"]})
    one, two = asyncio.run(fetch(server.url))
    assert one["kid"] == "one" and two["kid"] == "two" and "d" not in two and "x5c" not in two


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"<html>", "not JSON"),
        (b"[]", "no JWK set"),
        (b'{"keys": []}', "no key that can be used"),
        (b'{"keys": [{"kty": "oct", "k": "AAAA"}]}', "no key that can be used"),
        (b" " * (300 * 1024), "larger than 256 KiB"),
        (json.dumps({"keys": [{"kty": "RSA", "n": "A", "e": "A"}] * 101}).encode(), "more than 100 keys"),
    ],
    ids=["html", "array", "empty", "symmetric", "large", "many"],
)
def test_what_is_no_key_set_is_refused(server: KeySetServer, body: bytes, why: str) -> None:
    server.body = body
    assert why in refused(server)


def test_a_redirect_is_not_followed(server: KeySetServer) -> None:
    server.status, server.location = 302, server.url
    assert refused(server) == "status 302"
    assert server.asked == 1


def test_a_provider_that_does_not_answer_is_given_up(
    server: KeySetServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jwks, "DEADLINE", 0.1)
    server.gate.clear()
    assert "0.1 s" in refused(server) or "Timeout" in refused(server)


def test_a_provider_that_is_not_there_is_told_without_a_trace(server: KeySetServer) -> None:
    server.close()
    assert "ConnectError" in refused(server)
