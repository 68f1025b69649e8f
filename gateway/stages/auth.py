"""Who is calling? The key a call presents, looked up by its SHA-256."""

from __future__ import annotations

import hmac
import time
from typing import Any

from gateway.core.call import Call
from gateway.core.errors import CallerError
from gateway.core.parts import Parts
from gateway.core.ports import Stage
from gateway.core.principal import ANYONE, Principal, digest
from gateway.core.reply import Reply

_MAX_KEY = 512  # bytes; no key is longer, so a longer one need not be hashed
_MAX_SEEN = 4096

_HELP = "Send a key of this gateway as 'Authorization: Bearer KEY' or 'x-api-key: KEY'."


class Auth(Stage):
    """Sets `call.principal`, or refuses with 401.

    What was presented is remembered with its principal until the keys change; expiry is looked at
    on each call. Whatever is wrong with an unknown key, the answer is the same.
    """

    steady = True

    def __init__(self, options: Any, parts: Parts) -> None:
        self._keys = parts.keys
        self._anyone = Principal(ANYONE) if parts.auth_mode == "open" else None
        self._seen: dict[bytes, Principal] = {}
        self._generation = parts.keys.generation

    def admit(self, call: Call) -> Reply | None:  # type: ignore[override]
        """Find the caller."""
        if self._anyone is not None:
            call.principal = self._anyone
            return None
        if self._generation != self._keys.generation:
            self._seen.clear()
            self._generation = self._keys.generation
        presented = call.header(b"authorization")
        principal = self._seen.get(presented) if presented is not None else None
        if principal is None:
            principal = self._find(call, presented)
        expires = principal.key.expires
        if expires is not None and time.time() >= expires:
            raise _refused("expired_key", "This key has expired; ask for a new one.")
        call.principal = principal
        return None

    def _find(self, call: Call, authorization: bytes | None) -> Principal:
        secret = _bearer(authorization)
        if not secret:
            secret = (call.header(b"x-api-key") or call.header(b"api-key") or b"").strip(b" \t")
            authorization = None
        if not secret:
            raise _refused("no_key", f"No key was sent. {_HELP}")
        principal = self._look_up(secret) if len(secret) <= _MAX_KEY else None
        if principal is None:
            raise _refused("unknown_key", f"This key is not known here. {_HELP}")
        if principal.key.revoked:
            raise _refused("revoked_key", "This key has been revoked; ask for a new one.")
        if authorization is not None:
            if len(self._seen) >= _MAX_SEEN:
                self._seen.clear()
            self._seen[authorization] = principal
        return principal

    def _look_up(self, secret: bytes) -> Principal | None:
        presented = digest(secret)
        principal = self._keys.find(presented)
        known = principal.key.digest if principal is not None else b""
        return principal if hmac.compare_digest(known, presented) else None


def _bearer(authorization: bytes | None) -> bytes:
    """The credentials of the scheme Bearer (RFC 6750), b"" where there are none."""
    scheme, _, secret = (authorization or b"").partition(b" ")
    return secret.strip(b" \t") if scheme.lower() == b"bearer" else b""


def _refused(code: str, message: str) -> CallerError:
    return CallerError(message, status=401, code=f"caller_{code}")
