"""`state.ledger` and `state.keep`: where what was used is recorded, and for how long."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl, urlsplit

from gateway.core.keep import Keep
from gateway.settings.faults import did_you_mean
from gateway.settings.kinds import Kind, Reading, Wrong, text_of
from gateway.settings.quantities import Duration
from gateway.settings.sealed import SOURCES, Sealed
from gateway.settings.secret import Secret
from gateway.settings.tables import Field, Table
from gateway.settings.tree import Node

SQLITE = "sqlite"
FORMS = '"sqlite" or "postgresql://USER@HOST:PORT/DATABASE"'
_SCHEMES = ("postgresql", "postgres")
# Of libpq's; those that the gateway sets itself, and the password, are not among them.
_OPTIONS = (
    "sslmode", "sslrootcert", "sslcert", "sslkey", "sslcrl", "ssl_min_protocol_version", "channel_binding",
    "target_session_attrs", "load_balance_hosts", "host", "hostaddr", "port", "passfile", "gssencmode",
)  # fmt: skip
_YEARS = 100 * 366 * 86_400.0


def check(url: str) -> None:
    """Raises `Wrong` for a URL that can be none of a database, and quotes nothing: it may have a password."""
    scheme, colon, _ = url.partition("://")
    if not colon or scheme not in _SCHEMES:
        near = did_you_mean(scheme, [*_SCHEMES, SQLITE] if not colon else _SCHEMES)
        raise Wrong(f"is neither of {FORMS}{near}")
    if "#" in url or url.count("@") > 1:
        raise Wrong("has a # or a second @: in a password, @ / ? # are %40 %2F %3F %23")
    try:
        parts = urlsplit(url)
        options = dict(parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query)))
        ports = [each.rpartition("]")[2].partition(":")[2] for each in _hosts(parts.netloc)]
    except ValueError:
        raise Wrong(f"is not a URL that can be read; write {FORMS}") from None
    if not all(port.isascii() and port.isdigit() for port in ports if port):
        raise Wrong("has a port that is no number  (in a password, @ / ? # are %40 %2F %3F %23)")
    if len(parts.path) < 2 or "/" in parts.path[1:]:
        raise Wrong(f"must name one database after the host; write {FORMS}")
    if not options.keys() <= set(_OPTIONS):
        raise Wrong(f"has an option that it can't have (allowed after the ?: {', '.join(_OPTIONS)})")
    if not any(_hosts(parts.netloc)) and "host" not in options and "hostaddr" not in options:
        raise Wrong("names no host; for a socket write postgresql:///DATABASE?host=/run/postgresql")


def _hosts(netloc: str) -> list[str]:
    return netloc.rpartition("@")[2].split(",")


class LedgerPlace(Sealed):
    """`sqlite` (None), or a database's URL as a secret."""

    def parse(self, node: Node, reading: Reading) -> Secret | None:  # type: ignore[override]
        text = text_of(node, FORMS)
        if text == SQLITE:
            return None
        if not text.startswith(SOURCES):
            check(text)
            return super().parse(node, reading) if urlsplit(text).password else Secret(text)
        secret = super().parse(node, reading)
        if secret.reveal() not in (secret.source, text):  # else it could not be had, and need not
            check(secret.reveal())
        return secret

    def schema(self) -> dict[str, Any]:
        return {"type": "string", "pattern": f"^({SQLITE}|(env|file|exec):.+|postgres(ql)?://.+)$"}

    def show(self, value: Any) -> Any:
        return SQLITE if value is None else str(value)


class Span(Kind):
    """How long something is kept: a duration, or "forever" (0.0)."""

    def __init__(self, least: str) -> None:
        self._duration = Duration(least=float(least[:-1]) * 86_400, most=_YEARS, example="90d")

    def parse(self, node: Node, reading: Reading) -> float:
        return 0.0 if node.value == "forever" else self._duration.parse(node, reading)

    def schema(self) -> dict[str, Any]:
        return {"anyOf": [self._duration.schema(), {"const": "forever"}]}

    def show(self, value: float) -> str:
        return self._duration.show(value) if value else "forever"


# Budgets are restored from what is kept: windows of an hour from calls, longer ones from sums.
KEEP = Table(
    "state.keep",
    Keep,
    {
        "calls": Field(Span("2d"), 'single calls, or "forever"'),
        "hours": Field(Span("35d"), "sums by hour"),
        "days": Field(Span("35d"), "sums by day"),
        "audit": Field(Span("1d"), "the audit; what goes is stated in it"),
    },
)
