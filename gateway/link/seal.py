"""Texts of calls on their way through the journal: what a disk keeps of them nobody can read.

A journal is a file, and what was in a file may stay on a disk for long. Prompts and answers pass
through it only where tokens are to be counted or a tenant wants them kept, and then encrypted (AES-256-GCM)
with a key that the supervisor makes at its start, hands to its workers over the link, and never writes down.
A supervisor that finds texts of an earlier one can't open them: those calls keep their estimate and are not
captured.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from gateway.core.codec import JSONError, dumps, loads

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

_NONCE = 12  # bytes


class Seal:
    """One key. Without any (`b""`) nothing is sealed and nothing can be opened."""

    __slots__ = ("_cipher", "_key")

    def __init__(self, key: bytes = b"") -> None:
        self._key = key
        self._cipher: AESGCM | None = None

    def __repr__(self) -> str:
        return "Seal(***)"

    @classmethod
    def fresh(cls) -> Seal:
        """A new key, of which nobody else knows."""
        return cls(os.urandom(32))

    def message(self) -> dict[str, str]:
        """The key for the other end of a link. It stays on the private socket pair."""
        return {"t": "seal", "key": base64.b64encode(self._key).decode()}

    def hear(self, message: Mapping[str, Any]) -> None:
        """Take the key of such a message."""
        self._key, self._cipher = base64.b64decode(message["key"]), None

    def close(self, document: Mapping[str, Any]) -> str:
        """A JSON document as text that only a holder of the key can read; "" without a key."""
        if not self._key:
            return ""
        nonce = os.urandom(_NONCE)
        return base64.b64encode(nonce + self._aead().encrypt(nonce, dumps(document), None)).decode()

    def open(self, text: str) -> dict[str, Any]:
        """The document, empty where it was sealed with another key, or damaged."""
        if not self._key or not text:
            return {}
        from cryptography.exceptions import InvalidTag

        try:
            sealed = base64.b64decode(text, validate=True)
            if base64.b64encode(sealed) != text.encode():
                return {}  # the bits that padding leaves over were changed
            document = loads(self._aead().decrypt(sealed[:_NONCE], sealed[_NONCE:], None))
        except (ValueError, InvalidTag, JSONError):
            return {}
        return document if isinstance(document, dict) else {}

    def _aead(self) -> AESGCM:
        if self._cipher is None:
            from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # most workers never seal anything

            self._cipher = AESGCM(self._key)
        return self._cipher
