"""`[backends.NAME]`: whom to ask, how, and with which credential."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import urlsplit

from gateway.settings.faults import quote
from gateway.settings.kinds import INVALID, Flag, Kind, Number, PathName, Reading, Text, Wrong, text_of
from gateway.settings.quantities import Duration
from gateway.settings.schema import BackendSettings, Deadlines
from gateway.settings.sealed import SOURCES, Sealed
from gateway.settings.secret import Secret
from gateway.settings.tables import Field, Many, Named, Table
from gateway.settings.tree import Node

KINDS = ("openai", "azure", "echo")
_LATER = "anthropic|gemini|vertex|bedrock|cohere|engine"
_AZURE_ONLY = ("api_version", "credential")
_ECHO = ("kind", "timeout", "connections", "stream_usage")

# Framing and hop-by-hop headers are the connection's business (RFC 9110, 7.6.1).
_RESERVED = frozenset({
    "host", "content-length", "transfer-encoding", "connection", "keep-alive", "te", "trailer", "upgrade",
    "proxy-connection", "proxy-authorization", "expect",
})  # fmt: skip


def check_url(url: str, schemes: tuple[str, ...] = ("http", "https"), userinfo: bool = False) -> None:
    """Raises `Wrong` unless it is an absolute URL with a host. Never quotes a URL that holds a credential."""
    example = f"{schemes[-1]}://host/v1"
    if "@" in url and not userinfo:
        raise Wrong(f"must not hold a credential: give it as api_key; the URL is such as {quote(example)}")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise Wrong(f"is not a URL such as {quote(example)}") from None
    if not url.isascii() or not url.isprintable() or " " in url or "\\" in url:
        raise Wrong(f"is not a URL such as {quote(example)}: it has blanks or other characters no URL has")
    if parts.scheme not in schemes:
        raise Wrong(f"must start with {' or '.join(f'{scheme}://' for scheme in schemes)}")
    if not host or port == 0:
        raise Wrong(f"names no host and port; write it as {quote(example)}")
    if parts.query or parts.fragment or "?" in url or "#" in url:
        raise Wrong("must end with its path: no ? or # (api_version is a key of its own)")


class Url(Kind):
    """An http or https URL without credential, query or fragment; the slash at its end is dropped."""

    def parse(self, node: Node, reading: Reading) -> str:
        url = text_of(node, 'a URL such as "https://host/v1"')
        check_url(url)
        return url.rstrip("/")

    def schema(self) -> dict[str, Any]:
        return {"type": "string", "pattern": "^https?://[^@?#\\s]+$"}


class Proxy(Sealed):
    """A forward proxy's URL; a secret, because it may hold a credential."""

    def parse(self, node: Node, reading: Reading) -> Secret:
        text = text_of(node, 'a URL such as "http://proxy:3128"')
        plain = not text.startswith(SOURCES) and "@" not in text
        secret = Secret(text) if plain else super().parse(node, reading)
        if not text.startswith(SOURCES) or secret.reveal() not in (secret.source, text):  # else not to be had
            check_url(secret.reveal(), userinfo=True)
        return secret


class Header(Kind):
    """A header's value: plain text, or a Secret where its source or the header's name says so."""

    _sealed = Sealed()

    def parse(self, node: Node, reading: Reading) -> str | Secret:
        text = text_of(node)
        if text.startswith(SOURCES):
            return self._sealed.parse(node, reading)
        if not text.isascii() or not text.isprintable() or text != text.strip() or len(text) > 4096:
            raise Wrong("must be printable ASCII without blanks at its ends, at most 4096 long")
        # By its name it holds a credential: then it is not shown, however it is written.
        return self._sealed.parse(node, reading) if text and _CREDENTIAL.search(str(node.path[-1])) else text

    def schema(self) -> dict[str, Any]:
        return {"type": "string", "maxLength": 4096}


_CREDENTIAL = re.compile(r"(?i)auth|key|token|secret|cookie|passw|credential|signature")


