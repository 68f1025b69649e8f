"""Secrets in the file: `env:NAME`, `file:PATH`, `exec:COMMAND`, or literal with a warning."""

from __future__ import annotations

import re
from typing import Any

from gateway.settings.exec import PREFIX, Failed, command
from gateway.settings.faults import quote
from gateway.settings.kinds import Kind, Reading, Text, Wrong, read_small, text_of
from gateway.settings.quantities import Duration
from gateway.settings.schema import Secrets
from gateway.settings.secret import Secret
from gateway.settings.tables import Field, Many, Table
from gateway.settings.tree import Node

SOURCES = ("env:", "file:", PREFIX)  # how a text begins that says where a secret is

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class Sealed(Kind):
    """A secret. Its text must fit into a header: printable ASCII, spaces inside allowed."""

    def parse(self, node: Node, reading: Reading) -> Secret:
        text = text_of(node, 'a string such as "env:NAME" or "file:PATH"')
        if text.startswith("env:") and not _NAME.fullmatch(text.removeprefix("env:")):
            # It may be the secret itself, and is not said back.
            raise Wrong('names no environment variable; write it as "env:NAME"')
        try:
            return self._unsealed(text, node, reading)
        except Wrong as wrong:
            if reading.resolve or not text.startswith(SOURCES):
                raise
            if not text.startswith(PREFIX):
                reading.warn(node, str(wrong))
                return Secret(text, text)  # stands for itself: equal references stay equal
            return Secret(text, _program(text))

    @staticmethod
    def _unsealed(text: str, node: Node, reading: Reading) -> Secret:
        if text.startswith("env:"):
            secret = _from_environment(text, reading)
        elif text.startswith("file:"):
            secret = _from_file(text, node, reading)
        elif text.startswith(PREFIX):
            secret = _from_command(text, node, reading)
        else:
            secret = Secret(text)
            reading.literals.append(text)
            reading.warn(node, 'a literal secret; keep it in "env:NAME" or "file:PATH"')
        _fits(secret)
        return secret

    def schema(self) -> dict[str, Any]:
        return {"type": "string", "minLength": 1}


def _from_environment(text: str, reading: Reading) -> Secret:
    name = text.removeprefix("env:")
    reading.named.append(name)
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


def _from_command(text: str, node: Node, reading: Reading) -> Secret:
    try:
        wanted = command(text, node.source.directory)
        reading.literals.append(text.removeprefix(PREFIX).strip().partition(" ")[2].strip())
        reading.commands.append(wanted)
        if not reading.resolve:  # nothing is run for commands that need no secret
            raise Wrong("is not asked for here")
        return Secret(reading.execs.value(wanted, reading.environ), wanted.source)
    except Failed as failed:
        raise Wrong(f"{quote(_program(text))}: {failed}") from None


def _program(text: str) -> str:
    """A command as it may be shown: its program alone, for arguments may hold secrets."""
    word = next(iter(text.removeprefix(PREFIX).split()), "")
    return PREFIX + (word if not set(word) & set("'\"\\") else "…")


def _fits(secret: Secret) -> None:
    value = secret.reveal()
    if not value or not value.isascii() or not value.isprintable() or value != value.strip():
        raise Wrong(
            "the secret must be printable ASCII on one line, without blanks at its ends"
            + ("" if secret.source == "literal" else f"  ({secret.source})")
        )


SECRETS = Table(
    "secrets",
    Secrets,
    {
        "refresh": Field(Duration(least=1.0, most=86_400.0, example="5m"), "commands are asked again after"),
        "environment": Field(
            Many(Text(pattern=_NAME.pattern, meaning="a variable's name", most=128), most=100),
            "variables that commands get beside PATH, HOME, LANG, TZ, TMPDIR and SSL_CERT_*",
        ),
    },
)


def lend(tree: Node, reading: Reading) -> None:
    """What `[secrets]` says has to be known before the first command is run, wherever it stands."""
    node = tree.child("secrets")
    if node is None:
        return
    settings = SECRETS.read(node, Reading({}))  # faults are told when the section itself is read
    if isinstance(settings, Secrets):
        reading.execs.refresh, reading.execs.lent = settings.refresh, settings.environment
