"""Tells operators how limits and the shared store stand: metrics, and notices where something happened."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from gateway.core.limit import MICROS, LimitRule
from gateway.core.notice import Notice
from gateway.observe.metrics import Metrics
from gateway.settings.schema import Settings
from gateway.settings.shared import store_url


class LimitWatch:
    """Implements `supervisor.limits.Watch` and what `Sharing` tells."""

    def __init__(self, metrics: Metrics, tell: Callable[[Notice], None], settings: Settings) -> None:
        self._metrics = metrics
        self._tell = tell
        shared = settings.state.shared
        self._where = store_url(shared.reveal()).shown if shared else ""  # without credentials
        self._lost = False

    def noticed(self, kind: str, rule: LimitRule, value: str, used: int, amount: int) -> None:
        """A limit is nearly used up, or lacks room for a call. Told in the rule's unit: money in dollars."""
        self._metrics.count("limit_events", rule.id, kind.removeprefix("limit."))
        detail = {"limit": rule.id, "scope": list(rule.scope), "value": value, "unit": rule.unit}
        figures = {"used": used, "amount": amount}
        told = {name: each / MICROS for name, each in figures.items()} if rule.unit == "usd" else figures
        self._happened(kind, f"limit {rule.id}|{value}", **detail, **told)

    def unchecked(self, rule: str, calls: int) -> None:
        """So many calls passed uncounted, as the store was lost."""
        self._metrics.add("limits", rule, "unchecked", delta=calls)

    def shared(self, there: bool, replicas: int, trips: int, why: str) -> None:
        """How the shared store stands."""
        self._metrics.shared(there, replicas, trips)
        if self._lost == there:
            self._lost = not there
            if there:
                self._happened("store.back", self._where, replicas=replicas)
            else:
                self._happened("store.lost", self._where, why=why, replicas=replicas)

    def _happened(self, kind: str, subject: str, **detail: Any) -> None:
        self._tell(Notice(kind, subject, detail, time.time_ns() // 1_000_000))
