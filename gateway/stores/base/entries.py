"""From tables of call records to rows: what each call has of its own, and what it shares."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from hashlib import blake2b
from typing import Any, NamedTuple

from gateway.core.codec import dumps
from gateway.core.sheet import LABELS, Sheet
from gateway.stores.base.columns import DAY_MS, JSON, MOST, NUMBERS, OWN, SHARED, SUMS, TEXTS, quoted

_EMPTY: dict[str, Any] = {name: 0 if name in NUMBERS else "" for name in SHARED}
_EMPTY |= {name: "" if name in TEXTS else 0 for name in OWN}

_NO_LABELS = tuple([_EMPTY[name] for name in LABELS])

_MOST_KNOWN = 20_000  # labels and sets of tags remembered; the tables know them all
_LARGEST = (1 << 63) - 1
_AHEAD = 400  # days: a clock that is further ahead is not believed

_NEW_LABEL = (
    f"INSERT INTO labels (id, seen, {quoted(SHARED)}) VALUES (?, ?{', ?' * len(SHARED)})"
    " ON CONFLICT (id) DO UPDATE SET seen = excluded.seen WHERE labels.seen < excluded.seen"
)
_NEW_TAG = (
    "INSERT INTO tagged (tagset, tag, seen) VALUES (?, ?, ?)"
    " ON CONFLICT (tagset, tag) DO UPDATE SET seen = excluded.seen WHERE tagged.seen < excluded.seen"
)

Row = tuple[Any, ...]


class OddFieldError(Exception):
    """A record has a field that no column takes as it is: `plain` makes it one."""


def number(*content: Any) -> int:
    """The number of some content, 63 bits of its hash: the same on every replica, without asking anybody."""
    return int.from_bytes(blake2b(dumps(content), digest_size=8).digest(), "big") >> 1


class Shared:
    """What calls share: gives each combination its number, and notes those that are new to this process."""

    def __init__(self) -> None:
        self._labels: dict[Row, int] = {}
        self._tagsets: dict[Row, int] = {}
        self._day = 0
        self._fresh: dict[int, Row] = {}
        self._fresh_tags: dict[int, list[str]] = {}

    def forget(self) -> None:
        """Remember nothing: a transaction was rolled back, or rows have gone."""
        for known in (self._labels, self._tagsets, self._fresh, self._fresh_tags):
            known.clear()

    def begin(self, sheets: Sequence[Sheet]) -> None:
        """Before the calls of these sheets. Each day everything is noted anew, so that it counts as seen."""
        newest = max([max(sheet.column("ts"), default=0) for sheet in sheets], default=0)
        today = int(time.time()) // 86_400
        day = max(today, min(int(newest) // DAY_MS, today + _AHEAD))
        if day != self._day or len(self._labels) + len(self._tagsets) > _MOST_KNOWN:
            self.forget()
            self._day = day

    def labels(self, sheet: Sheet, tagsets: Sequence[int]) -> Sequence[int]:
        """The label of each call."""
        tagged = [int(tagset != 0) for tagset in tagsets] if tagsets else ()
        if not tagged and sheet.columns.keys().isdisjoint(LABELS):
            return [self._label((*map(sheet.common.get, LABELS, _NO_LABELS), 0))] * sheet.size
        columns = [sheet.column(name) or [_EMPTY[name]] * sheet.size for name in LABELS]
        return list(map(self._label, zip(*columns, tagged or [0] * sheet.size, strict=True)))

    def _label(self, labels: Row) -> int:
        found = self._labels.get(labels)
        if found is None:
            found = self._labels[labels] = number(*labels)
            self._fresh[found] = labels
        return found

    def tagsets(self, sheet: Sheet) -> Sequence[int]:
        """The set of tags of each call, 0 for none; empty where no call has any."""
        tags = sheet.column("tags")
        return [self._tagset(each) if each else 0 for each in tags] if any(tags) else ()

    def _tagset(self, tags: Any) -> int:
        if not isinstance(tags, list | tuple):
            raise OddFieldError("tags are a list of texts")
        found = self._tagsets.get(tuple(tags))
        return found if found is not None else self._new_tagset(tuple(tags))

    def _new_tagset(self, tags: tuple[Any, ...]) -> int:
        if not all(isinstance(tag, str) for tag in tags):
            raise OddFieldError("tags are a list of texts")
        distinct = sorted(set(tags))
        found = self._tagsets[tags] = number(*distinct) or 1
        self._fresh_tags[found] = distinct
        return found

    def write(self, many: Callable[[str, list[Row]], object]) -> None:
        """Insert what is new, in one order everywhere, so that no two writers wait for each other.

        `many` runs a statement (with `?` for each value) for each of some rows.
        """
        if self._fresh:
            labels = [(id, self._day, *_plainly(self._fresh[id])) for id in sorted(self._fresh)]
            many(_NEW_LABEL, labels)
        if self._fresh_tags:
            sets = sorted(self._fresh_tags.items())
            many(_NEW_TAG, [(tagset, tag, self._day) for tagset, tags in sets for tag in tags])
        self._fresh.clear()
        self._fresh_tags.clear()


def _plainly(labels: Row) -> Row:
    return tuple(map(_number_or_text, SHARED, labels))


def _number_or_text(name: str, value: Any) -> Any:
    """Databases differ in what they make of the wrong kind."""
    if name in NUMBERS:
        return int(value)
    if not isinstance(value, str):
        raise OddFieldError(f"{name} is a text")
    return value


class Written(NamedTuple):
    """What calls have, as it is written: members that are the same in all of them, and the columns of others.

    What is in neither is default. `totals` are the sums of columns.
    """

    common: dict[str, Any]
    own: dict[str, Sequence[Any]]
    totals: dict[str, int]


class _Columns(NamedTuple):
    common: tuple[str, ...]
    texts: tuple[str, ...]
    numbers: tuple[str, ...]
    documents: tuple[str, ...]


@lru_cache(256)
def _columns(common: tuple[str, ...], own: tuple[str, ...]) -> _Columns:
    """The columns among members that calls have in common, and, by kind, among those of their own."""
    texts = tuple([name for name in OWN if name in own and name in TEXTS and name not in JSON])
    numbers = tuple([name for name in OWN if name in own and name not in TEXTS])
    shared = tuple([name for name in OWN if name in common])
    return _Columns(shared, texts, numbers, tuple([name for name in JSON if name in own]))


def written(sheet: Sheet) -> Written:
    """The values of these calls. Raises `OddFieldError`, or `TypeError`."""
    common, columns = sheet.common, sheet.columns
    known = _columns(tuple(common), tuple(columns))
    shared = {name: _one(name, common[name]) for name in known.common}
    own: dict[str, Sequence[Any]] = {}
    totals: dict[str, int] = {}
    # To join and to add up tells of the wrong kind, at a quarter of what it costs to look at each one's type.
    for name in known.texts:
        own[name] = columns[name]
        "".join(own[name])
    for name in known.numbers:
        column = columns[name]
        total = sum(column)
        if type(total) is not int:
            raise OddFieldError(f"{name} is int")
        if total > MOST and name in SUMS:
            column = [min(each, MOST) for each in column]
            total = sum(column)
        own[name], totals[name] = column, total
    for name in known.documents:
        own[name] = [_document(each) for each in columns[name]]
    return Written(shared, own, totals)


def _one(name: str, value: Any) -> Any:
    if name in JSON:
        return _document(value)
    kind = str if name in TEXTS else int
    if type(value) is not kind:
        raise OddFieldError(f"{name} is {kind.__name__}")
    return min(value, MOST) if name in SUMS else value


def _document(value: Any) -> str:
    return dumps(value).decode() if value else ""


def plain(record: Mapping[str, Any], text: Callable[[str], str] = str) -> dict[str, Any]:
    """The record with every field of a kind that the tables take; `text` drops what a database can't hold.

    For records that were refused once.
    """
    kept: dict[str, Any] = {}
    for name, empty in _EMPTY.items():
        value = record.get(name)
        if value is None or name == "tagged":
            continue
        if name == "tags":
            kept[name] = [_text(tag, text) for tag in value] if isinstance(value, list | tuple) else []
        elif name == "reasons":
            pairs = value.items() if isinstance(value, Mapping) else ()
            kept[name] = {_text(word, text): _text(why, text) for word, why in pairs}
        elif isinstance(empty, int):
            kept[name] = max(-_LARGEST, min(int(value), _LARGEST)) if isinstance(value, int | float) else 0
        else:
            kept[name] = _text(value, text)
    kept.setdefault("ts", 0)
    return kept


def _text(value: Any, text: Callable[[str], str]) -> str:
    return text(str(value).encode("utf-8", "replace").decode())
