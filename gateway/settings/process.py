"""`[server]`, `[state]`, `[auth]`, `[observe]`: the process itself."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from gateway.settings.address import Listen
from gateway.settings.faults import did_you_mean, quote
from gateway.settings.jwt import JWT
from gateway.settings.kinds import INVALID, Flag, Kind, Number, PathName, Reading, Text, Wrong, text_of
from gateway.settings.ledger import KEEP, LedgerPlace
from gateway.settings.quantities import Duration, Size
from gateway.settings.schema import Auth, Bounds, Observe, Server, State, Tls
from gateway.settings.shared import Shared
from gateway.settings.tables import Field, Later, Table
from gateway.settings.tree import Node

DATA_DIR = "data"


class Workers(Kind):
    """How many worker processes: a number, or "auto" for one per core this process may use."""

    _number = Number(least=1, most=256, whole=True)

    def parse(self, node: Node, reading: Reading) -> int:
        if node.value == "auto":
            return min(len(os.sched_getaffinity(0)), 256)
        if isinstance(node.value, str):
            near = did_you_mean(node.value, ["auto"])
            raise Wrong(f'must be a number of processes or "auto", not {quote(node.value)}{near}')
        return int(self._number.parse(node, reading))

    def schema(self) -> dict[str, Any]:
        return {"anyOf": [self._number.schema(), {"const": "auto"}]}


class Directory(Kind):
    """A directory's path, relative to the file it is named in, made absolute. It need not exist yet."""

    def parse(self, node: Node, reading: Reading) -> str:
        text = text_of(node, 'a directory such as "data"')
        if not text or not text.isprintable():
            raise Wrong('must be a directory such as "data"')
        path = node.source.directory / text
        if path.exists() and not path.is_dir():
            raise Wrong(f"{quote(text)} is a file, not a directory")
        return os.path.normpath(path)

    def schema(self) -> dict[str, Any]:
        return {"type": "string", "minLength": 1}


class CallLog(Kind):
    """Where call lines go: "stdout", "off", or a file's path, made absolute."""

    def parse(self, node: Node, reading: Reading) -> str:
        text = text_of(node, '"stdout", "off" or a path such as "./calls.log"')
        if text in ("stdout", "off"):
            return text
        if "/" not in text or not text.isprintable():
            near = did_you_mean(text, ["stdout", "off"])
            raise Wrong(f'{quote(text)} is not "stdout", "off" or a path such as "./calls.log"{near}')
        path = Path(os.path.normpath(node.source.directory / text))
        if not path.parent.is_dir():
            raise Wrong(f"there is no directory for {quote(text)}")
        return str(path)

    def schema(self) -> dict[str, Any]:
        return {"type": "string", "pattern": "^(stdout|off|.*/.*)$"}


def _tls(values: dict[str, Any], node: Node, reading: Reading) -> Any:
    if len(values) < 2:
        return INVALID
    import ssl  # only where it is used: it takes longer to import than all the rest to read

    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(values["cert"], values["key"], password="")
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", "") or "no PEM certificate and unencrypted key"
        reading.fault(node, f"certificate and key can't be used: {str(reason).replace('_', ' ')}")
        return INVALID
    return Tls(**values)


def _server(values: dict[str, Any], node: Node, reading: Reading) -> Server:
    values.setdefault("data_dir", os.path.normpath(node.source.directory / DATA_DIR))
    return Server(**values)


TLS = Table(
    "server.tls",
    Tls,
    {
        "cert": Field(PathName(), 'PEM file of the certificate chain, "file:tls.crt"', required=True),
        "key": Field(PathName("file:tls.key"), 'PEM file of the private key, "file:tls.key"', required=True),
    },
    finish=_tls,
)

BOUNDS = Table(
    "server.bounds",
    Bounds,
    {
        "body": Field(Size(least=1 << 10, most=1 << 30), "largest request body"),
        "headers": Field(Size(least=1 << 10, most=1 << 20, example="32KiB"), "largest request head"),
        "header_time": Field(Duration(example="10s"), "to receive a request's head"),
        "body_time": Field(Duration(example="60s"), "to receive a request's body"),
        "idle": Field(Duration(example="75s"), "a quiet keep-alive connection is closed after"),
        "connections": Field(Number(least=1, most=1_000_000, whole=True), "client connections per worker"),
        "drain": Field(Duration(least=0.0, example="600s"), "running calls may finish within, when stopping"),
        "memory": Field(Size(least=1 << 20, example="512MiB"), "request bodies held at once by one worker"),
    },
)

SERVER = Table(
    "server",
    Server,
    {
        "listen": Field(Listen(), 'the data port: "HOST:PORT" or "unix:PATH"'),
        "admin": Field(Listen(), "the control port: health, metrics"),
        "workers": Field(Workers(), 'data-plane processes, or "auto": one per core'),
        "data_dir": Field(Directory(), "ledger and keys; relative to this file"),
        "tls": Field(TLS, "serve TLS on the data port"),
        "bounds": Field(BOUNDS, "what one client may take"),
    },
    finish=_server,
)

STATE = Table(
    "state",
    State,
    {
        "ledger": Field(LedgerPlace(), "the record of what was used: SQLite in data_dir, or PostgreSQL"),
        "keep": Field(KEEP, "for how long what was recorded is kept"),
        "shared": Field(Shared(), "limits and events between replicas: in memory, or in Redis or Valkey"),
        "timeout": Field(Duration(least=0.005, example="75ms"), "shared state that is slower counts as lost"),
        "blobs": Field(Later(), "cached answers"),
        "vectors": Field(Later(), "semantic index"),
    },
)


def _auth(values: dict[str, Any], node: Node, reading: Reading) -> Auth:
    if values.get("mode") == "open" and "jwt" in values:
        reading.warn(node.value["jwt"], 'has no effect with mode = "open": anyone may call without a token')
    return Auth(**values)


AUTH = Table(
    "auth",
    Auth,
    {
        "mode": Field(Text(choices=("keys", "open")), "who may call: holders of keys, or anyone"),
        "allow_open": Field(Flag(), 'allow mode = "open" on an address other machines can reach'),
        "jwt": Field(JWT, "tokens of an identity provider, beside keys"),
    },
    finish=_auth,
)

OBSERVE = Table(
    "observe",
    Observe,
    {
        "calls": Field(CallLog(), 'one JSON line per call: "stdout", "off" or a file\'s path'),
        "level": Field(Text(choices=("debug", "info", "warning", "error")), "of the process log on stderr"),
    },
)
