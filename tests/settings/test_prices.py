from __future__ import annotations

import tomllib

from gateway.core.cost import PriceList
from gateway.core.usage import Usage
from gateway.settings.kinds import Reading
from gateway.settings.naming import PRICES
from gateway.settings.prices import FILE, bundled
from gateway.settings.tree import parse


def cost(model: str, usage: Usage) -> int:
    """Micro-dollars of a usage at the bundled price."""
    price = PriceList(bundled()).find(model)
    assert price is not None
    return price.micros(usage)


def test_the_bundled_file_is_a_valid_prices_section() -> None:
    reading = Reading({})
    PRICES.read(parse(FILE, "prices.toml"), reading)
    assert reading.faults == [] and len(bundled()) > 100


def test_a_million_tokens_cost_the_listed_price() -> None:
    assert cost("gpt-4o-mini", Usage(input=1_000_000)) == 150_000
    assert cost("gpt-4o-mini", Usage(cached_input=1_000_000)) == 75_000
    assert cost("gpt-4o-mini", Usage(output=1_000_000)) == 600_000
    assert cost("claude-sonnet-4-5-20250929", Usage(cache_write=1_000_000)) == 3_750_000
    assert cost("gemini-2.5-flash", Usage(audio_input=1_000_000)) == 1_000_000
    assert cost("o3", Usage(reasoning=1_000_000)) == 8_000_000


def test_dated_versions_are_priced_as_themselves_and_unknown_models_are_not() -> None:
    prices = PriceList(bundled())
    assert prices.find("gpt-4o-2024-08-06") == prices.find("gpt-4o")
    assert prices.find("gpt-4o-2024-05-13") != prices.find("gpt-4o")
    assert prices.find("gpt-4o-mini-2024-07-18") == prices.find("gpt-4o-mini")
    for unknown in ("gpt-4o-realtime-preview", "gpt-6", "claude-opus-5", "my-own"):
        assert prices.find(unknown) is None


def test_cached_input_is_never_dearer_than_input() -> None:
    for name, usd in tomllib.loads(FILE.read_text()).items():
        assert usd.get("cached_input", 0) <= usd["input"] <= usd.get("cache_write", usd["input"]), name
