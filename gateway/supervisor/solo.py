"""The whole gateway in one process, for any ASGI server: `gateway.front.asgi:app`.

Its own limits and ledger, no supervisor: no restarts, no reload but of providers' credentials, no admin port.
What it books survives its death all the same: the next start, of either form, takes it up.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

from gateway import registry
from gateway.compose import Composer, retire
from gateway.core.keys import Keys
from gateway.core.parts import Parts
from gateway.core.ports import Backend
from gateway.link import lock
from gateway.link.journal import JournalWriter
from gateway.link.leases import LeaseClient
from gateway.link.seal import Seal
from gateway.live import Live
from gateway.observe.log import CallLog
from gateway.pipeline import Pipeline
from gateway.settings.schema import Bounds, Settings
from gateway.supervisor import keys
from gateway.supervisor.audit import Keeper
from gateway.supervisor.batch import Batch
from gateway.supervisor.books import Books
from gateway.supervisor.capture import Texts
from gateway.supervisor.counting import Counting
from gateway.supervisor.directory import Directory, News
from gateway.supervisor.jwks import Jwks
from gateway.supervisor.limits import Limits, sharing_of
from gateway.supervisor.main import data_dir
from gateway.supervisor.neighbours import Neighbours
from gateway.supervisor.renewal import Renewal
from gateway.supervisor.replica import replica_id
from gateway.supervisor.revisions import Revisions

log = logging.getLogger("penstock")

_TIDY = 60.0  # seconds between two looks for captures to be removed
_RENEWAL = 0.5  # seconds between two looks at secrets
_TICK = 0.1  # seconds between two looks at limits, keys and the journal's next segment


@contextlib.asynccontextmanager
async def solo(path: str | None) -> AsyncIterator[tuple[Live, Bounds]]:
    """The running pipeline of the configuration at `path`. Raises `ConfigError`, `StartError`."""
    revisions = Revisions(Path(path) if path else None, os.environ)
    settings = revisions.current
    with data_dir(Path(settings.server.data_dir)) as data, _journal(data / "journal", settings) as journal:
        gateway = Solo(revisions, data, *journal)
        try:
            yield await gateway.open(), settings.server.bounds
        finally:
            await gateway.close()


@contextlib.contextmanager
def _journal(journals: Path, settings: Settings) -> Iterator[tuple[str, JournalWriter]]:
    """A journal of our own, locked for as long as we live: its name and its writer."""
    source = f"solo{secrets.token_hex(6)}-0"
    (journals / source).mkdir(parents=True)
    held = lock.hold(journals / source / "lock")
    assert held is not None  # the directory is new
    try:
        yield source, JournalWriter(journals / source, settings.server.bounds.connections)
    finally:
        os.close(held)


class Solo:
    """What is otherwise divided between supervisor and worker."""

    def __init__(self, revisions: Revisions, data: Path, source: str, journal: JournalWriter) -> None:
        settings = self._settings = revisions.current
        self._renewal = Renewal(revisions)
        self._retiring: set[asyncio.Task[None]] = set()
        self._source = source
        self._journal = journal
        self._counts: dict[tuple[str, ...], float] = {}
        self._keys = Keys()
        self._jwks = Jwks(self._rekeyed, self._unfetched, lambda *labels: None)
        self._calls = CallLog(settings.observe.calls)
        self._ledger = registry.ledger(settings, data, replica_id(data))
        self._seal = Seal.fresh()
        self._books = Books(
            self._ledger,
            data / "journal",
            Counting(settings),
            posted=self._posted,
            troubled=lambda seconds: None,
        )
        self._books.texts = Texts(self._seal, self._ledger)
        self._books.keep = settings.state.keep
        sharing = sharing_of(settings, data, replica_id(data), lambda *_: None)
        self._limits = Limits(settings.limits, self._ledger, self._books.do, self._granted, sharing=sharing)
        keeper = Keeper(self._ledger, self._books.do, data, settings.state.keep.audit)
        self._neighbours = Neighbours(settings, self._ledger, self._books.do, self._told, keeper)
        self._directory = self._neighbours.directory
        self._leases = LeaseClient(self._asked, counts=self._counts, prompt=True)
        self._composer = Composer(self._parts, registry.backend, registry.stages)
        self._live: Live | None = None
        self._chore: asyncio.Task[None] | None = None

    def _posted(self, batch: Batch) -> None:
        self._calls.write(batch.lines, bare=True)
        self._limits.recounted(batch.recounted)

    def _granted(self, worker: int, message: dict[str, Any]) -> None:
        self._leases.receive(message)

    def _rekeyed(self, message: dict[str, Any]) -> None:
        self._keys.renew()

    def _unfetched(self, url: str, why: str) -> None:
        log.warning("the key set %s can't be fetched: %s", url, why)

    def _asked(self, message: dict[str, Any]) -> None:
        self._limits.receive(0, message)

    def _parts(self, **revised: Any) -> Parts:
        same: dict[str, Any] = {"keys": self._keys, "leases": self._leases, "counts": self._counts}
        same["key_set"] = self._jwks.key_set
        return Parts(worker=0, journal=self._journal, seal=self._seal.close, **same, **revised)

    async def open(self) -> Live:
        """Take up what was left behind, then be ready."""
        await self._books.do(self._books.open)
        self._books.inherit(self._source.removesuffix("-0"))
        self._books.follow(self._source)
        await self._books.catch_up()
        await self._limits.restore()
        first = await self._books.do(lambda: keys.first(self._ledger, self._settings))
        if first:
            print(f"A first key was made; it is shown only now:  {first}", flush=True)
        await self._directory.poll()
        pipeline, _ = await self._composer.compose(self._settings)
        self._live = Live(pipeline)
        self._jwks.configure(self._settings.auth.jwt)
        self._books.start()
        self._neighbours.open()
        self._chore = asyncio.create_task(self._look())
        return self._live

    def _told(self, directory: Directory, news: News) -> None:
        self._keys.replace(directory.keys(), directory.tenants())

    async def _look(self) -> None:
        loop, tidy, renewed = asyncio.get_running_loop(), 0.0, 0.0
        while True:
            await asyncio.sleep(_TICK)
            await self._limits.tick()
            self._journal.prepare()
            await self._directory.poll()
            if loop.time() >= renewed:
                renewed = loop.time() + _RENEWAL
                await self._renew()
            if loop.time() >= tidy:
                tidy = loop.time() + _TIDY
                await self._books.tidy()

    async def _renew(self) -> None:
        """Calls under way end with the credentials that they began with."""
        settings = await self._renewal.look()
        if settings is None or self._live is None:
            return
        try:
            pipeline, dropped = await self._composer.compose(settings)
        except Exception as error:
            log.error("new credentials can't be taken", exc_info=error)
            return
        self._live.swap(pipeline, lambda old: self._retire(old, dropped))

    def _retire(self, pipeline: Pipeline, dropped: list[Backend]) -> None:
        task = asyncio.create_task(retire(pipeline, dropped))
        self._retiring.add(task)
        task.add_done_callback(self._retiring.discard)

    async def close(self) -> None:
        """The server has ended its calls: book them, and let go."""
        if self._chore is not None:
            self._chore.cancel()
        await self._jwks.close()
        if self._live is not None:
            await retire(self._live.pipeline, self._composer.backends)
            self._books.ended(self._source, self._limits.lost(0))
        await self._neighbours.close()
        await self._books.close()
        await self._limits.close()
        self._journal.close()
        self._calls.close()
