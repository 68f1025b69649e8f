"""What a value may be: one class per kind of value, each reads it and describes it as JSON Schema."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, time
from pathlib import Path as FilePath
from typing import Any

from gateway.settings.exec import Command, Execs
from gateway.settings.faults import Fault, did_you_mean, quote
from gateway.settings.tree import Node


class Invalid:
    """Stands for a value that had a fault; the fault has been noted."""


INVALID = Invalid()


class Wrong(Exception):
    """What is wrong with one value, and what would be right."""


@dataclass(eq=False)
class Reading:
    """One reading of a configuration: what it may look at, and what it has found."""

    environ: Mapping[str, str]
    resolve: bool = True  # a secret that can't be had is a fault; else a warning
    amiss: Callable[[str], str] = lambda use: ""  # what is wrong with the class of a plugin
    faults: list[Fault] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    watched: list[str] = field(default_factory=list)
    execs: Execs = field(default_factory=Execs)  # keeps what commands gave
    commands: list[Command] = field(default_factory=list)  # those that this reading needed
    literals: list[str] = field(default_factory=list)  # texts of the files that are secrets themselves
    named: list[str] = field(default_factory=list)  # environment variables that hold secrets

    def fault(self, node: Node, message: str, name: str | None = None, at_key: bool = False) -> None:
        """Note a fault of a value, or of its missing entry `name`."""
        self.faults.append(node.fault(message, name, at_key))

    def warn(self, node: Node, message: str) -> None:
        """Note what is allowed but probably not wanted."""
        told = node.fault(message)
        self.warnings.append(f"{told.place}  {told.path}  {told.message}")


class Kind:
    """How one kind of value is read. Plain values override `parse`, tables and arrays `read`."""

    def read(self, node: Node, reading: Reading) -> Any:
        """The value as the gateway uses it, or INVALID after noting every fault in it."""
        try:
            return self.parse(node, reading)
        except Wrong as wrong:
            reading.fault(node, str(wrong))
            return INVALID

    def parse(self, node: Node, reading: Reading) -> Any:
        """The value as the gateway uses it. Raises `Wrong`."""
        raise NotImplementedError

    def schema(self) -> dict[str, Any]:
        """JSON Schema (2020-12) of the value."""
        raise NotImplementedError

    def show(self, value: Any) -> Any:
        """A parsed value as it is written in the file (for defaults)."""
        return value


def named_type(value: Any) -> str:
    """What TOML calls the type of a value, with its article."""
    for kind, name in _TYPES:
        if isinstance(value, kind):
            return name
    return "an unknown value"


_TYPES: tuple[tuple[type, str], ...] = (
    (bool, "a boolean"),
    (int, "an integer"),
    (float, "a float"),
    (str, "a string"),
    (dict, "a table"),
    (list, "an array"),
    (datetime, "a date-time"),
    (date, "a date"),
    (time, "a time"),
)


def text_of(node: Node, what: str = "a string") -> str:
    """The node's string. Raises `Wrong`."""
    if not isinstance(node.value, str):
        raise Wrong(f"must be {what}, not {named_type(node.value)}")
    return node.value


@dataclass
class Text(Kind):
    """A string without control characters."""

    choices: tuple[str, ...] = ()
    later: Mapping[str, str] = field(default_factory=dict)  # pattern → what this version does not have yet
    pattern: str = ""
    meaning: str = "a string"
    most: int = 1024

    def parse(self, node: Node, reading: Reading) -> str:
        return self.check(text_of(node, self.meaning))

    def check(self, text: str) -> str:
        """The text, if it is allowed. Raises `Wrong`."""
        for pattern, what in self.later.items():
            if re.fullmatch(pattern, text):
                raise Wrong(f"this version does not have {what} yet; allowed: {', '.join(self.choices)}")
        if self.choices and text not in self.choices:
            near = did_you_mean(text, self.choices)
            raise Wrong(f"{quote(text)} is not allowed{near}  (allowed: {', '.join(self.choices)})")
        if not text or len(text) > self.most or not text.isprintable():
            raise Wrong(f"must be {self.meaning}: not empty, no control characters, at most {self.most} long")
        if self.pattern and not re.fullmatch(self.pattern, text):
            raise Wrong(f"{quote(text)} is not {self.meaning}")
        return text

    def schema(self) -> dict[str, Any]:
        if self.choices:
            return {"enum": list(self.choices)}
        shape: dict[str, Any] = {"type": "string", "minLength": 1, "maxLength": self.most}
        return shape | ({"pattern": f"^(?:{self.pattern})$"} if self.pattern else {})


