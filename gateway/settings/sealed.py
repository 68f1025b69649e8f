"""Secrets in the file: `env:NAME`, `file:PATH`, or literal with a warning."""

from __future__ import annotations

import re
from typing import Any

from gateway.settings.faults import quote
from gateway.settings.kinds import Kind, Reading, Wrong, read_small, text_of
from gateway.settings.secret import Secret
from gateway.settings.tree import Node

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class Sealed(Kind):
    """A secret. Its text must fit into a header: printable ASCII, spaces inside allowed."""

    def parse(self, node: Node, reading: Reading) -> Secret:
        text = text_of(node, 'a string such as "env:NAME" or "file:PATH"')
        try:
            return self._unsealed(text, node, reading)
        except Wrong as wrong:
            if reading.resolve or not text.startswith(("env:", "file:")):
                raise
            reading.warn(node, str(wrong))
            return Secret(text, text)  # stands for itself: equal references stay equal

    @staticmethod
    def _unsealed(text: str, node: Node, reading: Reading) -> Secret:
        if text.startswith("env:"):
            secret = _from_environment(text, reading)
        elif text.startswith("file:"):
            secret = _from_file(text, node, reading)
        else:
            secret = Secret(text)
            reading.warn(node, 'a literal secret; keep it in "env:NAME" or "file:PATH"')
        _fits(secret)
        return secret

    def schema(self) -> dict[str, Any]:
        return {"type": "string", "minLength": 1}


def _from_environment(text: str, reading: Reading) -> Secret:
    name = text.removeprefix("env:")
    if not _NAME.fullmatch(name):
        raise Wrong(f'{quote(text)} names no environment variable; write it as "env:NAME"')
    value = reading.environ.get(name)
    if value is None:
        raise Wrong(f"env:{name} is not set")
    if not value:
        raise Wrong(f"env:{name} is set but empty")
    return Secret(value, f"env:{name}")


def _from_file(text: str, node: Node, reading: Reading) -> Secret:
    name = text.removeprefix("file:")
    if not name or not name.isprintable():
        raise Wrong('names no file; write it as "file:PATH"')
    file = node.source.directory / name
    reading.watched.append(str(file))
    try:
        value = read_small(file, name, 64 << 10).decode().rstrip("\r\n")
    except UnicodeDecodeError:
        raise Wrong(f"file:{name} is not UTF-8 text") from None
    if not value:
        raise Wrong(f"file:{name} is empty")
    return Secret(value, f"file:{name}")


def _fits(secret: Secret) -> None:
    value = secret.reveal()
    if not value or not value.isascii() or not value.isprintable() or value != value.strip():
        raise Wrong(
            "the secret must be printable ASCII on one line, without blanks at its ends"
            + ("" if secret.source == "literal" else f"  ({secret.source})")
        )
