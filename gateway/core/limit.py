"""Limits as the operator wrote them: what is counted, for whom, over which window."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import NamedTuple, Protocol

SCOPES = ("global", "tenant", "team", "user", "key", "model", "backend", "tag")
# `tokens` are those of prompt and answer together. New units stand at the end: places are indices.
UNITS = ("requests", "tokens", "usd", "concurrent", "input_tokens", "output_tokens")
CALENDAR = ("minute", "hour", "day", "week", "month")
SLICES = 60  # of a rolling window: what was used leaves it slice by slice
MICROS = 1_000_000  # dollars are counted in integer micro-dollars


@dataclass(slots=True, frozen=True)
class LimitRule:
    """One `[[limits]]` entry. `id` is its name, or made of what it counts and for whom.

    `amount` is in requests, tokens, micro-dollars or calls at once. `seconds` is the rolling
    window's length; `calendar` names a calendar window instead, in time `zone` (IANA name); concurrent
    has neither. `match` is a glob over the scope's value (several scopes: values joined by "/").
    `burst` above 0 makes a rolling limit of requests a GCRA: that many at once, then at the rate
    amount / seconds. `warn` is the share of the amount at which an event tells of it (0.0: never).
    `unpriced` says whether a limit of money lets models pass that have no price: "allow" or "refuse".
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
    zone: str = "UTC"
    burst: int = 0
    warn: float = 0.8
    unpriced: str = "allow"


@dataclass(slots=True, frozen=True)
class Raise:
    """More room for a while: `amount` (in the rule's unit) on top of a rule's, until `until` (epoch seconds).

    `value` is a glob over scope values; "*" raises every bucket of the rule.
    """

    id: str
    rule: str
    amount: int
    until: float
    value: str = "*"


def slice_us(seconds: float) -> int:
    """Microseconds of one slice of a rolling window: rounded up, so that all of them cover it."""
    return math.ceil(seconds * 1_000_000 / SLICES)


def lasts(seconds: float) -> float:
    """Seconds for which what is used now counts at most: the window, and the slice that is not over yet."""
    return slice_us(seconds) * (SLICES + 1) / 1_000_000


def scope_value(rule: LimitRule, values: Mapping[str, str]) -> str:
    """A rule's bucket for a call: its scopes' values joined by "/"; "" for `global`.

    `values` has the names of `SCOPES` (a ledger record does: `model` is the name the caller used,
    cut at 128 characters as in the record), so that a window can be recounted from the ledger.
    """
    return "/".join([values[scope] if scope != "global" else "" for scope in rule.scope])


def scope_values(rule: LimitRule, values: Mapping[str, str], tags: Iterable[str]) -> list[str]:
    """All buckets of a rule for a call: one for each of its tags where the rule counts by tag, else one.

    Empty where the call has no value for one of the scopes: the rule does not apply to it.
    """
    if any([scope not in ("global", "tag") and not values.get(scope) for scope in rule.scope]):
        return []
    if "tag" not in rule.scope:
        return [scope_value(rule, values)]
    return [scope_value(rule, {**values, "tag": tag}) for tag in dict.fromkeys(tags) if tag]


def matches(rule: LimitRule, value: str, name: str) -> bool:
    """Whether a rule is about a bucket. In `name` the key's name stands for its id: either may match."""
    return rule.match == "*" or fnmatchcase(name, rule.match) or fnmatchcase(value, rule.match)


def counted(
    rule: LimitRule, values: Mapping[str, str], names: Mapping[str, str], tags: Iterable[str]
) -> list[str]:
    """The buckets of a rule that count a call.

    `values` are what calls are counted by, as in `scope_value`; in `names` the key's name stands for its id.
    """
    found = scope_values(rule, values, tags)
    if rule.match == "*":
        return found
    named = scope_values(rule, names, tags)
    return [value for value, name in zip(found, named, strict=True) if matches(rule, value, name)]


class Bucket(Protocol):
    """One rule for one scope value, as `Leases.bucket` gives it. Callers keep it, and look at no more.

    `left` is what nobody had leased when the authority last said so, `free` what is leased here and not
    held: together what remains, as far as is known here (it may be below 0 or above the rule's amount).
    """

    rule: LimitRule
    value: str
    left: int
    free: int


Charges = Iterable[tuple[Bucket, int]]  # what a call takes of each of its buckets; may be gone through again


@dataclass(slots=True, frozen=True)
class Denial:
    """Why a hold was refused: the first bucket that had no room.

    `retry_after` is in seconds, of all full buckets the longest. An amount above `rule.amount`
    never fits, however long the caller waits. `raised` is what raises add to it.
    """

    rule: LimitRule
    value: str
    remaining: int
    retry_after: float
    raised: int = 0


class Standing(NamedTuple):
    """How a bucket stands, for `x-ratelimit-*`: limit, what is left, seconds until it is whole."""

    limit: int
    remaining: int
    reset: float


@dataclass(slots=True, frozen=True)
class Spent:
    """What the ledger knows was charged to one bucket around `ts_ms` (epoch), never dated too early."""

    value: str
    ts_ms: int
    requests: int
    tokens: int
    micros: int
    input: int = 0  # tokens by side: together `tokens`
    output: int = 0
    name: str = ""  # the value with the key's name for its id, where it is known
