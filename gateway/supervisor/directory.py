"""What workers must know beside their settings: keys and tenants, and what limits were raised by.

It keeps what the ledger and the file hold in memory, notices every change within a beat, whoever made it,
and passes on what is new. `Directory.change` is the way in for changes made in this process.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

from gateway.core.errors import LedgerError
from gateway.core.group import Tenant, tenant_of
from gateway.core.limit import Raise
from gateway.core.principal import KeyEntry, entry_of
from gateway.core.records import KEY, RAISE, TENANT, Change, Entity, Records
from gateway.link import protocol
from gateway.settings.schema import Settings
from gateway.supervisor.audit import Keeper
from gateway.supervisor.clerk import InThread
from gateway.supervisor.replicas import Bell, Replicas

log = logging.getLogger("penstock.directory")


@dataclass(slots=True)
class News:
    """What has changed. `whole`: all of it is new; else `keys` are new or changed, `gone` ids of keys."""

    whole: bool = False
    keys: list[KeyEntry] = field(default_factory=list)
    gone: list[str] = field(default_factory=list)
    tenants: bool = False
    raises: bool = False


class Directory:
    """`tell` hears of all that changes, in order; it must not fail."""

    def __init__(
        self,
        records: Records,
        do: InThread,
        settings: Settings,
        tell: Callable[[Directory, News], None],
        keeper: Keeper | None = None,
        others: Replicas | Bell | None = None,
    ) -> None:
        self._records = records
        self._do = do
        self._settings = settings
        self._tell = tell
        self._keeper = keeper
        self.others = others
        self._stamp = -1
        self._known: dict[str, dict[str, Any]] = {KEY: {}, TENANT: {}, RAISE: {}}
        self._again = False
        self._nudged: asyncio.Task[None] | None = None
        self._lock = asyncio.Lock()  # one look at a time: news go out in order

    # -- what there is

    def keys(self) -> list[KeyEntry]:
        """All keys, the file's last: of the same secret the file's counts."""
        return [*self._known[KEY].values(), *self._settings.keys]

    def tenants(self) -> list[Tenant]:
        """All tenants; of the same name the file's counts."""
        filed = self._settings.tenants
        made = [tenant for name, tenant in self._known[TENANT].items() if name not in filed]
        return [*made, *filed.values()]

    def raises(self) -> list[Raise]:
        """Raises that are not over."""
        now = time.time()
        return [each for each in self._known[RAISE].values() if each.until > now]

    def message(self) -> protocol.Message:
        """All of it, for a worker."""
        return protocol.keys(self.keys(), self.tenants())

    def message_of(self, news: News) -> protocol.Message | None:
        """What is new, for workers that knew all before; None where it is nothing to them."""
        if news.whole:
            return self.message()
        if not (news.keys or news.gone or news.tenants):
            return None
        return protocol.key_changes(news.keys, news.gone, self.tenants() if news.tenants else None)

    # -- what changes

    async def replace_settings(self, settings: Settings) -> None:
        """Another revision serves: what the file says of keys and tenants may be different."""
        async with self._lock:
            before, self._settings = self._settings, settings
            news = await self._look() or News()
            if (before.keys, before.tenants) != (settings.keys, settings.tenants):
                news = News(whole=True, tenants=True)
            news.raises = True
            self._tell(self, news)

    async def change(self, change: Change) -> Entity:
        """Make a change and pass it on before this returns. Raises `Conflict`, `LedgerError`."""
        async with self.others.turn() if self.others is not None else nullcontext():
            entity = await self._do(lambda: self._records.change(change))
            await self._news()
        return entity

    async def poll(self) -> None:
        """Look for changes; to be called some times a second, and after changes that were made elsewhere."""
        if self._stamp >= 0 or self.others is None:
            await self._news()
        # Before anybody is served, what others have revoked is asked for.
        if self.others is not None and (await self.others.sync() or self._stamp < 0):
            await self._news()

    def nudge(self) -> None:
        """Look at once; for the event loop's own thread. Never fails."""
        self._again = True
        if self._nudged is None or self._nudged.done():
            self._nudged = asyncio.get_running_loop().create_task(self._look_again())

    async def _look_again(self) -> None:
        while self._again:
            self._again = False
            try:
                await self.poll()
            except LedgerError as error:
                log.error("what has changed can't be read; it is tried again: %s", error)

    async def _news(self) -> None:
        async with self._lock:
            news = await self._look()
            if news is not None:
                self._tell(self, news)

    async def _look(self) -> News | None:
        stamp, fresh = await self._do(self._fresh)
        if stamp == self._stamp:
            return None
        news = News(whole=self._stamp < 0)
        self._stamp = stamp
        for entity in fresh:
            self._take(entity, news)
        news.tenants |= news.whole
        news.raises |= news.whole
        return news

    def _fresh(self) -> tuple[int, Sequence[Entity]]:
        """In the ledger's thread. The stamp first: what comes between is seen twice, not missed."""
        if self._keeper is not None:
            self._keeper.tend()
        stamp = self._records.stamp()
        return stamp, self._records.since(self._stamp) if stamp != self._stamp else ()

    def _take(self, entity: Entity, news: News) -> None:
        known = self._known.get(entity.kind)
        if known is None:
            return
        found = None if entity.deleted else _understood(entity)
        if found is not None:
            known[entity.id] = found
        else:
            known.pop(entity.id, None)
        if entity.kind == KEY and found is not None:
            news.keys.append(found)
        elif entity.kind == KEY:
            news.gone.append(entity.id)
        news.tenants |= entity.kind == TENANT
        news.raises |= entity.kind == RAISE


def _understood(entity: Entity) -> Any:
    """The entity as what it is; None where a newer version of the program wrote what this one can't read.

    Then it is as if it were not there: a key that is not understood admits nobody.
    """
    try:
        if entity.kind == KEY:
            return entry_of(entity.document)
        if entity.kind == TENANT:
            return tenant_of(entity.document)
        return Raise(**entity.document)
    except (TypeError, ValueError, AttributeError) as error:
        log.error("%s %s can't be understood and is left out: %s", entity.kind, entity.id, error)
        return None
