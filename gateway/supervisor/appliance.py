"""The running appliance: what the supervisor's parts tell each other, from start to orderly end."""

from __future__ import annotations

import asyncio
import gc
import logging
import secrets
import signal
import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING

from gateway import __version__, uncompiled
from gateway.core.errors import LedgerError
from gateway.link import protocol
from gateway.settings.schema import Settings
from gateway.supervisor import beat
from gateway.supervisor.listen import StartError, url
from gateway.supervisor.revisions import Revisions
from gateway.supervisor.workers import Process, Workers

if TYPE_CHECKING:  # at run time these are imported while the workers start
    from gateway.core.store import LedgerStore
    from gateway.supervisor.admin import Admin
    from gateway.supervisor.audit import Keeper
    from gateway.supervisor.batch import Batch
    from gateway.supervisor.books import Books
    from gateway.supervisor.directory import Directory
    from gateway.supervisor.limits import Limits
    from gateway.supervisor.lookout import Lookout
    from gateway.supervisor.neighbours import Neighbours
    from gateway.supervisor.report import Report
    from gateway.supervisor.turnover import Turnover

log = logging.getLogger("penstock")

_CONFIG_POLL = 0.5  # seconds
_KEYS_POLL = 0.4  # a revoked key must be refused within a second
_LIMITS_TICK = 0.1
_LOOKOUT = 1.0
_TIDY = 5.0
_STILLBORN = 5  # workers that may end before the first one is ready
_LATE = 10.0  # seconds that workers may stay beyond the drain time before they are killed


