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
            self._number = number
        return self._map

    def pending(self) -> bool:
        """Whether something stands at the offset; makes no system call on an open segment."""
        segment = self._segment()
        at = self.offset % SEGMENT
        return segment is not None and segment[at : at + 8] != b"\0\0\0\0\0\0\0\0"

    def next(self) -> bytes | None:
        """The record at the offset, which moves past it; None where there is none (yet)."""
        segment = self._segment()
        if segment is None:
            return None
        at = self.offset % SEGMENT
        word = int.from_bytes(segment[at : at + 8], "little")
        if word == _ONWARD:
            self.offset = (self._number + 1) * SEGMENT + HEAD
            return self.next()
        size = word & 0xFFFFFFFF
        if not size or at + 8 + size > SEGMENT:
            return None
        record = segment[at + 8 : at + 8 + size]
        if crc32(record) != word >> 32:
            return None
        self.offset += 8 + (size + 7 & ~7)
        return record

    def close(self) -> None:
        """Unmap the segment at hand."""
        if self._map is not None:
            self._map.close()
            self._map = None
