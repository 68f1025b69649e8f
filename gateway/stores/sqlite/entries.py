"""From call records to rows: one entry per call, and the sums that `hours` keeps of them."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from operator import itemgetter
from typing import Any

from gateway.core.codec import dumps

LABELS = (
    "key", "key_name", "tenant", "team", "user", "method", "endpoint", "model", "alias", "backend",
    "target", "stream", "status", "outcome", "code", "usage_source",
)  # fmt: skip
SUMS = (
    "input", "cached_input", "cache_write", "audio_input", "output", "reasoning", "audio_output",
    "cost_micros", "hold_tokens", "hold_micros", "total_us",
)  # fmt: skip
_REST = (
    "ts", "id", "client", "tries", "queue_us", "connect_us", "first_byte_us", "first_token_us",
    "overhead_us", "revision", "worker", "path", "session", "tags", "trace", "reasons",
)  # fmt: skip
_TEXTS = {*LABELS, "id", "client", "revision", "path", "session", "tags", "trace", "reasons"}
_TEXTS -= {"stream", "status"}

_EMPTY: dict[str, Any] = {name: "" if name in _TEXTS else 0 for name in (*LABELS, *SUMS, *_REST)}
_TS = len(SUMS)

_labels = itemgetter(*LABELS)
_columns = itemgetter(*SUMS, *_REST)

HOUR_MS = 3_600_000
_MOST_LABELS = 50_000  # remembered; the table knows them all
_LARGEST = (1 << 63) - 1
_LARGEST_SUM = 1 << 48  # of one batch: a provider that reports nonsense can't make later sums overflow

_INSERT = (
    "INSERT INTO entries (input, cached_input, cache_write, audio_input, output, reasoning, audio_output,"
    " cost_micros, hold_tokens, hold_micros, total_us, ts, id, client, tries, queue_us, connect_us,"
    " first_byte_us, first_token_us, overhead_us, revision, worker, path, session, tags, trace, reasons,"
    " label)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
_ADD = (
    "INSERT INTO hours (hour, label, calls, input, cached_input, cache_write, audio_input, output,"
    " reasoning, audio_output, cost_micros, hold_tokens, hold_micros, total_us)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
    " ON CONFLICT DO UPDATE SET calls = calls + excluded.calls, input = input + excluded.input,"
    " cached_input = cached_input + excluded.cached_input, cache_write = cache_write + excluded.cache_write,"
    " audio_input = audio_input + excluded.audio_input, output = output + excluded.output,"
    " reasoning = reasoning + excluded.reasoning, audio_output = audio_output + excluded.audio_output,"
    " cost_micros = cost_micros + excluded.cost_micros, hold_tokens = hold_tokens + excluded.hold_tokens,"
    " hold_micros = hold_micros + excluded.hold_micros, total_us = total_us + excluded.total_us"
)
_FIND_LABEL = (
    'SELECT id FROM labels WHERE "key" = ? AND key_name = ? AND tenant = ? AND team = ? AND user = ?'
    " AND method = ? AND endpoint = ? AND model = ? AND alias = ? AND backend = ? AND target = ?"
    " AND stream = ? AND status = ? AND outcome = ? AND code = ? AND usage_source = ?"
)
_NEW_LABEL = (
    'INSERT INTO labels ("key", key_name, tenant, team, user, method, endpoint, model, alias, backend,'
    " target, stream, status, outcome, code, usage_source)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)

Row = tuple[Any, ...]


class Entries:
    """Writes calls. Remembers label ids; `forget` them when a transaction is rolled back."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        self._ids: dict[Row, int] = {}

    def forget(self) -> None:
        """Remember no label."""
        self._ids.clear()

    def insert(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Insert rows and add them to their hours, inside the caller's transaction."""
        rows: list[Row] = []
        groups: dict[tuple[int, int], list[Row]] = {}
        ids, hour = self._ids, HOUR_MS
        for record in records:
            full = {**_EMPTY, **record}
            if full["tags"] or full["reasons"]:
                full["tags"], full["reasons"] = _json(full["tags"]), _json(full["reasons"])
            labels = _labels(full)
            label = ids.get(labels) or self._label(labels)
            row = (*_columns(full), label)
            rows.append(row)
            group = groups.get((row[_TS] // hour, label))
            if group is None:
                groups[row[_TS] // hour, label] = [row]
            else:
                group.append(row)
        self._db.executemany(_INSERT, rows)
        self._db.executemany(_ADD, [(*at, len(group), *_sums(group)) for at, group in groups.items()])

    def _label(self, labels: Row) -> int:
        found = self._db.execute(_FIND_LABEL, labels).fetchone()
        number = int(found[0]) if found else self._db.execute(_NEW_LABEL, labels).lastrowid or 0
        if len(self._ids) >= _MOST_LABELS:
            self._ids.clear()
        self._ids[labels] = number
        return number


def _sums(rows: Sequence[Row]) -> list[int]:
    return [min(sum(column), _LARGEST_SUM) for column in zip(*[row[:_TS] for row in rows], strict=True)]


def _json(value: Any) -> str:
    return dumps(value).decode() if value else ""


def plain(record: Mapping[str, Any]) -> dict[str, Any]:
    """The record with every field of a kind that the tables take; for records that were refused once."""
    kept: dict[str, Any] = {name: record[name] for name in ("tags", "reasons") if name in record}
    for name, empty in _EMPTY.items():
        value = record.get(name, empty)
        if name in kept or value is None:
            continue
        if isinstance(empty, int):
            kept[name] = max(-_LARGEST, min(int(value), _LARGEST)) if isinstance(value, int | float) else 0
        else:
            kept[name] = str(value).encode("utf-8", "replace").decode()
    return kept