class Appliance:
    """The supervisor's parts and what they say to each other."""

    _report: Report
    _ledger: LedgerStore
    _directory: Directory
    _keeper: Keeper
    _neighbours: Neighbours
    _books: Books
    _limits: Limits
    _admin: Admin
    _lookout: Lookout
    _turnover: Turnover

    def __init__(
        self, revisions: Revisions, data: Path, data_port: socket.socket, admin_port: socket.socket
    ) -> None:
        self._revisions = revisions
        self._data = data
        self._data_port = data_port
        self._admin_port = admin_port
        self._boot = f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}{secrets.token_hex(2)}"
        self._failure = ""  # why there was nothing to start with
        self._served = asyncio.Event()
        self._stopping = asyncio.Event()
        self._hurried = asyncio.Event()
        self._composed = False
        self._stillborn = 0  # workers that ended before they were ready
        self._chores: list[asyncio.Task[None]] = []
        self._workers = Workers(
            data_port, data / "journal", self._boot, self._started, self._received, self._ended
        )

    async def run(self) -> int:
        """Serve until a signal ends it. Gives the exit status; raises `StartError`."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop)
        loop.add_signal_handler(signal.SIGHUP, self._hang_up)
        settings = self._revisions.current
        self._workers.start(settings)
        try:
            self._compose(settings)
        except BaseException:
            self._workers.kill()
            raise
        try:
            await self._open(settings)
            await self._first_ready()
            # As in a worker: what was made until here stays, and nearly all that follows has no cycles.
            gc.collect()
            gc.freeze()
            gc.set_threshold(10_000, 20, 50)
            await self._stopping.wait()
        finally:
            status = await self._end()
        if self._failure:
            raise StartError(self._failure)
        return status

    def _stop(self) -> None:
        """The first signal drains, the second ends at once."""
        if self._stopping.is_set():
            self._hurried.set()
        self._stopping.set()
        self._report.draining = True

    def _hang_up(self) -> None:
        if self._composed:
            self._turnover.hang_up()

    # -- start

    def _compose(self, settings: Settings) -> None:
        """The supervisor's own parts. Imported only here: meanwhile the workers are starting."""
        from gateway import registry
        from gateway.supervisor import limits
        from gateway.supervisor.admin import Admin
        from gateway.supervisor.audit import Keeper
        from gateway.supervisor.books import Books
        from gateway.supervisor.capture import Texts
        from gateway.supervisor.counting import Counting
        from gateway.supervisor.herald import Herald
        from gateway.supervisor.lookout import Lookout
        from gateway.supervisor.neighbours import Neighbours
        from gateway.supervisor.replica import replica_id
        from gateway.supervisor.report import Report
        from gateway.supervisor.turnover import Turnover

        for warning in settings.warnings:
            log.warning("%s", warning)
        where = url(self._data_port, bool(settings.server.tls))
        report = self._report = Report(settings, self._workers, self._revisions, where)
        self._lookout = Lookout(self._revisions, report, self._workers)
        self._ledger = registry.ledger(settings, self._data, replica_id(self._data))
        self._books = Books(
            self._ledger, self._data / "journal", Counting(settings), self._posted, self._lookout.troubled
        )
        keep = (self._data, replica_id(self._data), self._ledger, self._books.do)
        self._limits = limits.made(settings, *keep, self._workers.send, report.metrics, self._lookout.tell)
        self._lookout.open(settings)
        herald = Herald(self._workers, self._limits, self._lookout)
        self._keeper = Keeper(self._ledger, self._books.do, self._data, settings.state.keep.audit)
        self._neighbours = Neighbours(settings, self._ledger, self._books.do, herald.tell, self._keeper)
        self._directory = self._neighbours.directory
        for process in self._workers.running.values():
            self._books.follow(process.source)
        self._books.texts = Texts(self._workers.seal, self._ledger, report.metrics.count)
        self._books.keep = settings.state.keep
        self._turnover = Turnover(
            self._revisions, self._workers, report, self._lookout, self._books, self._limits, self._directory,
            self._keeper,
        )  # fmt: skip
        self._admin = self._turnover.admin = Admin(
            report, self._revisions, self._workers, self._limits, self._directory, self._ledger,
            self._books.do, self._data, self._lookout.jwks, self._turnover.reload,
        )  # fmt: skip
        herald.also = self._admin.operators.hear
        self._composed = True
        self._admin.open(self._admin_port)

    async def _open(self, settings: Settings) -> None:
        """The ledger, the keys, what earlier runs left behind, and what the limits have seen already."""
        from gateway.supervisor import keys
        from gateway.supervisor.late import inherited

        try:
            await self._books.do(self._books.open)
            self._limits.earlier = inherited(self._data / "journal", self._boot)
            self._books.inherit(self._boot)
            await self._books.catch_up()
            await self._limits.restore()
            first = await self._books.do(lambda: keys.first(self._ledger, settings))
            await self._directory.poll()  # what a worker waits for before it accepts
        except LedgerError as error:
            raise StartError(f"the ledger can't be used: {error}") from error
        if first:
            print(keys.welcome(first, url(self._data_port, bool(settings.server.tls)), settings), flush=True)
        self._admin.welcome()
        self._chores = [
            asyncio.create_task(beat.forever(pause, chore))
            for pause, chore in (
                (_KEYS_POLL, self._directory.poll),
                (_CONFIG_POLL, self._turnover.poll),
                (_LIMITS_TICK, self._limits.tick),
                (_LOOKOUT, self._lookout.look),
                (_TIDY, self._books.tidy),
            )
        ]
        self._books.start()
        self._neighbours.open()
        await self._keeper.began(settings.revision)
        await self._admin.desk.keep()

    async def _first_ready(self) -> None:
        """Wait for the first worker, or for the end."""
        waits = [asyncio.create_task(event.wait()) for event in (self._served, self._stopping)]
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()
        if self._served.is_set():
            tls = bool(self._revisions.current.server.tls)
            where = url(self._data_port, tls), url(self._admin_port)
            log.info("penstock %s serves %s, admin port %s", __version__, *where)
            log.info("the hot path %s", f"runs as Python: {uncompiled}" if uncompiled else "is compiled")

    def _posted(self, batch: Batch) -> None:
        """Calls have been booked."""
        self._report.posted(batch)
        self._limits.posted(batch.sheets)
        self._limits.recounted(batch.recounted)

    # -- workers

    def _started(self, process: Process) -> None:
        """A worker has been started; the first ones are, before there are books."""
        if self._composed:
            self._books.follow(process.source)
        if process.replaces:
            self._lookout.restarted(process.number)

    def _received(self, process: Process, message: protocol.Message) -> None:
        match message["t"]:
            case "ready":
                self._served.set()
                self._report.workers()
            case "failed":
                self._failed(process, message["revision"])
            case "kid" | "stat":
                self._lookout.received(process.number, message)
            case _:
                self._limits.receive(process.number, message)

    def _failed(self, process: Process, revision: str) -> None:
        """A revision can't be served: the one before it comes back, or there is nothing to start with."""
        why = f"no worker can serve this configuration: {process.failure}"
        if not self._served.is_set():
            self._failure = why
            self._stopping.set()
        else:
            self._turnover.unfit(revision, why)

    def _ended(self, process: Process) -> None:
        self._stillborn += not process.revision
        if not self._served.is_set() and self._stillborn >= _STILLBORN and not self._stopping.is_set():
            self._failure = "workers end before they are ready; what they said stands above"
            self._stopping.set()
        self._report.metrics.gone(process.number)
        self._report.workers()
        self._books.ended(process.source, self._limits.lost(process.number))

    # -- the end

    async def _end(self) -> int:
        """Drain, book everything, let go. 1 when it had to be cut short."""
        self._stopping.set()
        self._report.draining = True
        self._data_port.close()
        drain = self._revisions.current.server.bounds.drain
        log.info("draining: running calls have %g s", drain)
        self._workers.drain(drain)
        orderly = await self._workers.gone(drain + _LATE, self._hurried)
        if not orderly:
            self._workers.kill()
            await self._workers.gone(_LATE)
        for chore in self._chores:
            chore.cancel()
        await self._neighbours.close()
        await self._keeper.ended(self._revisions.current.revision, orderly)
        await self._books.close()
        await self._limits.close()
        await self._admin.close()
        await self._lookout.close()
        self._report.close()
        return 0 if orderly else 1
