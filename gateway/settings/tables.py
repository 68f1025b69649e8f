"""Tables and arrays: one declaration per section, from which it is read, described and documented."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from gateway.settings.faults import did_you_mean, guess, quote
from gateway.settings.kinds import INVALID, Kind, Reading, named_type
from gateway.settings.tree import Node

Finish = Callable[[dict[str, Any], Node, Reading], Any]


@dataclass(frozen=True)
class Field:
    """One key of a table. `fill`: an absent table is read as an empty one."""

    kind: Kind
    doc: str
    required: bool = False
    fill: bool = False


class Later(Kind):
    """A key that a later version brings: never accepted silently."""

    def read(self, node: Node, reading: Reading) -> Any:
        """Always a fault."""
        reading.fault(node, "this version does not have it yet", at_key=True)
        return INVALID


@dataclass
class Table(Kind):
    """A table with known keys.

    `make` is the dataclass whose attributes the keys are: it gives the defaults. `finish` replaces
    its plain call where a section needs more than its fields alone; it gets the values that were
    good and must not count on required ones. `rest` lets unknown keys pass.
    """

    name: str
    make: Callable[..., Any]
    fields: Mapping[str, Field]
    finish: Finish | None = None
    rest: bool = False
    rules: Mapping[str, Any] = field(default_factory=dict)  # added to the JSON Schema

    def read(self, node: Node, reading: Reading) -> Any:
        if not isinstance(node.value, dict):
            reading.fault(node, f"must be a table, not {named_type(node.value)}")
            return INVALID
        values = {}
        for key, item in node.value.items():
            if key in self.fields:
                values[key] = self.fields[key].kind.read(item, reading)
            elif not self.rest:
                reading.fault(item, self._unknown(key), at_key=True)
        meant = {guess(key, self.fields) for key in node.value if key not in self.fields}
        complete = self._complete(values, meant, node, reading)
        good = {key: value for key, value in values.items() if value is not INVALID}
        if self.finish:  # even where something is missing: it may find more faults
            made = self.finish(good, node, reading)
            return made if complete else INVALID
        return self.make(**good) if complete else INVALID

    def _complete(self, values: dict[str, Any], meant: set[str], node: Node, reading: Reading) -> bool:
        """Add the absent tables that are to be filled; whether all required keys are there and good.

        A missing key that was only misspelt (`meant`) is one fault, not two.
        """
        complete = True
        for key, entry in self.fields.items():
            if entry.required and key not in values and key not in meant:
                reading.fault(node, f"is missing: {entry.doc}", key)
            if entry.required and values.get(key, INVALID) is INVALID:
                complete = False
            if entry.fill and key not in values:
                values[key] = entry.kind.read(Node({}, node.source, (*node.path, key)), reading)
        return complete

    def _unknown(self, key: str) -> str:
        known = [name for name, entry in self.fields.items() if not isinstance(entry.kind, Later)]
        near = did_you_mean(key, known)
        return f"unknown key{near}  ({self.name} knows: {', '.join(known)})"

    def schema(self) -> dict[str, Any]:
        defaults = self.defaults()
        properties = {}
        for key, entry in self.fields.items():
            if isinstance(entry.kind, Later):
                continue
            properties[key] = {"description": entry.doc, **entry.kind.schema()}
            if defaults.get(key) is not None and not entry.required:
                properties[key]["default"] = defaults[key]
        shape: dict[str, Any] = {"type": "object", "properties": properties}
        shape["additionalProperties"] = self.rest
        required = [key for key, entry in self.fields.items() if entry.required]
        return shape | ({"required": required} if required else {}) | dict(self.rules)

    def defaults(self) -> dict[str, Any]:
        """The defaults of plain keys as they would be written; None where there is none."""
        if not dataclasses.is_dataclass(self.make):
            return {}
        found = {}
        for known in dataclasses.fields(self.make):
            value = known.default
            if known.name in self.fields and isinstance(value, (str, bool, int, float)) and value != "":
                found[known.name] = self.fields[known.name].kind.show(value)
        return found


@dataclass
class Named(Kind):
    """Tables under names of the user's choice: `[backends.NAME]`. Gives name → what the table gives."""

    each: Kind
    name: Kind
    doc: str = ""

    def read(self, node: Node, reading: Reading) -> Any:
        if not isinstance(node.value, dict):
            reading.fault(node, f"must hold tables by name, not be {named_type(node.value)}")
            return INVALID
        found = {}
        for name, item in node.value.items():
            if self.name.read(Node(name, item.source, item.path), reading) is INVALID:
                continue
            value = self.each.read(item, reading)
            if value is not INVALID:
                found[name] = value
        return found

    def schema(self) -> dict[str, Any]:
        names = {key: value for key, value in self.name.schema().items() if key != "type"}
        return {"type": "object", "additionalProperties": self.each.schema(), "propertyNames": names}


@dataclass
class Many(Kind):
    """An array; gives a tuple. `single` lets one value stand alone, without brackets."""

    each: Kind
    least: int = 0
    single: bool = False
    most: int = 10_000

    def read(self, node: Node, reading: Reading) -> Any:
        if not isinstance(node.value, list):
            if self.single:
                value = self.each.read(node, reading)
                return INVALID if value is INVALID else (value,)
            form = f" of tables, [[{node.path[-1]}]]" if isinstance(self.each, Table) else ""
            reading.fault(node, f"must be an array{form}, not {named_type(node.value)}")
            return INVALID
        if not self.least <= len(node.value) <= self.most:
            few = len(node.value) < self.least
            told = f"must hold {'at least' if few else 'at most'} {self.least if few else self.most}"
            reading.fault(node, f"{told} {'entry' if few and self.least == 1 else 'entries'}")
            return INVALID
        values = [self.each.read(item, reading) for item in node.value]
        return tuple(value for value in values if value is not INVALID)

    def schema(self) -> dict[str, Any]:
        array: dict[str, Any] = {"type": "array", "items": self.each.schema(), "maxItems": self.most}
        if self.least:
            array["minItems"] = self.least
        return {"anyOf": [self.each.schema(), array]} if self.single else array


def repeated(values: list[tuple[Any, Node]], what: str, reading: Reading) -> None:
    """A fault for each value that an earlier one has too, naming where that stands."""
    first: dict[Any, Node] = {}
    for value, item in values:
        if value in first:
            reading.fault(
                item,
                f"{what} {quote(str(value))}; the first is {first[value].where(item)}",
            )
        first.setdefault(value, item)
