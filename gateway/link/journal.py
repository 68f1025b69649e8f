"""What must survive a killed worker: its open calls and its settled records, in one directory.

    slots         the open calls (link/slots.py)
    NNNNNN.log    the settled records (link/segments.py)
    lock          flocked for as long as the worker lives

The worker writes, the supervisor reads; the pages belong to the kernel, so SIGKILL loses nothing
that was written. `begin` and `end` cost about a microsecond and make no system call.
"""

from __future__ import annotations

import contextlib
from collections import deque
from pathlib import Path
from typing import Any, Final
from zlib import crc32

from gateway.core.codec import dumps, loads
from gateway.core.errors import FaultError
from gateway.link.segments import HEAD, LARGEST, SEGMENT, SegmentReader, Segments, segment_path
from gateway.link.slots import ROOM, WORDS, SlotTable, taken

MOST_UNREAD: Final = 64  # segments; with more, no new call begins


class JournalWriter:
    """The worker's side: `core.ports.Journal`. `slots` bounds the calls open at once.

    A call that has begun can always end: when the disk is full its record waits in memory with
    its slot still taken, and new calls are refused.
    """

    def __init__(self, directory: Path, slots: int = 10_000, most_unread: int = MOST_UNREAD) -> None:
        self._log = Segments(directory)
        self._slots = SlotTable(directory / "slots", slots)
        self._most_unread = most_unread
        self._late: deque[tuple[int, bytes]] = deque()

    def begin(self, record: bytes) -> int:
        """Note an open call; gives its slot. Raises `FaultError` when the journal is full."""
        if self._late or self._log.kept > self._most_unread:
            self._refuse_if_full()
        return self._slots.take(record if len(record) <= ROOM else shortened(record, ROOM))

    def end(self, slot: int, record: bytes) -> None:
        """Append the settled call's record and free its slot; a call refused before `begin` has slot -1."""
        log, at, size = self._log, self._log.at, len(record)
        if slot < 0 or self._late or at + size + 24 > SEGMENT:
            self._end(slot, record)
            return
        # As `_write` does, without its five frames. The order of the stores is what makes a kill harmless.
        table = self._slots
        table.words[slot * WORDS + 1] = log.base + at
        log.map[at + 8 : at + 8 + size] = record
        log.words[at >> 3] = size | crc32(record) << 32
        log.at = at + 8 + (size + 7 & ~7)
        table.words[slot * WORDS] = 0
        table.unused.append(slot)

    def _end(self, slot: int, record: bytes) -> None:
        if len(record) > LARGEST:
            record = shortened(record, LARGEST)
        if self._late or not self._write(slot, record):
            self._late.append((slot, record))

    def _write(self, slot: int, record: bytes) -> bool:
        try:
            position = self._log.reserve(len(record))
        except OSError:
            return False
        if slot < 0:
            self._log.append(record)
            return True
        self._slots.settling(slot, position)
        self._log.append(record)
        self._slots.free(slot)
        return True

    def prepare(self) -> None:
        """To be called now and then, off the request path: the next segment, and what waits."""
        with contextlib.suppress(OSError):
            self._log.prepare()
        self._write_late()

    def _write_late(self) -> None:
        while self._late and self._write(*self._late[0]):
            self._late.popleft()

    def _refuse_if_full(self) -> None:
        self._write_late()
        self._log.count()
        if self._late or self._log.kept > self._most_unread:
            raise FaultError(
                "the ledger is not keeping up: too many settled calls wait to be written; try again",
                code="gateway_ledger_full",
                retry_after=1,
            )

    def close(self) -> None:
        """Unmap; the files stay."""
        self._log.close()
        self._slots.close()


class JournalReader:
    """The supervisor's side, for a worker that lives or one that has died.

    `offset` says how far has been read: commit it together with what was read, then call
    `committed`. It goes on where `offset` says, in this process or the next.
    """

    def __init__(self, directory: Path, offset: int = 0) -> None:
        self.directory = directory
        numbers = (int(path.stem) for path in directory.glob("*.log"))
        self._kept = min(numbers, default=0)  # the oldest segment that may still exist
        # After a power cut a ledger may have forgotten what made it remove a segment.
        self._log = SegmentReader(directory, max(offset, self._kept * SEGMENT + HEAD))

    @property
    def offset(self) -> int:
        """The position after the last record read."""
        return self._log.offset

    def pending(self) -> bool:
        """Whether there is something to read; cheap enough to ask often."""
        return self._log.pending()

    def read(self, limit: int) -> list[bytes]:
        """At most `limit` new settled records, in the order they were settled."""
        return self._log.read(limit)

    def rewind(self, offset: int) -> None:
        """Go back to where the last commit was."""
        self._log.offset = max(offset, HEAD)

    def committed(self, offset: int) -> None:
        """Everything before `offset` is in the ledger: remove the segments that hold nothing else."""
        while self._kept < offset // SEGMENT:
            segment_path(self.directory, self._kept).unlink(missing_ok=True)
            self._kept += 1

    def open_calls(self) -> list[bytes]:
        """The opened-records of calls without a settled one; ask once the log is read to its end.

        A worker killed between writing a settled record and freeing its slot leaves a slot whose
        position was read already: that call is settled.
        """
        slots = taken(self.directory / "slots")
        return [record for position, record in slots if not 0 < position < self.offset]

    def remove(self) -> None:
        """Delete the directory; may be called again after it was cut short."""
        self.close()
        with contextlib.suppress(FileNotFoundError):
            for path in list(self.directory.iterdir()):
                path.unlink(missing_ok=True)
            self.directory.rmdir()

    def close(self) -> None:
        """Unmap; the files stay."""
        self._log.close()


def shortened(record: bytes, room: int) -> bytes:
    """The same JSON object with its longest values cut until it fits: what counts money is short."""
    document: dict[str, Any] = loads(record)
    longest = room
    while len(record) > room:
        longest //= 2
        document = {name: _cut(value, longest) for name, value in document.items()}
        record = dumps(document)
    return record


def _cut(value: Any, longest: int) -> Any:
    if isinstance(value, str):
        return value[:longest]
    return None if isinstance(value, (list, dict)) and len(dumps(value)) > longest else value
