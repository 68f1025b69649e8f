"""The settings as the rest of the gateway sees them: validated, complete, immutable."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from gateway.core.cost import Price
from gateway.core.group import Tenant
from gateway.core.keep import USUAL, Keep
from gateway.core.limit import LimitRule
from gateway.core.policy import OPEN, Access, Policy
from gateway.core.principal import KeyEntry
from gateway.core.route import ModelRule
from gateway.core.token import Jwt
from gateway.settings.secret import Secret

MiB = 1 << 20


@dataclass(slots=True, frozen=True)
class Bounds:
    """`[server.bounds]`: sizes in bytes, times in seconds."""

    body: int = 32 * MiB
    headers: int = 32 * 1024
    header_time: float = 10.0
    body_time: float = 60.0
    idle: float = 75.0
    connections: int = 10_000
    drain: float = 600.0
    memory: int = 512 * MiB  # request bodies held at once by one worker


@dataclass(slots=True, frozen=True)
class Tls:
    """`server.tls`: paths of certificate chain and key (PEM)."""

    cert: str
    key: str


@dataclass(slots=True, frozen=True)
class Server:
    """`[server]`. `workers` is already a number; `data_dir` is absolute."""

    listen: str = "127.0.0.1:8080"
    admin: str = "127.0.0.1:9090"
    workers: int = 1
    data_dir: str = "data"
    tls: Tls | None = None
    bounds: Bounds = Bounds()


@dataclass(slots=True, frozen=True)
class State:
    """`[state]`."""

    ledger: Secret | None = None  # a database's URL; None: SQLite in data_dir
    keep: Keep = USUAL
    shared: Secret | None = None  # a store's URL (`settings.shared.store_url`); None: memory
    timeout: float = 0.075  # seconds in which the shared state is to answer


@dataclass(slots=True, frozen=True)
class Deadlines:
    """A backend's `timeout`, in seconds: to connect, to the first byte, between bytes, in all."""

    connect: float = 5.0
    first: float = 60.0
    idle: float = 30.0
    total: float = 600.0


@dataclass(slots=True, frozen=True)
class BackendSettings:
    """`[backends.NAME]`."""

    name: str
    kind: str
    base_url: str = ""
    api_keys: tuple[Secret, ...] = ()
    timeout: Deadlines = Deadlines()
    connections: int = 1024  # at once, per worker and origin
    proxy: Secret | None = None  # a forward proxy's URL; uses the httpx transport
    http2: bool = False  # uses the httpx transport
    ca: str = ""  # PEM file of extra trusted roots
    headers: tuple[tuple[str, str], ...] = ()  # sent with every call
    secret_headers: tuple[tuple[str, Secret], ...] = ()  # likewise; given as env:NAME or file:PATH
    api_version: str = ""  # azure
    credential: str = "api-key"  # azure: "api-key" or "bearer"
    stream_usage: bool = True  # ask for usage on streams (OpenAI's stream_options.include_usage)


@dataclass(slots=True, frozen=True)
class Auth:
    """`[auth]`."""

    mode: str = "keys"
    allow_open: bool = False
    jwt: Jwt | None = None


@dataclass(slots=True, frozen=True)
class Observe:
    """`[observe]`: `calls` is where call lines go: "stdout", "off" or a file's path."""

    calls: str = "stdout"
    level: str = "info"


@dataclass(slots=True, frozen=True)
class Secrets:
    """`[secrets]`: commands that give secrets are asked again every `refresh` seconds.

    `environment` names the variables they get beside the few that every command gets.
    """

    refresh: float = 300.0
    environment: tuple[str, ...] = ()


@dataclass(slots=True, frozen=True)
class Settings:
    """One accepted configuration. `sources` are the files it was read from, for watching."""

    revision: str = ""
    path: str = ""  # "" in the zero-configuration mode
    server: Server = Server()
    state: State = State()
    auth: Auth = Auth()
    observe: Observe = Observe()
    keys: tuple[KeyEntry, ...] = ()
    tenants: Mapping[str, Tenant] = field(default_factory=dict)
    backends: Mapping[str, BackendSettings] = field(default_factory=dict)
    models: tuple[ModelRule, ...] = ()
    prices: Mapping[str, Price] = field(default_factory=dict)
    limits: tuple[LimitRule, ...] = ()
    access: Access = OPEN
    policies: tuple[Policy, ...] = ()
    plugins: tuple[tuple[str, Mapping[str, object]], ...] = ()  # ("module:Class", options)
    secrets: Secrets = Secrets()
    hidden: tuple[str, ...] = ()  # environment variables that hold secrets: workers do not get them
    literals: tuple[Secret, ...] = ()  # texts of the files that must not be shown with them
    sources: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