class HeaderName(Kind):
    """A header's name (RFC 9110, 5.1) that is not about framing or the connection."""

    def parse(self, node: Node, reading: Reading) -> str:
        name = text_of(node)
        if not re.fullmatch(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,128}", name):
            raise Wrong(f"{quote(name)} is not a header's name")
        if name.lower() in _RESERVED:
            raise Wrong(f"{name} belongs to the connection and can't be set")
        return name

    def schema(self) -> dict[str, Any]:
        return {"type": "string", "pattern": r"^[A-Za-z0-9!#$%&'*+.^_`|~-]{1,128}$"}


class Roots(PathName):
    """A PEM file of extra trusted roots."""

    def parse(self, node: Node, reading: Reading) -> str:
        import ssl  # only where it is used

        path = super().parse(node, reading)
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(path)
        except (OSError, ValueError):
            raise Wrong(f"{node.value} holds no PEM certificates") from None
        return path


def _applies(values: dict[str, Any], node: Node, reading: Reading) -> bool:
    kind, good = values.get("kind", ""), True
    for key, item in node.value.items():
        if kind == "echo" and key not in _ECHO:
            reading.fault(item, "means nothing for kind echo: it asks nobody", at_key=True)
            good = False
        elif kind == "openai" and key in _AZURE_ONLY:
            reading.fault(item, "is for kind azure only", at_key=True)
            good = False
    spelt = node.value.keys() <= BACKEND.fields.keys()
    if kind in ("openai", "azure") and "base_url" not in node.value and spelt:
        told = "https://api.openai.com/v1" if kind == "openai" else "https://NAME.openai.azure.com"
        reading.fault(node, f"is missing: where it is, such as {quote(told)}", "base_url")
        good = False
    return good and (kind == "echo" or (kind in KINDS and "base_url" in values))


def _backend(values: dict[str, Any], node: Node, reading: Reading) -> Any:
    if not _applies(values, node, reading):
        return INVALID
    values["api_keys"] = values.pop("api_key", ())
    headers = values.pop("headers", {})
    plain = tuple((name, value) for name, value in headers.items() if isinstance(value, str))
    sealed = tuple((name, value) for name, value in headers.items() if isinstance(value, Secret))
    return BackendSettings(name=str(node.path[-1]), headers=plain, secret_headers=sealed, **values)


DEADLINES = Table(
    "timeout",
    Deadlines,
    {
        "connect": Field(Duration(), "to connect, TLS included"),
        "first": Field(Duration(example="60s"), "to the answer's first byte"),
        "idle": Field(Duration(example="30s"), "between two bytes of the answer"),
        "total": Field(Duration(example="600s"), "in all"),
    },
)

BACKEND = Table(
    "backend",
    BackendSettings,
    {
        "kind": Field(
            Text(choices=KINDS, later={_LATER: "this kind of backend"}),
            "openai (and every compatible server), azure or echo",
            required=True,
        ),
        "base_url": Field(Url(), 'where it is: "https://api.openai.com/v1"'),
        "api_key": Field(Many(Sealed(), least=1, single=True, most=100), "its key, or several, rotated"),
        "timeout": Field(DEADLINES, "deadlines of a call"),
        "connections": Field(Number(least=1, most=100_000, whole=True), "at once, per worker"),
        "proxy": Field(Proxy(), 'a forward proxy: "http://proxy:3128"'),
        "http2": Field(Flag(), "speak HTTP/2 where the server does"),
        "ca": Field(Roots("file:ca.pem"), "PEM file of extra trusted roots"),
        "headers": Field(Named(Header(), HeaderName()), "sent with every call"),
        "api_version": Field(
            Text(pattern=r"[A-Za-z0-9.-]{1,32}", meaning='a version such as "2024-10-21"'),
            "azure: api-version",
        ),
        "credential": Field(Text(choices=("api-key", "bearer")), "azure: which header carries the key"),
        "stream_usage": Field(Flag(), "ask for the usage of streams (stream_options.include_usage)"),
    },
    finish=_backend,
)

NAME = Text(pattern=r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", meaning="a name of letters, digits, _ . -", most=64)
BACKENDS = Named(BACKEND, NAME)
