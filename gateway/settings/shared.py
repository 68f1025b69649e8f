"""`state.shared`: where replicas share what they count. A URL, and a secret, as it may hold a password."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

from gateway.settings.faults import did_you_mean
from gateway.settings.kinds import Reading, Wrong, read_small, text_of
from gateway.settings.sealed import SOURCES, Sealed
from gateway.settings.secret import Secret
from gateway.settings.tree import Node

MEMORY = "memory"
FORMS = '"memory", "redis://HOST:PORT/DB", "redis+sentinel://HOST,HOST/NAME", "redis+cluster://HOST,HOST"'
_SCHEMES = {
    f"{name}{suffix}": (kind, name in ("rediss", "valkeys"))
    for name in ("redis", "rediss", "valkey", "valkeys")
    for suffix, kind in (("", "one"), ("+sentinel", "sentinel"), ("+cluster", "cluster"))
} | {"unix": ("unix", False)}
_PORTS = {"one": 6379, "sentinel": 26379, "cluster": 6379}
_TLS_FILES = ("ca", "cert", "key")
_ESCAPED = "in a password, @ / ? # % & [ ] are %40 %2F %3F %23 %25 %26 %5B %5D"
_OPTIONS = {
    "one": ("prefix", *_TLS_FILES),
    "cluster": ("prefix", *_TLS_FILES),
    "sentinel": ("prefix", *_TLS_FILES, "sentinel_user", "sentinel_password"),
    "unix": ("prefix", "db"),
}
_HOST = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9_.-]+))(?::([0-9]{1,5}))?")
_PREFIX = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,63}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")


@dataclass(slots=True, frozen=True)
class StoreUrl:
    """A store's URL, taken apart. `kind` is one, sentinel, cluster or unix; passwords are not shown."""

    kind: str
    hosts: tuple[tuple[str, int], ...] = ()
    path: str = ""  # of a Unix socket
    tls: bool = False
    user: str = ""
    password: str = field(default="", repr=False)
    db: int = 0
    service: str = ""  # what Sentinel calls the primary
    prefix: str = "penstock"  # of every key and channel
    ca: str = ""
    cert: str = ""
    key: str = ""
    sentinel_user: str = ""
    sentinel_password: str = field(default="", repr=False)

    @property
    def shown(self) -> str:
        """Where it is, without credentials."""
        if self.path:
            return f"unix:{self.path}"
        hosts = ",".join(f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in self.hosts)
        return f"{hosts}/{self.service}" if self.service else hosts


def store_url(text: str) -> StoreUrl:
    """The parts of such a URL. Raises `Wrong`; as any part may hold a password, nothing of it is quoted."""
    scheme, colon, _ = text.partition(":")
    if not colon or scheme.lower() not in _SCHEMES:
        near = did_you_mean(scheme, [*_SCHEMES, MEMORY] if not colon else _SCHEMES)
        raise Wrong(f"is neither of {FORMS}{near}")
    kind, tls = _SCHEMES[scheme.lower()]
    if not text.isprintable():  # `urlsplit` leaves out tabs and line breaks: not the same password
        raise Wrong("has a control character: in a password it is written %09, %0A …")
    try:
        parts = urlsplit(text)
        options = _options(parts.query)
    except ValueError:
        raise Wrong(f"is not a URL that can be read; write {FORMS}  ({_ESCAPED})") from None
    if parts.fragment:
        raise Wrong('has a "#": in a password it is written %23')
    values = _checked(kind, tls, options)
    if kind == "unix":
        return StoreUrl("unix", path=_socket(unquote(parts.path or parts.netloc)), **values)
    userinfo, _, hosts = parts.netloc.rpartition("@")
    user, _, password = userinfo.partition(":")
    return StoreUrl(
        kind,
        hosts=_hosts(hosts, kind),
        tls=tls,
        user=unquote(user),
        password=unquote(password),
        **_place(kind, parts.path),
        **values,
    )


def _options(query: str) -> dict[str, str]:
    """A plus is one, as everywhere in the URL: forms alone write spaces so. Raises `ValueError`."""
    query = query.replace("+", "%2B")
    return dict(parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query)))


