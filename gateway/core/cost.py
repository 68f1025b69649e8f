"""Money in integer micro-dollars: prices per kind of token, and the cost of a usage."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Final

from gateway.core.usage import KINDS, Usage

if TYPE_CHECKING:
    from gateway.core.call import Call
    from gateway.core.ports import Backend

# A price of 1 USD per million tokens is 1 micro-dollar per token; prices are kept times this.
SCALE: Final = 1_000_000

# What a kind costs when its own price is not given: the kind whose price it shares.
_SHARES: Final = {
    "cached_input": "input",
    "cache_write": "input",
    "audio_input": "input",
    "reasoning": "output",
    "audio_output": "output",
}


@dataclass(slots=True, frozen=True)
class Price:
    """What one model's tokens cost, by kind in the order of `KINDS`, in 1e-6 micro-dollars a token.

    `request` is a fixed price per call in micro-dollars.
    """

    rates: tuple[int, ...]
    request: int = 0

    def __reduce__(self) -> tuple[type[Price], tuple[tuple[int, ...], int]]:
        return Price, (
            self.rates,
            self.request,
        )  # workers get prices by pickle

    @classmethod
    def of(cls, usd: Mapping[str, float]) -> Price:
        """From USD per million tokens by kind (and `request` in USD per call).

        A kind without a price costs what `input` or `output` does; without those, nothing.
        """
        rates = []
        for kind in KINDS:
            given = usd.get(kind, usd.get(_SHARES.get(kind, kind), 0.0))
            rates.append(round(given * SCALE))
        return cls(tuple(rates), round(usd.get("request", 0.0) * SCALE))

    def micros(self, usage: Usage) -> int:
        """The cost of a usage in micro-dollars, rounded half up once, at the end."""
        input, cached, written, heard, output, thought, spoken = self.rates
        total = usage.input * input + usage.cached_input * cached + usage.cache_write * written
        total += usage.audio_input * heard + usage.output * output
        total += usage.reasoning * thought + usage.audio_output * spoken
        return self.request + (total + SCALE // 2) // SCALE


class PriceList:
    """Prices by model name; exact names first, then the longest glob. Look-ups are remembered, bounded."""

    __slots__ = ("_exact", "_globs", "_seen")

    def __init__(self, prices: Mapping[str, Price]) -> None:
        self._exact = {name: price for name, price in prices.items() if "*" not in name}
        globs = [(name, price) for name, price in prices.items() if "*" in name]
        self._globs = sorted(globs, key=lambda item: -len(item[0]))
        self._seen: dict[str, Price | None] = {}

    def find(self, model: str) -> Price | None:
        """The price of a model, or None where nobody stated one."""
        price = self._exact.get(model)
        if price is not None:
            return price
        if model not in self._seen:
            if len(self._seen) >= 1024:
                self._seen.clear()
            self._seen[model] = next((p for g, p in self._globs if fnmatchcase(model, g)), None)
        return self._seen[model]


def of_call(call: Call, backends: Mapping[str, Backend], prices: PriceList) -> int:
    """What a call cost, in micro-dollars, by the price of the model that answered.

    The echo backend costs nothing. A model without a price costs 0 and the call says so in
    `reasons["price"]`: unknown is not free. An answer without any usage (an image, speech) costs what the
    model's price says of a call; a refusal or a redirect by the provider nothing.
    """
    target, usage = call.target, call.usage
    if target is None or backends[target.backend].kind == "echo":
        return 0
    used = usage.output or usage.total
    if not used and (call.code or call.status >= 300 or not call.model or call.method != "POST"):
        return 0
    price = prices.find(target.model or call.model)
    if price is None and call.alias and call.alias != target.model:
        price = prices.find(call.alias)
    if price is None:
        if used:
            call.reasons["price"] = "unknown"
        return 0
    return price.micros(usage)
