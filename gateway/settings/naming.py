"""`[models.NAME]`: which targets answer for a name; `[prices.NAME]`: what its tokens cost."""

from __future__ import annotations

from typing import Any

from gateway.core.cost import Price
from gateway.core.route import ModelRule, Target
from gateway.core.usage import KINDS
from gateway.settings.kinds import INVALID, Number, Reading, Text
from gateway.settings.tables import Field, Many, Named, Table
from gateway.settings.tree import Node

MODEL_NAME = Text(meaning="a model's name or a glob", most=256)
_MODEL = Text(meaning="a model's name", most=256)
_BACKEND = Text(meaning="a backend's name", most=64)

TARGET = Table(
    "targets",
    Target,
    {
        "backend": Field(_BACKEND, "a name from [backends]", required=True),
        "model": Field(_MODEL, "what it is called there; absent: the name the caller used"),
        "weight": Field(Number(above=True, most=1e6), "its share beside the other targets"),
    },
)

FALLBACK = Table("fallback", Target, {key: TARGET.fields[key] for key in ("backend", "model")})


def _rule(values: dict[str, Any], node: Node, reading: Reading) -> Any:
    if not values.get("targets"):
        return INVALID
    return ModelRule(str(node.path[-1]), **values)


MODEL = Table(
    "model",
    ModelRule,
    {
        "targets": Field(Many(TARGET, least=1, most=100), "who answers, by weight", required=True),
        "fallback": Field(Many(FALLBACK, most=100), "tried in order when no target can answer"),
        "max_output": Field(
            Number(least=1, most=1e9, whole=True),
            "tokens one answer can have at most; limits reserve no more",
        ),
    },
    finish=_rule,
)

MODELS = Named(MODEL, MODEL_NAME)

_USD = Number(most=1e6)
_WORDS = {
    "input": "prompt tokens",
    "cached_input": "prompt tokens read from the provider's cache; absent: as input",
    "cache_write": "prompt tokens written to the provider's cache; absent: as input",
    "audio_input": "audio tokens of the prompt; absent: as input",
    "output": "generated tokens",
    "reasoning": "tokens thought but not shown; absent: as output",
    "audio_output": "audio tokens generated; absent: as output",
}


def _price(values: dict[str, float], node: Node, reading: Reading) -> Any:
    if not node.value:
        reading.fault(node, f"states no price: give some of {', '.join(_WORDS)}, request", at_key=True)
        return INVALID
    return Price.of(values)


PRICE = Table(
    "price",
    Price.of,
    {kind: Field(_USD, f"USD per million {_WORDS[kind]}") for kind in KINDS}
    | {"request": Field(_USD, "USD per call")},
    finish=_price,
)

PRICES = Named(PRICE, MODEL_NAME)
