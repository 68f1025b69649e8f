"""Frames between worker and supervisor, sans-IO: a 4-byte big-endian length, then one JSON object."""

from __future__ import annotations

import base64
import pickle
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from gateway.core.codec import JSONError, dumps, loads
from gateway.core.group import Tenant, tenant_of
from gateway.core.principal import KeyEntry, document_of, entry_of
from gateway.settings.schema import Settings

Message = dict[str, Any]
LARGEST = 64 << 20  # bytes of one frame's JSON


class LinkError(Exception):
    """The other end does not speak this protocol; the link is of no more use."""


def encode(message: Message) -> bytes:
    """One message as a frame. Raises `LinkError` when it is too long."""
    body = dumps(message)
    if len(body) > LARGEST:
        raise LinkError(f"a {message.get('t')} message of {len(body)} bytes; at most {LARGEST} are allowed")
    return len(body).to_bytes(4, "big") + body


class Decoder:
    """Cuts a byte stream into messages, wherever the pieces were cut."""

    def __init__(self) -> None:
        self._held = bytearray()

    def feed(self, data: bytes) -> list[Message]:
        """All messages that `data` completes. Raises `LinkError`."""
        held = self._held
        held += data
        messages: list[Message] = []
        start = 0
        while len(held) - start >= 4:
            end = start + 4 + int.from_bytes(held[start : start + 4], "big")
            if end - start - 4 > LARGEST:
                raise LinkError(f"a frame of {end - start - 4} bytes; at most {LARGEST} are allowed")
            if end > len(held):
                break
            messages.append(_message(bytes(held[start + 4 : end])))
            start = end
        del held[:start]
        return messages


def _message(body: bytes) -> Message:
    try:
        message = loads(body)
    except JSONError as error:
        raise LinkError(f"a frame that is not JSON: {error}") from None
    if not isinstance(message, dict) or not isinstance(message.get("t"), str):
        raise LinkError("a frame that is not an object with a type `t`")
    return message


def revision(settings: Settings) -> Message:
    """Settings for a worker. They hold secrets: this message stays on the private socket pair."""
    packed = base64.b64encode(pickle.dumps(settings, pickle.HIGHEST_PROTOCOL)).decode()
    return {"t": "revision", "id": settings.revision, "settings": packed}


def settings_of(message: Message) -> Settings:
    """The settings of a `revision`. Unpickles: only a child may call it, on its parent's word."""
    settings = pickle.loads(base64.b64decode(message["settings"]))
    assert isinstance(settings, Settings)
    return settings


def keys(entries: Iterable[KeyEntry], tenants: Iterable[Tenant] = ()) -> Message:
    """All keys and tenants for a worker; digests only."""
    return {"t": "keys", "keys": list(map(document_of, entries)), "tenants": list(map(asdict, tenants))}


def key_changes(
    entries: Iterable[KeyEntry], gone: Iterable[str] = (), tenants: Iterable[Tenant] | None = None
) -> Message:
    """Keys that are new or have changed since `keys`, the ids of those gone, all tenants if any changed."""
    message = {"t": "key_changes", "keys": list(map(document_of, entries)), "gone": list(gone)}
    return message | ({"tenants": list(map(asdict, tenants))} if tenants is not None else {})


def jwks(keys: Sequence[Mapping[str, Any]], pause: float) -> Message:
    """The identity provider's public keys for a worker, and in how many seconds it may ask for others."""
    return {"t": "jwks", "keys": list(keys), "pause": pause}


def entries_of(message: Message) -> list[KeyEntry]:
    """The key entries of a `keys` or `key_changes` message."""
    return list(map(entry_of, message["keys"]))


def tenants_of(message: Message) -> list[Tenant] | None:
    """All tenants, where a `keys` or `key_changes` message says them."""
    if "tenants" not in message:
        return None
    return [tenant_of(document, document["origin"]) for document in message["tenants"]]
