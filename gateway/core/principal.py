"""Who calls: the identity a key stands for, and the entry it is stored as."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from gateway.core.group import Group, Tenant


@dataclass(slots=True, frozen=True)
class KeyEntry:
    """One virtual key as it is stored and handed to workers. The secret itself is never here.

    `digest` is the SHA-256 of the key's UTF-8 bytes; `expires` is in epoch seconds. A rotated key's
    secret before it (`previous`) works until `previous_until`. Empty `models`, `endpoints` or `networks`
    allow all; the first two hold shell-style globs, `networks` are CIDR ranges the caller must come from.
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
    networks: tuple[str, ...] = ()
    previous: bytes = b""
    previous_until: float | None = None
    created: float = 0.0  # epoch seconds; 0.0: not known
    made_by: str = ""  # who made it: an actor's name
    origin: str = "file"  # "file" (gateway.toml) or "ledger" (made by `penstock keys`)


@dataclass(slots=True, eq=False)
class Principal:
    """The caller of one or many calls. `memo` is where stages keep what they compiled for it.

    `groups` are the tenant, team and user it belongs to, where anything is said of them. The secrets of a
    rotated key, and the tokens of one identity, have a principal each, which share one `memo`: nothing
    in it may depend on the digest or on when the key ends.
    """

    key: KeyEntry
    groups: tuple[Group, ...] = ()
    memo: dict[Any, Any] = field(default_factory=dict)
    until: float | None = None  # epoch seconds; from then on who it is has to be found out anew

    @property
    def tenant(self) -> Tenant | None:
        """What is said of its tenant; None where nothing is."""
        rules = self.groups[0].rules if self.groups else None
        return rules if isinstance(rules, Tenant) else None

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


def rotate(entry: KeyEntry, overlap: float, now: float) -> tuple[str, KeyEntry]:
    """A key with a new secret, which is to be shown once and never kept, and its entry for the ledger.

    The secret it had works for `overlap` more seconds from `now` (epoch seconds); 0 ends it at once. One that
    was replaced earlier ends in any case. Raises `ValueError` for a revoked or expired key.
    """
    if entry.revoked:
        raise ValueError(f"the key {entry.name} has been revoked; make a new one")
    if entry.expires is not None and entry.expires <= now:
        raise ValueError(f"the key {entry.name} has expired; make a new one, or give it a later end first")
    if not 0 <= overlap < float("inf"):
        raise ValueError(f"the overlap must be 0 seconds or more, not {overlap:g}")
    secret, fresh = mint(entry.name)
    previous, until = (entry.digest, now + overlap) if overlap else (b"", None)
    return secret, replace(entry, digest=fresh.digest, previous=previous, previous_until=until)


_TUPLES = ("roles", "models", "endpoints", "tags", "networks")
_MEMBERS = tuple(member.name for member in fields(KeyEntry))


def document_of(entry: KeyEntry) -> dict[str, Any]:
    """A key as a JSON document: digests as hex, never a secret."""
    document = {name: getattr(entry, name) for name in _MEMBERS}
    return {**document, "digest": entry.digest.hex(), "previous": entry.previous.hex()}


def entry_of(document: Mapping[str, Any]) -> KeyEntry:
    """The key of such a document; members it does not know are an error."""
    values = dict(document)
    values |= {name: tuple(values[name]) for name in _TUPLES if name in values}
    values |= {name: bytes.fromhex(values[name]) for name in ("digest", "previous") if name in values}
    return KeyEntry(**values)
