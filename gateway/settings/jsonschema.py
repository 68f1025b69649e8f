"""The JSON Schema of gateway.toml, from the tables that read it: editors complete and check with it."""

from __future__ import annotations

from typing import Any

from gateway.settings.root import ROOT


def schema() -> dict[str, Any]:
    """JSON Schema 2020-12 of the file."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Penstock: gateway.toml",
        **ROOT.schema(),
    }
