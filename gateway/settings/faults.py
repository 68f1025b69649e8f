"""What is wrong with a configuration: every fault at once, each with its place."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

Path = tuple[str | int, ...]

_BARE = re.compile(r"[A-Za-z0-9_-]+")


def show_path(path: Path) -> str:
    """A key path as it would be written in TOML: `models."gpt-*".targets[0]`."""
    shown = ""
    for part in path:
        if isinstance(part, int):
            shown += f"[{part}]"
        else:
            shown += ("." if shown else "") + (part if _BARE.fullmatch(part) else quote(part))
    return shown


def quote(text: str, limit: int = 80) -> str:
    """A text in double quotes, on one line, printable and bounded."""
    text = text if len(text) <= limit else text[: limit - 1] + "…"
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return f'"{shown}"'


def guess(word: str, known: Iterable[str]) -> str:
    """The known word that was probably meant, or "" when none is close."""
    import difflib  # slow to import and needed on the error path only

    folded = {name.lower(): name for name in known}
    close = difflib.get_close_matches(word.lower()[:80], folded, n=1, cutoff=0.6)
    return folded[close[0]] if close else ""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`; did you mean "…"?`, or "" when nothing is close."""
    near = guess(word, known)
    return f"; did you mean {quote(near)}?" if near else ""


class Place(NamedTuple):
    """A line and a column in characters, both from 1."""

    line: int
    column: int


@dataclass(slots=True, frozen=True)
class Fault:
    """One fault. Line and column count from 1; 0 where the place is not in a file."""

    file: str
    line: int
    column: int
    path: str
    message: str

    @property
    def place(self) -> str:
        """`file:line:column`."""
        return f"{self.file}:{self.line}:{self.column}" if self.line else self.file


class ConfigError(Exception):
    """A configuration that is refused; carries every fault that was found."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        super().__init__(faults)
        self.faults = list(faults)

    def __str__(self) -> str:
        return self.report()

    def report(self, consequence: str = "") -> str:
        """All faults as aligned lines `file:line:col  path  message`, then how many there are.

        `consequence` follows the count: "the running configuration is unchanged".
        """
        places = max((len(fault.place) for fault in self.faults), default=0)
        paths = max((len(fault.path) for fault in self.faults if len(fault.path) <= 48), default=0)
        lines = [f"{f.place:<{places}}  {f.path or '-':<{paths}}  {f.message}" for f in self.faults]
        count = f"{len(self.faults)} fault{'' if len(self.faults) == 1 else 's'}"
        lines.append(f"{count}; {consequence}." if consequence else count)
        return "\n".join(lines)
