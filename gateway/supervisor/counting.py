"""Tokens counted offline, for calls whose provider stated none; off the workers' request path."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gateway.core.cost import PriceList
from gateway.core.usage import ESTIMATED, KINDS, Usage
from gateway.settings.schema import Settings

Record = dict[str, Any]


class Counting:
    """Completes records by the prices of one revision."""

    def __init__(self, settings: Settings) -> None:
        self._prices = PriceList(settings.prices)
        self._free = {name for name, backend in settings.backends.items() if backend.kind == "echo"}
        self._count: Callable[[str, str], int] | None = None

    def complete(self, record: Record) -> bool:
        """Count `prompt` and `text` of an estimated record and take them out; whether it was changed."""
        text, prompt = record.pop("text", None), record.pop("prompt", None)
        if text is None and prompt is None:
            return False
        if record.get("usage_source") == ESTIMATED:
            model = record.get("target") or record.get("model", "")
            if prompt:
                record["input"] = self._tokens(model, prompt)
            record["output"] = self._tokens(model, text) if text else 0
            record["cost_micros"] = self._cost(record)
        return True

    def _tokens(self, model: str, text: str) -> int:
        if self._count is None:
            from gateway.core.tokens import count  # megabytes of ranks, and most gateways never need them

            self._count = count
        return self._count(model, text)

    def _cost(self, record: Record) -> int:
        if record.get("backend") in self._free:
            return 0
        price = self._prices.find(record.get("target", "")) or self._prices.find(record.get("alias", ""))
        usage = Usage(*(record.get(kind, 0) for kind in KINDS))
        return price.micros(usage) if price and usage.total else 0
