"""`include = ["policies/*.toml"]`: several files merged into one tree."""

from __future__ import annotations

from pathlib import Path as FilePath

from gateway.settings.faults import ConfigError, Fault
from gateway.settings.tree import Node, Source, parse
from gateway.settings.watch import escape, expand, is_pattern

MOST = 1000  # files


class Reader:
    """Reads a file and all it includes; collects faults instead of stopping at the first.

    With a `draft`, that is the text of the first file, whatever stands in it.
    """

    def __init__(self, draft: str | None = None) -> None:
        self._draft = (
            draft.encode("utf-8", "surrogatepass") if draft is not None else None
        )  # of the first file
        self.faults: list[Fault] = []
        self.incomplete = False  # a file could not be read: what else looks wrong may not be
        self.texts: dict[str, str] = {}  # what was read, by path
        self.watched: list[str] = []  # files, and glob patterns whose matches may change
        self._done: set[FilePath] = set()
        self._under_way: list[FilePath] = []
        self.shown: list[str] = []  # the files in the order of reading

    def read(self, file: FilePath, shown: str) -> Node:
        """The merged tree of a file; empty where the file itself can't be read."""
        self.shown.append(shown)
        self.watched.append(str(file.absolute()))
        draft, self._draft = self._draft, None
        try:
            node = parse(file, shown, draft)
        except ConfigError as error:
            self.faults += error.faults
            self.incomplete = True
            return Node({}, Source(shown, file.parent.absolute()))
        self.texts[str(file.absolute())] = node.source.text
        real = file.resolve()
        self._done.add(real)
        self._under_way.append(real)
        wanted = node.value.pop("include", None)
        if wanted is not None:
            self._include(node, wanted)
        self._under_way.pop()
        return node

    def _include(self, into: Node, wanted: Node) -> None:
        if not isinstance(wanted.value, list) or not wanted.value:
            self.faults.append(wanted.fault('must be an array of file names: ["policies/*.toml"]'))
            return
        for item in wanted.value:
            if not isinstance(item.value, str) or not item.value or "\0" in item.value:
                self.faults.append(item.fault('must be a file name such as "policies/*.toml"'))
                continue
            for file in self._found(item):
                self._take(into, item, file)

    def _found(self, item: Node) -> list[FilePath]:
        directory, parts = item.source.directory, FilePath(item.value).parts
        fixed = next((at for at, part in enumerate(parts) if is_pattern(part)), len(parts))
        base = directory.joinpath(*parts[:fixed])
        if fixed == len(parts):
            return [base]
        if not base.is_dir():
            self.faults.append(item.fault(f"there is no directory {base.name}/ here"))
            return []
        pattern = str(FilePath(escape(base), *parts[fixed:]))
        self.watched.append(pattern)
        files = (FilePath(name) for name in expand(pattern))
        return [file for file in files if file.is_file()]

    def _take(self, into: Node, item: Node, file: FilePath) -> None:
        real = file.resolve()
        if real in self._under_way:
            chain = [*self._under_way[self._under_way.index(real) :], real]
            told = " → ".join(step.name for step in chain)
            self.faults.append(item.fault(f"includes go in a circle: {told}"))
        elif not file.is_file():
            self.incomplete = True
            self.faults.append(item.fault(f"there is no file {file.name} in {file.parent.name}/"))
        elif len(self.shown) >= MOST:
            self.faults.append(item.fault(f"more than {MOST} files are included"))
        elif real not in self._done:
            self._merge(into, self.read(file, self._shown(item, file)), top=True)

    @staticmethod
    def _shown(item: Node, file: FilePath) -> str:
        """How the file is called in messages: beside the file that includes it."""
        beside = FilePath(item.source.shown).parent
        if file.is_relative_to(item.source.directory):
            return str(beside / file.relative_to(item.source.directory))
        return str(file)

    def _merge(self, into: Node, other: Node, top: bool = False) -> None:
        """Tables merge, arrays of tables at the top are joined, a key that is set twice is a fault."""
        for name, node in other.value.items():
            mine = into.value.get(name)
            if mine is None:
                into.value[name] = node
            elif isinstance(mine.value, dict) and isinstance(node.value, dict):
                self._merge(mine, node)
            elif top and _tables(mine) and _tables(node):
                mine.value += node.value
            else:
                self.faults.append(node.fault(f"set twice; the other is {mine.where(node)}", at_key=True))


def _tables(node: Node) -> bool:
    return isinstance(node.value, list) and all(isinstance(item.value, dict) for item in node.value)
