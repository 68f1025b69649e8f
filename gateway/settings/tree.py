"""The files of a configuration as one tree in which every value knows where it stands."""

from __future__ import annotations

import codecs
import re
import tomllib
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path as FilePath
from typing import TYPE_CHECKING, Any

from gateway.settings.faults import ConfigError, Fault, Path, Place, show_path

if TYPE_CHECKING:
    from gateway.settings.locate import Places

LARGEST = 4 << 20  # bytes of one file

_POSITION = re.compile(r" \(at (?:line (\d+), column (\d+)|end of document)\)$")


@dataclass(eq=False)
class Source:
    """One file (or the environment): its text, and how it is called in messages."""

    shown: str
    directory: FilePath
    text: str = ""
    in_file: bool = True

    @cached_property
    def places(self) -> Places:
        """Scanned on first use: only faults and warnings need it."""
        from gateway.settings.locate import Places

        return Places(self.text)


@dataclass(slots=True, eq=False)
class Node:
    """A table (dict of nodes), an array (list of nodes) or a plain value, with its place."""

    value: Any
    source: Source
    path: Path = field(default=())

    def key_place(self) -> Place:
        """Where its key stands."""
        return self.source.places.key(self.path) or Place(1, 1)

    def value_place(self) -> Place:
        """Where its value stands."""
        return self.source.places.value(self.path) or Place(1, 1)

    def child(self, name: str) -> Node | None:
        """A table's entry, or None."""
        found = self.value.get(name) if isinstance(self.value, dict) else None
        return found if isinstance(found, Node) else None

    def fault(self, message: str, name: str | None = None, at_key: bool = False) -> Fault:
        """A fault of this value, or of its missing entry `name`."""
        path = self.path if name is None else (*self.path, name)
        if not self.source.in_file:
            return Fault(self.source.shown, 0, 0, show_path(path), message)
        place = self.key_place() if at_key or name is not None else self.value_place()
        return Fault(self.source.shown, place.line, place.column, show_path(path), message)

    def where(self, beside: Node) -> str:
        """Its place in words: `at line 3`, or `at other.toml:3` seen from another file."""
        if not self.source.in_file:
            return f"in the {self.source.shown}"
        line = self.key_place().line
        return f"at line {line}" if self.source is beside.source else f"at {self.source.shown}:{line}"


def grow(value: Any, source: Source, path: Path = ()) -> Node:
    """The tree over a value of tomllib's."""
    if isinstance(value, dict):
        value = {key: grow(item, source, (*path, key)) for key, item in value.items()}
    elif isinstance(value, list):
        value = [grow(item, source, (*path, index)) for index, item in enumerate(value)]
    return Node(value, source, path)


def parse(file: FilePath, shown: str, draft: bytes | None = None) -> Node:
    """Read one TOML file, or a draft as if it stood there.

    Raises `ConfigError` with the one fault that keeps it from being read.
    """
    source = Source(shown, file.parent.absolute())
    try:
        data = _content(file) if draft is None else draft
    except OSError as error:
        raise _refused(source, Place(1, 1), f"can't be read: {_reason(error)}") from None
    if len(data) > LARGEST:
        raise _refused(source, Place(1, 1), f"is larger than {LARGEST >> 20} MiB")
    data = data.removeprefix(codecs.BOM_UTF8)  # some editors begin every file with it
    try:
        source.text = data.decode()
    except UnicodeDecodeError as error:
        before = data[: error.start].decode()
        source.text = before
        raise _refused(source, source.places.place(len(before)), "is not UTF-8 text here") from None
    try:
        return grow(tomllib.loads(source.text), source)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError([_syntax(source, str(error))]) from None
    except RecursionError:
        raise _refused(source, Place(1, 1), "is nested too deep") from None
    except ValueError:  # Python's bound on the digits of an integer
        raise _refused(source, Place(1, 1), "holds an integer with thousands of digits") from None


def _content(file: FilePath) -> bytes:
    with file.open("rb") as stream:
        return stream.read(LARGEST + 1)


def _refused(source: Source, place: Place, message: str) -> ConfigError:
    return ConfigError([Fault(source.shown, place.line, place.column, "", message)])


def _reason(error: OSError) -> str:
    return (error.strerror or "unknown error").lower()


def _syntax(source: Source, message: str) -> Fault:
    if source.places.twice and ("overwrite" in message or "twice" in message or "mutate" in message):
        twice = source.places.twice[0]
        at = twice.second
        told = f"set twice; the first is at line {twice.first.line}"
        return Fault(source.shown, at.line, at.column, show_path(twice.path), told)
    match = _POSITION.search(message)
    if match and match[1]:
        place = Place(int(match[1]), int(match[2]))
    else:
        place = source.places.place(len(source.text.replace("\r\n", "\n")))
    words = message[: match.start()] if match else message
    return Fault(source.shown, place.line, place.column, "", f"not TOML: {words[:1].lower()}{words[1:]}")
