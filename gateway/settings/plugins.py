"""`[[plugins]]`: stages from elsewhere, each with its options."""

from __future__ import annotations

from typing import Any

from gateway.settings.kinds import INVALID, Reading, Text, Wrong
from gateway.settings.sealed import SOURCES, Sealed
from gateway.settings.tables import Field, Table
from gateway.settings.tree import Node

_CLASS = Text(
    pattern=r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*",
    meaning='"module:Class", such as "plugins.example:Example"',
)


def _plain(node: Node, reading: Reading) -> Any:
    """Options as plain values; `env:NAME`, `file:PATH` and `exec:COMMAND` become Secrets."""
    value = node.value
    if isinstance(value, dict):
        return {key: _plain(item, reading) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item, reading) for item in value]
    if isinstance(value, str) and value.startswith(SOURCES):
        try:
            return Sealed().parse(node, reading)
        except Wrong as wrong:
            reading.fault(node, str(wrong))
            return INVALID
    return value


def _plugin(values: dict[str, Any], node: Node, reading: Reading) -> tuple[str, dict[str, Any]]:
    options = {key: _plain(item, reading) for key, item in node.value.items() if key != "use"}
    return values.get("use", ""), options


PLUGIN = Table(
    "plugins",
    tuple,
    {"use": Field(_CLASS, 'the stage: "module:Class"; all other keys are its options', required=True)},
    finish=_plugin,
    rest=True,
)
