"""Calls on their way from a journal into the ledger."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from gateway.core.codec import JSONError, dumps, loads
from gateway.core.sheet import Sheet, gathered, tabulated
from gateway.link.journal import JournalReader
from gateway.supervisor.capture import Texts
from gateway.supervisor.counting import Counting, Record

log = logging.getLogger("penstock.ledger")


class Batch(NamedTuple):
    """Calls that were committed: their lines, without `sealed`, and the same as tables.

    `recounted` are those whose tokens were counted here, each before and after.
    """

    lines: list[bytes]
    sheets: list[Sheet]
    recounted: Sequence[tuple[Record, Record]] = ()


class Doubtful(NamedTuple):
    """A batch whose commit failed: a connection that broke may have hidden that it succeeded."""

    offsets: dict[str, int]
    batch: Batch

    def booked(self, there: Mapping[str, int]) -> bool:
        """Whether it did, by the offsets that the ledger has: rows and offsets move together."""
        return all(there.get(source) == offset for source, offset in self.offsets.items())


def batched(lines: list[bytes], counting: Counting, texts: Texts) -> Batch:
    """The calls of some lines of a journal."""
    try:
        batch = Batch(lines, gathered(lines))
    except ValueError:
        return _one_by_one(lines, counting, texts)
    if any("sealed" in sheet.columns for sheet in batch.sheets):
        return _one_by_one(lines, counting, texts)
    return batch


def _one_by_one(lines: list[bytes], counting: Counting, texts: Texts) -> Batch:
    """Where texts come along, and where something is no record: that is left out."""
    records: list[Record] = []
    recounted = []
    for line in lines:
        record = parsed(line)
        if record is not None:
            texts.opened(record)
            before = {name: record.get(name, 0) for name in ("input", "output", "cost_micros")}
            if counting.complete(record):
                recounted.append(({**record, **before}, record))
            records.append(record)
    texts.keep()
    return Batch(list(map(dumps, records)), tabulated(records), recounted)


def opened_calls(reader: JournalReader) -> list[Record]:
    """The records of calls that were under way when their worker died."""
    found = map(parsed, reader.open_calls())
    return [record for record in found if record is not None]


def parsed(line: bytes) -> Record | None:
    """One record; None, and a line in the log, for what is none."""
    try:
        record = loads(line)
    except JSONError:
        record = None
    if not isinstance(record, dict):
        log.error("a record that is not a JSON object was left out: %.200r", line)
        return None
    return record
