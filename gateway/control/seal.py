"""Answers at rest: only who asked can read them again."""

from __future__ import annotations

import base64
import hashlib

from cryptography.fernet import Fernet, InvalidToken

from gateway.core.errors import CallerError


class Seal:
    """Seals with a key that is made of the credential and the idempotency key, neither of which is kept."""

    def __init__(self, credential: bytes, name: str) -> None:
        secret = hashlib.sha256(b"penstock answer\0" + name.encode() + b"\0" + credential).digest()
        self._fernet = Fernet(base64.urlsafe_b64encode(secret))

    def close(self, body: bytes) -> bytes:
        """The body, unreadable for others."""
        return self._fernet.encrypt(body)

    def open(self, sealed: bytes) -> bytes:
        """The body again. Raises `CallerError` (422) for somebody else's."""
        try:
            return self._fernet.decrypt(sealed)
        except InvalidToken:
            raise CallerError(
                "This idempotency-key was used with another credential.", status=422, code="caller_conflict"
            ) from None
