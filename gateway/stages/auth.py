"""Who is calling? The key a call presents, looked up by its SHA-256, or the token it presents."""

from __future__ import annotations

import hmac
import time
from collections.abc import Awaitable
from typing import Any

from gateway.core import credential
from gateway.core.call import Call
from gateway.core.generations import Generations
from gateway.core.parts import Parts
from gateway.core.ports import Stage
from gateway.core.principal import ANYONE, Principal, digest
from gateway.core.reply import Reply

_MAX_KEY = 512  # bytes; no key is longer, so a longer one need not be hashed
_MAX_SEEN = 16_384  # twice


class Auth(Stage):
    """Sets `call.principal`, or refuses with 401.

    What was presented is remembered with its principal until the keys change; expiry is looked at
    on each call. Whatever is wrong with an unknown key or a token, the answer is the same.
    """

    steady = True

    def __init__(self, options: Any, parts: Parts) -> None:
        self._keys = parts.keys
        self._anyone = Principal(ANYONE) if parts.auth_mode == "open" else None
        self._seen: Generations[bytes, Principal] = Generations(_MAX_SEEN)
        self._generation = parts.keys.generation
        self._tokens: Any = None
        if parts.jwt is not None and self._anyone is None:
            from gateway.net import tokens  # its cryptography is loaded only where somebody asked for it

            self._is_token = tokens.is_token
            self._tokens = tokens.Tokens(parts.jwt, parts.key_set, parts.keys.caller)

    def admit(self, call: Call) -> Reply | Awaitable[None] | None:  # type: ignore[override]
        """Find the caller. It waits only for the key of a token that may be new."""
        if self._anyone is not None:
            call.principal = self._anyone
            return None
        if self._generation != self._keys.generation:
            self._forget()
        presented = call.header(b"authorization")
        principal = self._seen.find(presented) if presented is not None else None
        if principal is None:
            found = self._find(call, presented)
            if type(found) is not Principal:
                return self._waited(call, found)  # type: ignore[arg-type]
            principal = found
        _admitted(call, principal)
        return None

    async def _waited(self, call: Call, waiting: Awaitable[Principal | None]) -> None:
        principal = await waiting
        if principal is None:
            raise credential.bad_token()
        _admitted(call, principal)

    def _forget(self) -> None:
        self._seen.clear()
        self._generation = self._keys.generation
        if self._tokens is not None:
            self._tokens.forget()

    def _find(self, call: Call, authorization: bytes | None) -> Principal | Awaitable[Principal | None]:
        secret = _bearer(authorization)
        if not secret:
            secret = (call.header(b"x-api-key") or call.header(b"api-key") or b"").strip(b" \t")
            authorization = None
        if not secret:
            raise credential.none_sent()
        principal = self._look_up(secret) if len(secret) <= _MAX_KEY else None
        if principal is None:
            if self._tokens is not None and self._is_token(secret):
                found: Principal | Awaitable[Principal | None] | None = self._tokens.find(secret)
                if found is None:
                    raise credential.bad_token()
                return found
            raise credential.unknown()
        if principal.key.revoked:
            raise credential.revoked()
        if authorization is not None:
            self._seen.keep(authorization, principal)
        return principal

    def _look_up(self, secret: bytes) -> Principal | None:
        presented = digest(secret)
        principal = self._keys.find(presented)
        known = principal.key.digest if principal is not None else b""
        return principal if hmac.compare_digest(known, presented) else None


def _admitted(call: Call, principal: Principal) -> None:
    expires = principal.key.expires
    if expires is not None and time.time() >= expires:
        raise credential.expired()
    call.principal = principal


def _bearer(authorization: bytes | None) -> bytes:
    """The credentials of the scheme Bearer (RFC 6750), b"" where there are none."""
    scheme, _, secret = (authorization or b"").partition(b" ")
    return secret.strip(b" \t") if scheme.lower() == b"bearer" else b""
