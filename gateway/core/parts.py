"""The tools stages get: built once per revision by a composition root."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from gateway.core.cost import PriceList
from gateway.core.limit import LimitRule
from gateway.core.policy import OPEN, Access, Policy
from gateway.core.ports import Backend, Journal, KeyDirectory, Leases
from gateway.core.route import ModelRule
from gateway.core.token import Jwt, KeySet


@dataclass(slots=True)
class Parts:
    """What a stage may use besides the call. Read-only for stages."""

    revision: str
    worker: int
    keys: KeyDirectory
    leases: Leases
    journal: Journal
    backends: Mapping[str, Backend]
    models: tuple[ModelRule, ...]
    limits: tuple[LimitRule, ...]
    prices: PriceList
    auth_mode: str = "keys"  # or "open"
    access: Access = OPEN
    policies: tuple[Policy, ...] = ()
    jwt: Jwt | None = None
    key_set: KeySet = field(default_factory=KeySet)  # for `jwt`
    seal: Callable[[Mapping[str, Any]], str] | None = None  # for texts on their way through the journal
    counts: dict[tuple[str, ...], float] = field(default_factory=dict)  # metric deltas, see observe/metrics
