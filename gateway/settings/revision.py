"""The id of an effective configuration: equal settings, equal id; a rotated secret is a new one."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

from gateway.settings.schema import Settings
from gateway.settings.secret import Secret

# What says where the settings came from, not what they are.
_ASIDE = ("revision", "path", "hidden", "literals", "sources", "warnings")


def revision(settings: Settings) -> str:
    """12 hex digits over everything that is in effect."""
    seen = hashlib.sha256()
    for part in dataclasses.fields(settings):
        if part.name not in _ASIDE:
            for piece in _pieces(getattr(settings, part.name)):
                seen.update(piece)
    return seen.hexdigest()[:12]


def _pieces(value: Any) -> Iterator[bytes]:
    """An unambiguous form: every value with its type, every group with its end."""
    if isinstance(value, Secret):
        yield b"secret:" + hashlib.sha256(value.reveal().encode()).digest()
    elif dataclasses.is_dataclass(value):
        yield type(value).__name__.encode() + b"("
        for part in dataclasses.fields(value):
            yield from _pieces(getattr(value, part.name))
        yield b")"
    elif isinstance(value, Mapping):
        yield b"{"
        for key in sorted(value):
            yield repr(key).encode("utf-8", "surrogatepass")
            yield from _pieces(value[key])
        yield b"}"
    elif isinstance(value, (tuple, list)):
        yield b"["
        for item in value:
            yield from _pieces(item)
        yield b"]"
    else:
        yield f"{type(value).__name__}:{value!r};".encode("utf-8", "surrogatepass")