class Flag(Kind):
    """true or false."""

    def parse(self, node: Node, reading: Reading) -> bool:
        if not isinstance(node.value, bool):
            raise Wrong(f"must be true or false, not {named_type(node.value)}")
        return node.value

    def schema(self) -> dict[str, Any]:
        return {"type": "boolean"}


@dataclass
class Number(Kind):
    """A finite number within bounds; `whole` allows integers only, `above` leaves out the lower bound."""

    least: float = 0
    most: float = 1e15
    whole: bool = False
    above: bool = False

    def parse(self, node: Node, reading: Reading) -> float:
        value = node.value
        good = isinstance(value, int) or (isinstance(value, float) and not self.whole)
        if isinstance(value, bool) or not good:
            raise Wrong(f"must be {'an integer' if self.whole else 'a number'}, not {named_type(value)}")
        if not math.isfinite(value):
            raise Wrong(f"must be a finite number, not {value}")
        if value < self.least or (self.above and value == self.least):
            raise Wrong(f"must be {'more than' if self.above else 'at least'} {_plain(self.least)}")
        if value > self.most:
            raise Wrong(f"must be at most {_plain(self.most)}")
        return int(value) if self.whole else float(value)

    def schema(self) -> dict[str, Any]:
        low = "exclusiveMinimum" if self.above else "minimum"
        return {"type": "integer" if self.whole else "number", low: self.least, "maximum": self.most}


def _plain(number: float) -> str:
    return f"{number:f}".rstrip("0").rstrip(".")


class Moment(Kind):
    """A date (its first moment, UTC) or a date-time (UTC where it names no offset), as epoch seconds."""

    def parse(self, node: Node, reading: Reading) -> float:
        value = node.value
        if isinstance(value, str):
            raise Wrong("must be a date, which TOML writes without quotes: 2027-01-01")
        if isinstance(value, date) and not isinstance(value, datetime):
            value = datetime(value.year, value.month, value.day)
        if not isinstance(value, datetime):
            raise Wrong(f"must be a date such as 2027-01-01, not {named_type(value)}")
        if value.tzinfo is not None:
            return value.timestamp()
        return (value - datetime(1970, 1, 1)).total_seconds()

    def schema(self) -> dict[str, Any]:
        return {"type": "string", "anyOf": [{"format": "date"}, {"format": "date-time"}]}


@dataclass
class PathName(Kind):
    """A file's path, `file:PATH` or plain; relative to the file it is named in. Must be readable."""

    example: str = "file:tls.crt"

    def parse(self, node: Node, reading: Reading) -> str:
        text = text_of(node, f"a file such as {quote(self.example)}")
        name = text.removeprefix("file:")
        if not name or text.startswith("env:") or not text.isprintable():
            raise Wrong(f"must be a file such as {quote(self.example)}")
        file = node.source.directory / name
        reading.watched.append(str(file))
        read_small(file, name)
        return str(file)

    def schema(self) -> dict[str, Any]:
        return {"type": "string", "minLength": 1}


def read_small(file: FilePath, name: str, most: int = 1 << 20) -> bytes:
    """A small file's bytes; `name` is how it was written. Raises `Wrong` where it can't be read."""
    try:
        with file.open("rb") as stream:
            data = stream.read(most + 1)
    except OSError as error:
        raise Wrong(f"file:{name} can't be read: {(error.strerror or 'unknown error').lower()}") from None
    if len(data) > most:
        raise Wrong(f"file:{name} is larger than {most >> 10} KiB")
    return data
