"""Who calls: the identity a key stands for, and the entry it is stored as."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True, frozen=True)
class KeyEntry:
    """One virtual key as it is stored and handed to workers. The secret itself is never here.

    `digest` is the SHA-256 of the key's UTF-8 bytes; `expires` is in epoch seconds.
    Empty `models` or `endpoints` allow all; both hold shell-style globs.
    """

    id: str
    name: str
    digest: bytes
    tenant: str = ""
    team: str = ""
    user: str = ""
    roles: tuple[str, ...] = ("caller",)
    models: tuple[str, ...] = ()
    endpoints: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    expires: float | None = None
    revoked: bool = False
    origin: str = "file"  # "file" (gateway.toml) or "ledger" (made by `penstock keys`)


@dataclass(slots=True, eq=False)
class Principal:
    """The caller of one or many calls. `memo` is where stages keep what they compiled for it."""

    key: KeyEntry
    memo: dict[Any, Any] = field(default_factory=dict)

    def value(self, scope: str) -> str:
        """The principal's value for a limit scope: tenant, team, user or key (its id)."""
        key = self.key
        return key.id if scope == "key" else str(getattr(key, scope))


def digest(secret: bytes) -> bytes:
    """SHA-256 of a presented key, the only form in which keys are kept or compared."""
    return hashlib.sha256(secret).digest()


ANYONE = KeyEntry(id="open", name="open", digest=b"", origin="open")


def mint(name: str) -> tuple[str, KeyEntry]:
    """A new key: the secret, to be shown once and never kept, and its entry for the ledger."""
    import secrets  # only the supervisor and the command line make keys

    secret = f"sk-ps-{secrets.token_urlsafe(32)}"
    entry = KeyEntry(f"key_{secrets.token_hex(8)}", name, digest(secret.encode()), origin="ledger")
    return secret, entry
