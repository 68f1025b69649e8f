"""Tokens counted offline, for calls whose provider stated none; off the workers' request path."""

from __future__ import annotations

from typing import Any

from gateway.core.cost import PriceList
from gateway.core.tokens import MAX_TEXT, count, exact
from gateway.core.usage import COUNTED, ESTIMATED, KINDS, Usage
from gateway.settings.schema import Settings

Record = dict[str, Any]


class Counting:
    """Completes records by the prices of one revision."""

    def __init__(self, settings: Settings) -> None:
        self._prices = PriceList(settings.prices)
        self._free = {name for name, backend in settings.backends.items() if backend.kind == "echo"}

    def complete(self, record: Record) -> bool:
        """Count `prompt` and `text` of an estimated record and take them out; whether it was changed.

        What was counted whole (the worker says so), with the model's own encoding, is no estimate any more.
        Of what was generated, `size` bytes in all may have passed the worker: what it did not see is taken to
        be like what it saw; where it saw nothing, its own estimate stands.
        """
        text, prompt, whole, size = (record.pop(name, None) for name in ("text", "prompt", "whole", "size"))
        if text is None and prompt is None:
            return False
        if record.get("usage_source") == ESTIMATED:
            model = record.get("target") or record.get("model", "")
            if prompt:
                record["input"] = count(model, prompt)
            if text:
                record["output"] = _scaled(count(model, text), text, size or 0)
            record["cost_micros"] = self._cost(record)
            if whole is True and prompt and exact(model) and len(prompt) + len(text or "") < MAX_TEXT:
                record["usage_source"] = COUNTED
        return True

    def _cost(self, record: Record) -> int:
        if record.get("backend") in self._free:
            return 0
        price = self._prices.find(record.get("target", "")) or self._prices.find(record.get("alias", ""))
        usage = Usage(*(record.get(kind, 0) for kind in KINDS))
        return price.micros(usage) if price else 0


def _scaled(tokens: int, text: str, size: int) -> int:
    """The tokens of so many bytes, of which those of `text` were counted."""
    seen = len(text.encode("utf-8", "replace"))
    return tokens * size // seen if size > seen else tokens
