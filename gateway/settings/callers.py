"""`[[keys]]`: who may call, from the file."""

from __future__ import annotations

import hashlib
import re
import time
from typing import Any

from gateway.core.principal import KeyEntry, digest
from gateway.core.rights import CALLER, OPERATORS
from gateway.settings.faults import quote
from gateway.settings.kinds import INVALID, Moment, Reading, Text, Wrong
from gateway.settings.network import NETWORKS
from gateway.settings.sealed import Sealed
from gateway.settings.tables import Field, Many, Table
from gateway.settings.tree import Node

_HASH = "sha256:[0-9A-Fa-f]{64}"
_HASH_MEANING = '"sha256:" and 64 hexadecimal digits'
LABEL = Text(pattern=r"[^\s/|]([^/|]*[^\s/|])?", meaning="a name without / or |", most=128)
GLOB = Text(pattern="[^,]+", meaning="a name or glob without commas", most=256)
GLOBS = Many(GLOB)


class Role(Text):
    """A role. Known ones are in small letters: `Viewer` would be one of somebody's own, and so a caller's."""

    def check(self, text: str) -> str:
        """The role. Raises `Wrong`."""
        known = text.casefold().strip()
        if known in (CALLER, *OPERATORS) and text != known:
            raise Wrong(f'{quote(text)} is not a role of the gateway; write "{known}"')
        return super().check(text)


ROLE = Role(pattern=LABEL.pattern, meaning=LABEL.meaning, most=LABEL.most)


class Hash(Text):
    """A secret's SHA-256. What else stands there may be the secret itself, and is never said back."""

    def check(self, text: str) -> str:
        """The hash. Raises `Wrong`."""
        if not re.fullmatch(self.pattern, text):
            raise Wrong(f"is not {self.meaning}; the secret itself belongs into key")
        return text


class Presented(Sealed):
    """The secret that callers present. A hash of it there would be one that anybody may have seen."""

    def parse(self, node: Node, reading: Reading) -> Any:
        if isinstance(node.value, str) and node.value.startswith("sha256:"):
            raise Wrong("is a hash, which belongs into hash")
        return super().parse(node, reading)


class Before(Sealed):
    """The secret a key had before, or its hash; gives the digest."""

    def parse(self, node: Node, reading: Reading) -> Any:
        text = node.value
        if isinstance(text, str) and text.startswith("sha256:"):
            if not re.fullmatch(
                _HASH, text
            ):  # taken for a secret, it would be one that anybody may have seen
                raise Wrong(f"is not {_HASH_MEANING}")
            return bytes.fromhex(text.removeprefix("sha256:"))
        return digest(super().parse(node, reading).reveal().encode())


def key_id(name: str) -> str:
    """The stable id of a key from the file: rotating its secret keeps its limits and its history."""
    return "key_" + hashlib.sha256(name.encode()).hexdigest()[:16]


def no_empty_lists(node: Node, reading: Reading) -> None:
    """An empty list would allow everything; whoever wrote it may have meant the opposite."""
    for name in ("models", "endpoints", "networks"):
        item = node.value.get(name)
        if item is not None and item.value == []:
            reading.fault(item, "is empty: leave it out to allow all, or name what is allowed")


def _key(values: dict[str, Any], node: Node, reading: Reading) -> Any:
    no_empty_lists(node, reading)
    given = [name for name in ("key", "hash") if name in node.value]
    if len(given) == 2:
        reading.fault(node.value["hash"], "both key and hash are given; keep one of them", at_key=True)
    elif not given and node.value.keys() <= KEY.fields.keys():  # else one of them was misspelt
        reading.fault(
            node, 'is missing: the secret as "env:NAME" or "file:PATH", or hash = "sha256:…"', "key"
        )
    secret, hashed = values.pop("key", None), values.pop("hash", None)
    if "name" not in values or len(given) != 1 or (secret is None and hashed is None):
        return INVALID
    if values.get("expires") is not None and values["expires"] <= time.time():
        reading.warn(node.value["expires"], "this key has expired")
    pair = [name for name in ("previous", "previous_until") if name in node.value]
    if len(pair) == 1:
        missing = "previous_until" if pair == ["previous"] else "previous"
        told = f"{missing} is missing: the secret before, and until when it works"
        reading.fault(node.value[pair[0]], told, at_key=True)
        return INVALID
    found = digest(secret.reveal().encode()) if secret else bytes.fromhex(hashed.removeprefix("sha256:"))
    if values.get("previous") == found:
        reading.fault(node.value["previous"], "the same secret as now")
        return INVALID
    return KeyEntry(id=key_id(values["name"]), digest=found, **values)


KEY = Table(
    "keys",
    KeyEntry,
    {
        "name": Field(
            LABEL, "a name of its own: it identifies the key in limits and the ledger", required=True
        ),
        "key": Field(Presented(), 'the secret: "env:NAME", "file:PATH"'),
        "hash": Field(
            Hash(pattern=_HASH, meaning=_HASH_MEANING),
            'the secret\'s SHA-256 instead: "sha256:…"',
        ),
        "previous": Field(
            Before(), "the secret it had before, in any of these forms: it works for a while longer"
        ),
        "previous_until": Field(Moment(), "a date or date-time; from then on the secret before is refused"),
        "tenant": Field(LABEL, "the tenant its calls count for"),
        "team": Field(LABEL, "the team its calls count for"),
        "user": Field(LABEL, "the user its calls count for"),
        "roles": Field(
            Many(ROLE), "caller (absent: that), or roles of the admin API: viewer, operator, admin, auditor"
        ),
        "models": Field(GLOBS, "models it may call, as globs; absent: all"),
        "endpoints": Field(GLOBS, 'endpoints it may call, as globs ("chat/*"); absent: all'),
        "tags": Field(Many(LABEL), "noted with each call"),
        "networks": Field(NETWORKS, 'where it must call from, as ranges ("10.0.0.0/8"); absent: anywhere'),
        "expires": Field(Moment(), "a date or date-time; from then on it is refused"),
    },
    finish=_key,
    rules={"oneOf": [{"required": ["key"]}, {"required": ["hash"]}]},
)