def _checked(kind: str, tls: bool, options: dict[str, str]) -> dict[str, Any]:
    allowed = [name for name in _OPTIONS[kind] if tls or name not in _TLS_FILES]
    if not options.keys() <= set(allowed):
        needs = "; ca, cert and key need rediss://" if options.keys() & set(_TLS_FILES) and not tls else ""
        raise Wrong(f"has an option that it can't have (allowed after the ?: {', '.join(allowed)}{needs})")
    values: dict[str, Any] = dict(options)
    if not _PREFIX.fullmatch(values.get("prefix", "penstock")):
        raise Wrong("prefix must be letters, digits and _ . : - alone, at most 64")
    if bool(values.get("cert")) != bool(values.get("key")):
        raise Wrong("cert and key need each other")
    if "db" in values:
        values["db"] = _database(values["db"])
    return values


def _socket(path: str) -> str:
    if not path.startswith("/") or len(path.encode()) > 107:
        raise Wrong('must name a socket by its whole path: "unix:///run/redis.sock"')
    return path


def _hosts(text: str, kind: str) -> tuple[tuple[str, int], ...]:
    found = []
    for each in text.split(","):
        match = _HOST.fullmatch(each)
        if match is None or not 0 < int(match[3] or 1) < 65536:
            raise Wrong(
                "names no host, or one that is not HOST or HOST:PORT"
                "  (in a password, @ / ? # are %40 %2F %3F %23)"
            )
        found.append((match[1] or match[2], int(match[3] or _PORTS[kind])))
    if kind == "one" and len(found) > 1:
        raise Wrong(
            "names several hosts; those of one installation are redis+sentinel:// or redis+cluster://"
        )
    return tuple(found)


def _place(kind: str, path: str) -> dict[str, Any]:
    words = [unquote(word) for word in path.split("/") if word]
    service = ""
    if kind == "sentinel":
        if not words or not _NAME.fullmatch(words[0]):
            raise Wrong('does not say what Sentinel calls the primary: "redis+sentinel://HOST,HOST/mymaster"')
        service = words.pop(0)
    if len(words) > 1:
        raise Wrong("has more after the host than a database's number")
    db = _database(words[0]) if words else 0
    if kind == "cluster" and db:
        raise Wrong("a cluster has database 0 alone")
    return {"service": service, "db": db}


def _database(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,4}", text):
        raise Wrong("the database must be a number such as 0")
    return int(text)


class Shared(Sealed):
    """`memory` (None), or a store's URL as a secret; files that it names are made absolute."""

    def parse(self, node: Node, reading: Reading) -> Secret | None:  # type: ignore[override]
        text = text_of(node, FORMS)
        if text == MEMORY:
            return None
        plain = not text.startswith(SOURCES)
        if plain:
            url = store_url(text)
            secret = super().parse(node, reading) if url.password or url.sentinel_password else Secret(text)
        else:
            secret = super().parse(node, reading)
            if secret.reveal() in (secret.source, text):  # it could not be had, and need not
                return secret
            url = store_url(secret.reveal())
        return _with_files(url, secret, node, reading)

    def schema(self) -> dict[str, Any]:
        schemes = "|".join(re.escape(scheme) for scheme in _SCHEMES)
        return {"type": "string", "pattern": f"^({MEMORY}|(env|file|exec):.+|({schemes}):.+)$"}

    def show(self, value: Any) -> Any:
        return MEMORY if value is None else str(value)


def _with_files(url: StoreUrl, secret: Secret, node: Node, reading: Reading) -> Secret:
    """The same URL with the paths of its files made absolute; each must be readable."""
    files = {name: getattr(url, name) for name in _TLS_FILES if getattr(url, name)}
    if not files:
        return secret
    absolute = {name: str(node.source.directory / path) for name, path in files.items()}
    for name, path in files.items():
        reading.watched.append(absolute[name])
        read_small(Path(absolute[name]), path)
    head, _, query = secret.reveal().partition("?")
    options = _options(query) | absolute
    return Secret(f"{head}?{urlencode(options, quote_via=quote)}", secret.source)
