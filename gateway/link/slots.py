"""The table of open calls: fixed slots in a memory-mapped file that outlives its process.

A slot is 2 KiB: one word with the length of its record (0: free), one with the log position at
which its settled record will stand (0: not settled), then the record. The length is stored
last when a slot is taken and cleared first when it is freed, each with one 8-byte store, so a
process killed between two instructions leaves either a whole slot or a free one.
"""

from __future__ import annotations

import mmap
import os
from pathlib import Path
from typing import Final

from gateway.core.errors import FaultError

SLOT: Final = 2048
ROOM: Final = SLOT - 16  # bytes for a record
WORDS: Final = SLOT // 8
_FIRST: Final = 256  # slots at the start; the table doubles from there


def _full(message: str) -> FaultError:
    return FaultError(message, code="gateway_ledger_full", retry_after=1)


class SlotTable:
    """The writer's side. `limit` bounds the calls open at once.

    `JournalWriter.end` does what `settling` and `free` do itself, on `words` and `unused`.
    """

    def __init__(self, path: Path, limit: int) -> None:
        self._limit = limit
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self.unused: list[int] = []
        self._count = 0
        self._map: mmap.mmap | None = None
        self.words = memoryview(b"").cast("Q")
        self._resize(min(_FIRST, limit))

    def _resize(self, count: int) -> None:
        # Space is taken now: a full disk must be an error here, not a SIGBUS at a later store.
        os.posix_fallocate(self._fd, 0, count * SLOT)
        if self._map is not None:
            self.words.release()
            self._map.close()
        self._map = mmap.mmap(self._fd, count * SLOT)
        self.words = memoryview(self._map).cast("Q")
        self.unused = list(range(count - 1, self._count - 1, -1)) + self.unused
        self._count = count

    def _grow(self) -> None:
        if self._count >= self._limit:
            raise _full(f"all {self._limit} slots for open calls are taken; try again")
        try:
            self._resize(min(self._count * 2, self._limit))
        except OSError as error:
            raise _full(f"no room for the table of open calls: {error.strerror}") from error

    def take(self, record: bytes) -> int:
        """Put an opened call's record (at most `ROOM` bytes) into a free slot."""
        if not self.unused:
            self._grow()
        slot, size, words = self.unused.pop(), len(record), self.words
        at, word = slot * SLOT + 16, slot * WORDS
        self._map[at : at + size] = record  # type: ignore[index]
        words[word + 1] = 0  # where its last call was settled: must be gone before this one is there
        words[word] = size
        return slot

    def settling(self, slot: int, position: int) -> None:
        """Note where the log will hold the slot's settled record, before it is written there."""
        self.words[slot * WORDS + 1] = position

    def free(self, slot: int) -> None:
        """Give the slot back."""
        self.words[slot * WORDS] = 0
        self.unused.append(slot)

    def close(self) -> None:
        """Unmap; what was written stays in the file."""
        if self._map is not None:
            self.words.release()
            self._map.close()
            self._map = None
            os.close(self._fd)


def taken(path: Path) -> list[tuple[int, bytes]]:
    """The slots still taken in a dead process's table: (log position or 0, record)."""
    try:
        table = path.read_bytes()
    except FileNotFoundError:
        return []
    found = []
    for start in range(0, len(table) - SLOT + 1, SLOT):
        length = int.from_bytes(table[start : start + 8], "little")
        if 0 < length <= ROOM:
            position = int.from_bytes(table[start + 8 : start + 16], "little")
            found.append((position, table[start + 16 : start + 16 + length]))
    return found
