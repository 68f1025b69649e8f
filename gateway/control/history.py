"""Configurations over time: what is kept of each, and how one comes back. Literal secrets are never kept.

In a kept text a literal secret is replaced by a mark with its fingerprint. A text comes back only where
each mark can be filled from the configuration that serves now.
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import json
import re
import tomllib
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from gateway.core.errors import CallerError
from gateway.core.redact import redact
from gateway.settings.schema import Settings
from gateway.settings.secret import Secret

# Strings of several lines, of one, and comments.
_PIECE = re.compile(
    r'''"""(?:[^\\]|\\.)*?"""|\'{3}.*?\'{3}|"(?:[^"\\\n]|\\.)*"|'[^'\n]*'|\#[^\n]*''', re.DOTALL
)
_ASSIGNED = re.compile(
    r"""(?i)((?:key|token|secret|password)\w*["']?\s*=\s*["'])(?!(?:env|file|exec|sha256):)([^"']+)(["'])"""
)
_MARK = re.compile(r"\*{3}secret:([0-9a-f]{16})\*{3}")


def masked(files: Mapping[str, str], settings: Settings) -> dict[str, str]:
    """The files of a configuration without its literal secrets, however they are written there.

    Comments lose what looks like one.
    """
    literals = sorted(_literals(settings), key=len, reverse=True)
    found = {path: _PIECE.sub(lambda piece: _shown(piece[0], literals), text) for path, text in files.items()}
    for literal in literals:
        for path, text in found.items():
            found[path] = text.replace(literal, _mark(literal))
    return found


def _shown(piece: str, literals: list[str]) -> str:
    """A string of TOML, or a comment, as it may be shown."""
    if piece[0] == "#":
        return _ASSIGNED.sub(r"\1***\3", redact(piece, ("secret",))[0])
    if "\\" not in piece and "\n" not in piece:
        return piece
    try:
        text = plain = str(tomllib.loads(f"it = {piece}")["it"])
    except tomllib.TOMLDecodeError:
        return piece
    if any(literal in piece for literal in literals):
        return piece  # it stands there as it is
    for literal in literals:
        text = text.replace(literal, _mark(_quoted(literal)))
    return f'"{_quoted(text)}"' if text != plain else piece


def _quoted(text: str) -> str:
    """As it stands between double quotes in TOML."""
    return json.dumps(text, ensure_ascii=False)[1:-1].replace("\x7f", "\\u007F")


def marked(text: str) -> bool:
    """Whether a text has the mark of a secret that was taken out: what `masked` gave was edited."""
    return _MARK.search(text) is not None


def filled(files: Mapping[str, str], settings: Settings) -> dict[str, str]:
    """Kept texts with their secrets again. Raises `CallerError` (409) where one is not there any more."""
    known = {_fingerprint(literal): literal for literal in _literals(settings)}

    def secret(match: re.Match[str]) -> str:
        if match[1] not in known:
            raise CallerError(
                "That revision had a literal secret, which is not kept, and the one that serves now has no "
                'such secret. Write the secret as "env:NAME" or "file:PATH" and apply the text by hand.',
                status=409,
                code="caller_conflict",
            )
        return known[match[1]]

    return {path: _MARK.sub(secret, text) for path, text in files.items()}


def differences(before: Mapping[str, str], after: Mapping[str, str]) -> str:
    """A unified diff of two sets of files."""
    pieces: list[str] = []
    for path in sorted({*before, *after}):
        old, new = before.get(path, "").splitlines(True), after.get(path, "").splitlines(True)
        name = Path(path).name
        pieces += difflib.unified_diff(old, new, f"a/{name}", f"b/{name}")
    return "".join(pieces)


@lru_cache(maxsize=256)
def _fingerprint(literal: str) -> str:
    # Viewers see it: slow, so that nobody finds a short password by trying all (RFC 7914; some 25 ms, 8 MiB).
    return hashlib.scrypt(literal.encode(), salt=b"penstock history", n=2**13, r=8, p=1).hex()[:16]


def _mark(literal: str) -> str:
    return f"***secret:{_fingerprint(literal)}***"


def _literals(settings: Settings) -> set[str]:
    """As they stand in the file: a text with quotes in it is written with backslashes."""
    found = {each.reveal() for each in _secrets(settings) if each.source == "literal"}
    found |= {_quoted(literal) for literal in found}
    return {literal for literal in found if len(literal) > 3}


def _secrets(value: Any) -> Iterator[Secret]:
    if isinstance(value, Secret):
        yield value
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for part in dataclasses.fields(value):
            yield from _secrets(getattr(value, part.name))
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _secrets(item)
    elif isinstance(value, tuple | list):
        for item in value:
            yield from _secrets(item)
