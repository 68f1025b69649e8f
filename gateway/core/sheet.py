"""Settled calls as tables: what would be done for each member of a record is done once per column.

Nearly all calls that are booked in one go have the same members, and many are alike: the same model
and outcome, often the same key. To take them apart one by one costs several times as much.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import repeat
from typing import Any

from gateway.core.codec import loads

# By these calls are counted, and few calls differ in them.
LABELS = (
    "key", "key_name", "tenant", "team", "user", "method", "endpoint", "model", "alias", "backend",
    "target", "stream", "status", "outcome", "code", "usage_source", "prompt_version", "arm",
)  # fmt: skip
_LABELS = frozenset(LABELS)

# Ends what the records of calls alike begin with (core/record.py). A quote inside a JSON string is
# escaped, so this is always structure; what stands before it has no objects in it.
_OWN = b',"id":'


@dataclass(slots=True)
class Sheet:
    """`size` records with the same members: `common` are those that are equal, `columns` the others."""

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

    def parted(self, names: Iterable[str]) -> list[Sheet]:
        """Sheets in each of which these members are common."""
        varied = [name for name in names if name in self.columns]
        if not varied:
            return [self]
        places: dict[tuple[Any, ...], list[int]] = {}
        for place, values in enumerate(zip(*[self.columns[name] for name in varied], strict=True)):
            places.setdefault(values, []).append(place)
        rest = {name: column for name, column in self.columns.items() if name not in varied}
        return [
            Sheet(
                len(found),
                self.common | dict(zip(varied, values, strict=True)),
                {name: [column[place] for place in found] for name, column in rest.items()},
            )
            for values, found in places.items()
        ]


def gathered(lines: Sequence[bytes]) -> list[Sheet]:
    """Records as workers write them, in few sheets. Raises `ValueError` where something is none."""
    commons, rests = _cut(lines)
    owns = loads(b"[{" + b",{".join(rests) + b"]") if rests else []
    if len(owns) != len(rests):
        raise ValueError("these lines are objects only when they are put together")
    return _sheets(commons, owns)


def _cut(lines: Sequence[bytes]) -> tuple[list[dict[str, Any]], list[bytes]]:
    """What each line begins with, understood, and the rest of it."""
    head, own, _ = lines[0].partition(_OWN) if lines else (b"", b"", b"")
    if own and all(map(bytes.startswith, lines, repeat(head + own))):  # as calls of one key and model do
        after = len(head) + 1
        return [_begun(head)] * len(lines), [line[after:] for line in lines]
    begin, after = b"\0", 0  # of the line before: to compare costs less than to search
    common: dict[str, Any] = {}
    commons: list[dict[str, Any]] = []
    rests: list[bytes] = []
    for line in lines:
        if not line.startswith(begin):
            at = line.find(_OWN)
            head, after = (line[:at], at + 1) if at > 0 else (line[:1], 1)
            begin, common = head + _OWN, _begun(head)
        commons.append(common)
        rests.append(line[after:])
    return commons, rests


@lru_cache(2048)
def _begun(head: bytes) -> dict[str, Any]:
    begun = loads(head + b"}")
    if not isinstance(begun, dict):
        raise ValueError("no JSON object begins so")
    return begun


def tabulated(records: Iterable[Mapping[str, Any]]) -> list[Sheet]:
    """Any records."""
    owns = list(map(dict, records))
    return _sheets([{}] * len(owns), owns)


def _sheets(commons: list[dict[str, Any]], owns: list[dict[str, Any]]) -> list[Sheet]:
    if not owns:
        return []
    shape, names = tuple(commons[0]), tuple(owns[0])
    # Maps, not loops: no frame and no instruction per record.
    if all(map(names.__eq__, map(tuple, owns))) and all(map(shape.__eq__, map(tuple, _distinct(commons)))):
        return [_sheet(commons, owns)]
    parts: dict[Any, tuple[list[dict[str, Any]], list[dict[str, Any]]]] = {}
    for common, own in zip(commons, owns, strict=True):
        part = parts.setdefault((tuple(common), tuple(own)), ([], []))
        part[0].append(common)
        part[1].append(own)
    return [_sheet(*part) for part in parts.values()]


def _sheet(commons: list[dict[str, Any]], owns: list[dict[str, Any]]) -> Sheet:
    names = tuple(owns[0])
    columns: dict[str, Sequence[Any]] = dict(
        zip(names, zip(*map(dict.values, owns), strict=True), strict=True)
    )
    common: dict[str, Any] = {}
    distinct = _distinct(commons)
    for name, value in commons[0].items():
        if name in columns:
            continue  # what a record says last goes
        if len(distinct) == 1 or all([each[name] == value for each in distinct]):
            common[name] = value
        else:
            columns[name] = [each[name] for each in commons]
    for name in names:
        if name in _LABELS and columns[name].count(columns[name][0]) == len(owns):
            common[name] = columns.pop(name)[0]
    return Sheet(len(owns), common, columns)


def _distinct(commons: list[dict[str, Any]]) -> list[dict[str, Any]]:
    if commons.count(commons[0]) == len(commons):
        return commons[:1]
    return list({id(common): common for common in commons}.values())
