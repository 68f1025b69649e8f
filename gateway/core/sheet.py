"""Settled calls as tables: what would be done for each member of a record is done once per column.

Nearly all that is booked in one go are calls alike: the same key, model and outcome. Taking them
apart one by one costs several times as much as the work on whole columns.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gateway.core.codec import dumps, loads

# By these calls are counted, and few calls differ in them.
LABELS = (
    "key", "key_name", "tenant", "team", "user", "method", "endpoint", "model", "alias", "backend",
    "target", "stream", "status", "outcome", "code", "usage_source",
)  # fmt: skip
_LABELS = frozenset(LABELS)

# Ends what the records of calls alike begin with (core/record.py). A quote inside a JSON string is
# escaped, so this is always structure; what stands before it has no objects in it.
_OWN = b',"id":'


@dataclass(slots=True)
class Sheet:
    """`size` records: the members that all of them share, labels always, and the rest by name."""

    size: int
    common: dict[str, Any]
    columns: Mapping[str, Sequence[Any]]

    def column(self, name: str) -> Sequence[Any]:
        """The member of each record; empty where they do not have it."""
        if name in self.common:
            return [self.common[name]] * self.size
        return self.columns.get(name, ())

    def total(self, name: str) -> Any:
        """The sum of a member over all records."""
        column = self.columns.get(name)
        return self.common.get(name, 0) * self.size if column is None else sum(column)

    def records(self) -> list[dict[str, Any]]:
        """What it was made of."""
        own = self.columns.items()
        return [self.common | {name: column[n] for name, column in own} for n in range(self.size)]

    def parted(self, by: Sequence[Hashable]) -> list[tuple[Any, Sheet]]:
        """Sheets of the records with equal keys; `by` has one for each record."""
        if by.count(by[0]) == self.size:
            return [(by[0], self)]
        places: dict[Hashable, list[int]] = {}
        for place, key in enumerate(by):
            places.setdefault(key, []).append(place)
        return [(key, self._picked(found)) for key, found in places.items()]

    def _picked(self, places: Sequence[int]) -> Sheet:
        columns = {name: [column[place] for place in places] for name, column in self.columns.items()}
        return Sheet(len(places), self.common, columns)


def gathered(lines: Iterable[bytes]) -> list[Sheet]:
    """Records as JSON objects; those that begin alike share sheets. Raises `ValueError` for anything else."""
    alike: dict[bytes, list[bytes]] = {}
    begin, after = b"\0", 0  # of the line before: most are like it, and to compare costs less than to search
    rests: list[bytes] = []
    for line in lines:
        if not line.startswith(begin):
            at = line.find(_OWN)
            head, after = (line[:at], at + 1) if at > 0 else (line[:1], 1)
            begin = head + _OWN
            rests = alike.setdefault(head, [])
        rests.append(line[after:])
    sheets: list[Sheet] = []
    for head, rests in alike.items():
        owns = loads(b"[{" + b",{".join(rests) + b"]")
        if len(owns) != len(rests):
            raise ValueError("these lines are objects only when they are put together")
        sheets += _alike(loads(head + b"}"), owns)
    return sheets


def tabulated(records: Iterable[Mapping[str, Any]]) -> list[Sheet]:
    """Any records. Raises `TypeError` for labels that no JSON has."""
    owns = list(map(dict, records))
    return _alike({}, owns) if owns else []


def _alike(common: dict[str, Any], owns: list[dict[str, Any]]) -> list[Sheet]:
    """`owns` is not empty; what it has goes before what is common."""
    names = tuple(owns[0])
    if all(map(names.__eq__, map(tuple, owns))):  # no frame per record
        return _sheets(common, names, owns)
    shapes: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for own in owns:
        shapes.setdefault(tuple(own), []).append(own)
    return [sheet for names, owns in shapes.items() for sheet in _sheets(common, names, owns)]


def _sheets(common: dict[str, Any], names: tuple[str, ...], owns: list[dict[str, Any]]) -> list[Sheet]:
    columns = dict(zip(names, zip(*map(dict.values, owns), strict=True), strict=True))
    common = {name: value for name, value in common.items() if name not in columns}
    labels = {name: columns.pop(name) for name in names if name in _LABELS}
    sheet = Sheet(len(owns), common, columns)
    if all(values.count(values[0]) == len(values) for values in labels.values()):
        common.update({name: values[0] for name, values in labels.items()})
        return [sheet]
    parts = sheet.parted([dumps(values) for values in zip(*labels.values(), strict=True)])
    return [
        Sheet(part.size, common | dict(zip(labels, loads(values), strict=True)), part.columns)
        for values, part in parts
    ]
