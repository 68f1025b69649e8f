"""Where each key of a TOML text stands. `tomllib` tells positions of syntax errors only.

One pass over the text, on the error path alone. It knows just enough TOML to walk keys, headers,
strings, arrays and inline tables; what it does not understand it steps over, so it never raises.
On text that `tomllib` accepts it finds every key (tested against it).
"""

from __future__ import annotations

import re
import tomllib
from bisect import bisect_right
from typing import NamedTuple

from gateway.settings.faults import Path, Place

_BLANK = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_SPACE = re.compile(r"[ \t]*")
_BARE = re.compile(r"[^\s.=\[\]{},#\"']+")
_SCALAR = re.compile(r"[^,\]}\n#]*")
_STRINGS = tuple(
    re.compile(pattern, re.DOTALL)
    for pattern in (
        r'"""(?:[^"\\]|\\.|"(?!""))*"{3,5}',
        r"'''(?:[^']|'(?!''))*'{3,5}",
        r'"(?:[^"\\\n]|\\[^\n])*"',
        r"'[^'\n]*'",
    )
)


class Twice(NamedTuple):
    """A key that is set a second time."""

    path: Path
    first: Place
    second: Place


class Places:
    """The places of all keys and values of one text."""

    def __init__(self, text: str) -> None:
        self._text = text.replace("\r\n", "\n")  # as tomllib counts
        self._breaks = [at for at, char in enumerate(self._text) if char == "\n"]
        scanner = _Scanner(self._text)
        try:
            scanner.scan()
        except RecursionError:
            pass  # absurdly nested: what was found so far has to do
        self._keys, self._values = scanner.keys, scanner.values
        self.twice = [Twice(path, self.place(a), self.place(b)) for path, a, b in scanner.twice]

    def place(self, offset: int) -> Place:
        """Line and column of a character offset."""
        line = bisect_right(self._breaks, offset - 1) if offset else 0
        start = self._breaks[line - 1] + 1 if line else 0
        return Place(line + 1, offset - start + 1)

    def key(self, path: Path) -> Place | None:
        """Where a key (or an array's element) starts; None where it is not in the text."""
        at = self._keys.get(path)
        return None if at is None else self.place(at)

    def value(self, path: Path) -> Place | None:
        """Where a key's value starts; for a table with a header, the key in the header."""
        at = self._values.get(path, self._keys.get(path))
        return None if at is None else self.place(at)


class _Scanner:
    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.keys: dict[Path, int] = {}
        self.values: dict[Path, int] = {}
        self.twice: list[tuple[Path, int, int]] = []
        self._set: set[Path] = set()
        self._elements: dict[Path, int] = {}  # arrays of tables: how many elements so far

    def scan(self) -> None:
        base: Path = ()
        while True:
            self._skip(_BLANK)
            if self.at >= len(self.text):
                return
            if self.text.startswith("[", self.at):
                base = self._header()
            else:
                self._pair(base)
            end = self.text.find("\n", self.at)
            self.at = len(self.text) if end < 0 else end

    def _skip(self, pattern: re.Pattern[str]) -> str:
        match = pattern.match(self.text, self.at)
        if match is None:
            return ""
        self.at = match.end()
        return match.group()

    def _header(self) -> Path:
        array = self.text.startswith("[[", self.at)
        self.at += 2 if array else 1
        parts = self._key()
        if not parts:
            return ("",)  # no such key: what follows is noted where nobody looks
        path = self._under((), parts[:-1])
        name, start = parts[-1]
        path = (*path, name)
        if array:
            self.keys.setdefault(path, start)
            index = self._elements.get(path, 0)
            self._elements[path] = index + 1
            path = (*path, index)
        self._note(path, start)
        return path

    def _under(self, base: Path, parts: list[tuple[str, int]]) -> Path:
        """The path of the table that dotted parts lead to; tables on the way spring into being."""
        path = base
        for name, start in parts:
            path = (*path, name)
            self.keys.setdefault(path, start)
            if path in self._elements:
                path = (*path, self._elements[path] - 1)
        return path

    def _note(self, path: Path, start: int) -> None:
        if path in self._set:
            self.twice.append((path, self.keys[path], start))
            return
        self._set.add(path)
        self.keys[path] = start

    def _pair(self, base: Path) -> bool:
        parts = self._key()
        if not parts or not self.text.startswith("=", self.at):
            return False
        self.at += 1
        path = (*self._under(base, parts[:-1]), parts[-1][0])
        self._note(path, parts[-1][1])
        self._value(path)
        return True

    def _key(self) -> list[tuple[str, int]]:
        """A dotted key: its parts with their offsets. Stands after it and the blanks behind."""
        parts: list[tuple[str, int]] = []
        while True:
            self._skip(_SPACE)
            start = self.at
            name = self._name()
            if name is None:
                return []
            parts.append((name, start))
            self._skip(_SPACE)
            if not self.text.startswith(".", self.at):
                return parts
            self.at += 1

    def _name(self) -> str | None:
        for pattern in _STRINGS[2:]:
            raw = self._skip(pattern)
            if raw:
                return _unquoted(raw)
        return self._skip(_BARE) or None

    def _value(self, path: Path) -> None:
        self._skip(_SPACE)
        self.values.setdefault(path, self.at)
        mark = self.text[self.at : self.at + 1]
        if mark == "[":
            self._array(path)
        elif mark == "{":
            self._table(path)
        elif not any(self._skip(pattern) for pattern in _STRINGS):
            self._skip(_SCALAR)

    def _array(self, path: Path) -> None:
        self.at += 1
        for index in range(len(self.text)):
            self._skip(_BLANK)
            if self.text[self.at : self.at + 1] in ("]", ""):
                break
            self.keys.setdefault((*path, index), self.at)
            self._value((*path, index))
            self._skip(_BLANK)
            if not self.text.startswith(",", self.at):
                break
            self.at += 1
        if self.text.startswith("]", self.at):
            self.at += 1

    def _table(self, path: Path) -> None:
        self.at += 1
        self._skip(_BLANK)
        while self._pair(path):
            self._skip(_BLANK)
            if not self.text.startswith(",", self.at):
                break
            self.at += 1
            self._skip(_BLANK)
        if self.text.startswith("}", self.at):
            self.at += 1


def _unquoted(raw: str) -> str:
    if "\\" not in raw:
        return raw[1:-1]
    try:
        return str(tomllib.loads(f"key = {raw}")["key"])
    except tomllib.TOMLDecodeError:
        return raw[1:-1]
