"""Limits as the operator wrote them: what is counted, for whom, over which window."""

from __future__ import annotations

from dataclasses import dataclass

SCOPES = ("global", "tenant", "team", "user", "key", "model", "backend")
UNITS = ("requests", "tokens", "usd", "concurrent")
CALENDAR = ("minute", "hour", "day", "week", "month")
MICROS = 1_000_000  # dollars are counted in integer micro-dollars


@dataclass(slots=True, frozen=True)
class LimitRule:
    """One `[[limits]]` entry.

    `amount` is in requests, tokens, micro-dollars or calls at once. `seconds` is the rolling
    window's length; `calendar` names a calendar window instead (UTC); concurrent has neither.
    `match` is a glob over the scope's value (several scopes: values joined by "/").
    """

    id: str
    scope: tuple[str, ...]
    unit: str
    amount: int
    seconds: float = 0.0
    calendar: str = ""
    match: str = "*"
    mode: str = "enforce"
    on_store_loss: str = "local"


@dataclass(slots=True, frozen=True)
class Charge:
    """An amount against one bucket: `bucket` is "rule-id|scope value"."""

    bucket: str
    unit: str
    amount: int


@dataclass(slots=True)
class Hold:
    """A reservation of one call against all of its buckets, settled once.

    `tokens` and `micros` are what was reserved; `charges` is opaque to all but the leases.
    """

    tokens: int
    micros: int
    charges: tuple[Charge, ...] = ()
    settled: bool = False


@dataclass(slots=True, frozen=True)
class Denial:
    """Why a hold was refused: the first bucket that had no room."""

    rule: LimitRule
    value: str
    remaining: int
    retry_after: float


@dataclass(slots=True, frozen=True)
class Standing:
    """How a bucket stands, for `x-ratelimit-*`: limit, what is left, seconds until it is whole."""

    limit: int
    remaining: int
    reset: float
