"""The settled records' log: preallocated, memory-mapped segments, appended to without a system call.

A record is one 8-byte word, length in its low half and CRC-32 in its high half, then the bytes,
padded to 8. The word is one aligned store and the last one, so a record is there as a whole or
not at all. A word of all ones says that the log goes on in the next segment. A position is
`segment number * SEGMENT + offset` and never 0, because a segment starts with a magic word.
"""

from __future__ import annotations

import mmap
import os
from pathlib import Path
from zlib import crc32

SEGMENT = 4 << 20
HEAD = 8
LARGEST = SEGMENT - HEAD - 16  # bytes of one record
_MAGIC = int.from_bytes(b"penstok1", "little")
_ONWARD = (1 << 64) - 1
_LAST = SEGMENT - 8  # where a segment's last record may end: a word must follow it


def segment_path(directory: Path, number: int) -> Path:
    """Where a segment lies."""
    return directory / f"{number:06d}.log"


class Segments:
    """The writer's side of the log; starts a new one in an empty directory.

    `at` is where the next record goes in the segment that `map` and `words` show, which begins at the
    position `base`. `JournalWriter.end` does what `reserve` and `append` do, where there is room, itself.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._number = 0
        self._next: mmap.mmap | None = None
        self._enter(self._create(0))
        self.kept = 1  # segments that were on disk when it was last counted

    def _create(self, number: int) -> mmap.mmap:
        """A zeroed segment under its final name only once its space is taken."""
        draft = self._directory / "segment.new"
        fd = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(fd, 0, SEGMENT)
            segment = mmap.mmap(fd, SEGMENT)
            draft.rename(segment_path(self._directory, number))
            return segment
        finally:
            os.close(fd)

    def _enter(self, segment: mmap.mmap) -> None:
        self.map = segment
        self.words = memoryview(segment).cast("Q")
        self.words[0] = _MAGIC
        self.at = HEAD
        self.base = self._number * SEGMENT

    def prepare(self) -> None:
        """Have the next segment ready before it is needed. Raises OSError when the disk is full."""
        if self._next is None and self.at > SEGMENT // 2:
            self._next = self._create(self._number + 1)

    def reserve(self, size: int) -> int:
        """The position the next record of `size` bytes will have. Raises OSError: nothing has changed."""
        if self.at + size + 24 > SEGMENT:
            self._rotate()
        return self.base + self.at

    def _rotate(self) -> None:
        following = self._next or self._create(self._number + 1)
        self._next = None
        self.words[self.at >> 3] = _ONWARD
        self._leave()
        self._number += 1
        self._enter(following)
        self.count()

    def _leave(self) -> None:
        self.words.release()
        self.map.close()

    def append(self, record: bytes) -> None:
        """Write a record at the position just reserved for it."""
        at, size = self.at, len(record)
        self.map[at + 8 : at + 8 + size] = record
        self.words[at >> 3] = size | crc32(record) << 32
        self.at = at + 8 + (size + 7 & ~7)

    def count(self) -> None:
        """Count the segments on disk: the reader removes those that it has committed."""
        self.kept = sum(1 for _ in self._directory.glob("*.log"))

    def close(self) -> None:
        """Unmap; what was written stays in the files."""
        self._leave()
        if self._next is not None:
            self._next.close()
            self._next = None


class SegmentReader:
    """Follows a log that another process is writing, or one that was left behind.

    `offset` is the position of the next record to read; a torn or damaged tail is not passed.
    """

    def __init__(self, directory: Path, offset: int = 0) -> None:
        self._directory = directory
        self._map: mmap.mmap | None = None
        self._words = memoryview(b"").cast("Q")
        self._number = -1
        self.offset = max(offset, HEAD)

    def _segment(self) -> mmap.mmap | None:
        number = self.offset // SEGMENT
        if number != self._number or self._map is None:
            self.close()
            try:
                with segment_path(self._directory, number).open("rb") as file:
                    self._map = mmap.mmap(file.fileno(), SEGMENT, prot=mmap.PROT_READ)
            except FileNotFoundError:
                return None
            self._words = memoryview(self._map).cast("Q")
            self._number = number
        return self._map

    def pending(self) -> bool:
        """Whether something stands at the offset; makes no system call on an open segment."""
        return self._segment() is not None and self._words[self.offset % SEGMENT >> 3] != 0

    def read(self, limit: int) -> list[bytes]:
        """At most so many records from the offset on, which moves past them."""
        records: list[bytes] = []
        while (segment := self._segment()) is not None and self._scan(segment, limit, records) == _ONWARD:
            self.offset = (self._number + 1) * SEGMENT + HEAD
        return records

    def _scan(self, segment: mmap.mmap, limit: int, records: list[bytes]) -> int:
        """Take what one segment has. Gives the word at which it ended; 0 where there were enough."""
        at = self.offset % SEGMENT
        words, word = self._words, 0
        while len(records) < limit:
            word = words[at >> 3]
            size = word & 0xFFFFFFFF
            end = at + 8 + size
            if not size or end > _LAST:
                break
            record = segment[at + 8 : end]
            if crc32(record) != word >> 32:
                break
            records.append(record)
            at, word = end + 7 & ~7, 0
        self.offset = self._number * SEGMENT + at
        return word

    def close(self) -> None:
        """Unmap the segment at hand."""
        self._words.release()
        if self._map is not None:
            self._map.close()
            self._map = None
