"""The ledger's writer: follows every journal and books each call exactly once.

Rows and read offsets move in one transaction, so a supervisor killed at any instruction leaves
nothing to lose or to double. A journal whose worker has died gets one last transaction: the
open calls as `abandoned` rows, and an offset that says that it is finished. Only then is its
directory removed. All of the ledger lives in one thread; one task drives it.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import os
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

from gateway.core.codec import dumps
from gateway.core.errors import LedgerError
from gateway.core.keep import Keep
from gateway.core.ports import Ledger
from gateway.core.record import abandoned
from gateway.core.sheet import tabulated
from gateway.link import lock
from gateway.link.journal import JournalReader
from gateway.settings.schema import Settings
from gateway.supervisor import beat
from gateway.supervisor.batch import Batch, Doubtful, batched, opened_calls
from gateway.supervisor.capture import Texts
from gateway.supervisor.clerk import Clerk
from gateway.supervisor.counting import Counting
from gateway.supervisor.vigil import Vigil

log = logging.getLogger("penstock.ledger")

FINISHED = 1 << 62  # the offset of a journal of which nothing is left to book
_PAUSE = 0.1  # seconds between two looks at the journals
# After one that found something: where calls go on, what comes together is booked at once. A commit costs as
# much as some fifty calls.
_GATHERING = 0.2
_ORPHANS = 0.5  # seconds between two looks whether a worker of an earlier supervisor still lives
_RETRY = 1.0  # seconds after a commit that failed
_BATCH = 2000  # records of one transaction

T = TypeVar("T")


class Books:
    """`posted` is told what was committed, `troubled` for how long nothing can be (0.0: over)."""

    def __init__(
        self,
        ledger: Ledger,
        journals: Path,
        counting: Counting,
        posted: Callable[[Batch], None],
        troubled: Callable[[float], None],
    ) -> None:
        self.counting = counting
        self.texts = Texts()
        self.keep = Keep()
        self._ledger = ledger
        self._journals = journals
        self._posted = posted
        self._troubled = troubled
        self._vigil = Vigil(troubled, ledger.give_up)
        self._clerk = Clerk("ledger")
        self._readers: dict[str, JournalReader] = {}
        self._offsets: dict[str, int] = {}
        self._orphans: set[str] = set()
        self._ended: dict[str, Callable[[], Awaitable[None]]] = {}
        self._failing = 0.0  # since when
        self._doubtful: Doubtful | None = None
        self._looked = 0.0  # for orphans
        self._stopping = False
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None

    async def do(self, work: Callable[[], T]) -> T:
        """Run a piece of work in the ledger's thread."""
        return await self._clerk.do(work)

    # -- which journals there are

    def open(self) -> None:
        """Open the ledger and learn how far it has read. Runs in the ledger's thread."""
        self._journals.mkdir(parents=True, exist_ok=True)
        self._ledger.open()
        self._offsets = self._ledger.offsets()
        for source in self._offsets:
            if not (self._journals / source).is_dir():
                self._ledger.forget(source)

    def follow(self, source: str) -> None:
        """Read this journal from now on."""
        self._readers[source] = JournalReader(self._journals / source, self._offsets.get(source, 0))

    def ended(self, source: str, finished: Callable[[], Awaitable[None]]) -> None:
        """Its worker is dead: read it to the end, book what was open, then await `finished`."""
        self._ended[source] = finished

    def inherit(self, boot: str) -> None:
        """Take over the journals that earlier supervisors left behind; their workers may still live."""
        for directory in sorted(self._journals.iterdir()):
            if directory.is_dir() and not directory.name.startswith(f"{boot}-"):
                self.follow(directory.name)
                self._orphans.add(directory.name)

    def _release_orphans(self) -> None:
        """A worker that outlived its supervisor holds its journal's lock until its last call has ended."""
        for source in list(self._orphans):
            try:
                held = lock.hold(self._journals / source / "lock")
            except OSError as error:
                log.error("the journal %s can't be looked at: %s", source, error)
                continue
            if held is not None:
                self._orphans.discard(source)
                self.ended(source, functools.partial(_close, held))

    # -- the looks

    def start(self) -> None:
        """Book from now on."""
        self._rest(_PAUSE)

    def _rest(self, pause: float) -> None:
        if not self._stopping:
            due = beat.after(_RETRY if self._failing else pause)
            self._timer = asyncio.get_running_loop().call_at(due, self._look)

    def _look(self) -> None:
        """Most looks of a gateway at rest find nothing: they cost no task and no other thread."""
        now = time.monotonic()
        if self._orphans and now - self._looked > _ORPHANS:
            self._looked = now
            self._release_orphans()
        if self._due():
            self._task = asyncio.create_task(self._work())
        else:
            self._rest(_PAUSE)

    def _due(self) -> bool:
        try:
            return bool(self._ended) or any([reader.pending() for reader in self._readers.values()])
        except OSError:
            return True  # `catch_up` meets it again and says so

    async def _work(self) -> None:
        await self.catch_up()
        self._rest(_GATHERING)

    async def catch_up(self) -> bool:
        """Book all that stands in the journals now; False when the ledger can't."""
        try:
            with self._vigil:
                while any(reader.pending() for reader in self._readers.values()):
                    batch = await self.do(self._post)
                    self._note(batch)
                    # Less than a full batch was all there was (or a torn tail). What has come since
                    # waits for the next look: many small transactions cost several times as much.
                    if len(batch.lines) < _BATCH:
                        break
                for source in list(self._ended):
                    await self._finish(source)
        except Exception as error:
            self._fail(error)
            return False
        return True

    async def _finish(self, source: str) -> None:
        reader = self._readers.get(source)
        while reader is not None and reader.offset < FINISHED:
            batch = await self.do(lambda: self._post(source))
            self._note(batch)
            if not batch.lines:
                break
        if reader is not None:
            self._note(await self.do(lambda: self._close(source)))
        await self._ended[source]()
        del self._ended[source]

    def _note(self, batch: Batch) -> None:
        if self._failing:
            self._failing = 0.0
            self._troubled(0.0)
            log.warning("the ledger is written again")
        if batch.lines:
            self._posted(batch)
            self.texts.tell()

    def _fail(self, error: Exception) -> None:
        now = time.monotonic()
        self._failing = self._failing or now
        self._troubled(max(now - self._failing, _RETRY))
        log.error("the ledger can't be written: %s", error, exc_info=error if not str(error) else None)

    # -- in the ledger's thread

    def _post(self, only: str = "") -> Batch:
        """Read one batch, commit it with its offsets, let go of what was read."""
        booked = self._cleared()
        if booked is not None:
            return booked
        lines: list[bytes] = []
        offsets: dict[str, int] = {}
        for source, reader in self._readers.items():
            if only in ("", source) and len(lines) < _BATCH:
                got = reader.read(_BATCH - len(lines))
                if got:
                    lines += got
                    offsets[source] = reader.offset
        try:
            batch = self._booked(lines, offsets)
        except BaseException:
            for source in offsets:
                self._readers[source].rewind(self._offsets.get(source, 0))
            raise
        self._moved(offsets)
        return batch

    def _booked(self, lines: list[bytes], offsets: dict[str, int]) -> Batch:
        batch = batched(lines, self.counting, self.texts)
        if offsets:
            self._commit(batch, offsets)
        return batch

    def _commit(self, batch: Batch, offsets: dict[str, int]) -> None:
        try:
            self._ledger.book(batch.sheets, offsets)
        except LedgerError:
            self._doubtful = Doubtful(offsets, batch)
            raise

    def _cleared(self) -> Batch | None:
        """The batch whose commit failed, should the ledger have it after all."""
        doubtful = self._doubtful
        if doubtful is None:
            return None
        booked = doubtful.booked(self._ledger.offsets())
        self._doubtful = None
        if not booked:
            return None
        for source, offset in doubtful.offsets.items():
            self._readers[source].rewind(offset)
        self._moved(doubtful.offsets)
        return doubtful.batch

    def _moved(self, offsets: dict[str, int]) -> None:
        self._offsets.update(offsets)
        for source, offset in offsets.items():
            if offset < FINISHED:
                self._readers[source].committed(offset)

    def _close(self, source: str) -> Batch:
        """The last transaction of a journal: the calls that were under way; then it is gone."""
        reader = self._readers[source]
        batch = self._cleared() or Batch([], [])
        if self._offsets.get(source, 0) < FINISHED:
            records = list(map(abandoned, opened_calls(reader)))
            batch = Batch(list(map(dumps, records)), tabulated(records))
            self._commit(batch, {source: FINISHED})
            self._offsets[source] = FINISHED
        reader.remove()
        self._ledger.forget(source)
        del self._readers[source], self._offsets[source]
        if batch.lines:
            log.warning("%d calls of a worker that died are booked as abandoned", len(batch.lines))
        return batch

    async def tidy(self) -> None:
        """A chore: sum up what was booked, remove what has been kept for long enough; in small steps."""
        while await self.do(self.texts.tidy):
            pass
        while await self.do(lambda: self._ledger.tidy_calls(self.keep, time.time())):
            await asyncio.sleep(0)  # what is to be booked goes first

    def adopt(self, settings: Settings) -> None:
        """Another revision: its prices, and for how long it keeps."""
        self.counting = Counting(settings)
        self.keep = settings.state.keep

    async def close(self) -> None:
        """Book what there is, then close ledger and thread. What can't be booked stays for the next start."""
        self._stopping = True
        if self._timer is not None:  # it has been started
            self._timer.cancel()
            if self._task is not None:
                await self._task
            await self.catch_up()
        for reader in self._readers.values():
            reader.close()
        await self.do(self._ledger.close)
        self._clerk.close()


async def _close(fd: int) -> None:
    os.close(fd)
