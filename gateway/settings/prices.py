"""The bundled prices, `config/prices.toml`: found beside the package, in a checkout and installed alike."""

from __future__ import annotations

import tomllib
from functools import cache
from pathlib import Path
from types import MappingProxyType

from gateway.core.cost import Price

FILE = Path(__file__).parents[2] / "config" / "prices.toml"


@cache
def bundled() -> MappingProxyType[str, Price]:
    """Prices by model name or glob, read once."""
    with FILE.open("rb") as stream:
        table = tomllib.load(stream)
    return MappingProxyType({name: Price.of(usd) for name, usd in table.items()})
