"""`[[plugins]]`: stages from elsewhere, each with its options."""

from __future__ import annotations

import re
from typing import Any

from gateway.settings.kinds import INVALID, Reading, Text, Wrong
from gateway.settings.sealed import SOURCES, Sealed
from gateway.settings.tables import Field, Table
from gateway.settings.tree import Node

_CLASS = Text(
    pattern=r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*",
    meaning='"module:Class", such as "plugins.example:Example"',
)


_CREDENTIAL = re.compile(
    r"(?i)(^|[_-])(auth|authorization|bearer|(api_?)?key|token|secret|cookie|passw(or)?d|signature)$"
)
_SHORTEST = 8  # characters of what is taken for a credential by the name of its option


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
    if isinstance(value, str) and _secret(str(node.path[-1]), value):
        reading.literals.append(value)  # a text still, as the plugin expects, and not shown with the file
        reading.warn(node, 'a literal secret; keep it in "env:NAME" or "file:PATH"')
    return value


def _secret(name: str, text: str) -> bool:
    """Whether an option holds a credential, by its name, or as a URL that has one or a query."""
    if "://" in text:
        return "@" in text or "?" in text
    return len(text) >= _SHORTEST and _CREDENTIAL.search(name) is not None


def _plugin(values: dict[str, Any], node: Node, reading: Reading) -> tuple[str, dict[str, Any]]:
    use, where = values.get("use", ""), node.child("use")
    if use and use is not INVALID and where is not None and (why := reading.amiss(use)):
        reading.fault(where, why)
    options = {key: _plain(item, reading) for key, item in node.value.items() if key != "use"}
    return use, options


PLUGIN = Table(
    "plugins",
    tuple,
    {"use": Field(_CLASS, 'the stage: "module:Class"; all other keys are its options', required=True)},
    finish=_plugin,
    rest=True,
)
