"""Whether any file of a configuration has changed."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable
from pathlib import Path

Mark = tuple[str, int, int, int]


def fingerprint(sources: Iterable[str]) -> tuple[Mark, ...]:
    """What changes when a file does: (path, mtime in ns, size, inode) of each, zeros where it is missing.

    Links are followed, so a swapped link shows. A pattern stands for what it matches now, so a
    new file shows too.
    """
    marks: list[Mark] = []
    for source in sources:
        plain = os.path.lexists(source) or not is_pattern(source)
        marks += map(_mark, [source] if plain else expand(source))
    return tuple(marks)


def is_pattern(name: str) -> bool:
    """Whether a file name stands for several files."""
    return glob.has_magic(name)


def escape(directory: Path) -> str:
    """A directory as the beginning of a pattern, to be taken literally."""
    return glob.escape(str(directory))


def expand(pattern: str) -> list[str]:
    """The paths that a pattern matches, sorted. Never raises."""
    return sorted(glob.glob(pattern, recursive=True))  # noqa: PTH207 - Path.glob has no absolute patterns


def _mark(path: str) -> Mark:
    try:
        found = Path(path).stat()
    except (OSError, ValueError):
        return (path, 0, 0, 0)
    return (path, found.st_mtime_ns, found.st_size, found.st_ino)
