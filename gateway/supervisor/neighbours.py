"""The directory with its connection to other replicas, where state is shared."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from gateway.core.replication import StoreAway
from gateway.core.store import LedgerStore
from gateway.settings.schema import Settings
from gateway.settings.shared import store_url
from gateway.supervisor.audit import Keeper
from gateway.supervisor.clerk import InThread
from gateway.supervisor.directory import Directory, News
from gateway.supervisor.replicas import Bell, Replicas

if TYPE_CHECKING:
    from gateway.stores.redis import Channel, Store

_DEADLINE = 0.5  # seconds at least; no call waits for this


class Neighbours:
    """Made once; another store in the configuration takes effect at the next start."""

    def __init__(
        self,
        settings: Settings,
        records: LedgerStore,
        do: InThread,
        tell: Callable[[Directory, News], None],
        keeper: Keeper | None = None,
    ) -> None:
        directory = self.directory = Directory(records, do, settings, tell, keeper)
        self._store: Store | None = None
        self._channel: Channel | None = None
        shared = settings.state.shared
        if shared is None:
            return
        # Only those who share state have this package loaded.
        from gateway.stores.redis import Channel, Store
        from gateway.stores.redis.entities import CHANNEL, Entities

        store = self._store = Store(store_url(shared.reveal()), max(settings.state.timeout, _DEADLINE))
        self._channel = Channel(store, [CHANNEL], lambda name, data: directory.nudge(), directory.nudge)
        if records.common:
            directory.others = Bell(self._ring)
        else:
            directory.others = Replicas(Entities(store), records, do)

    async def _ring(self) -> None:
        from gateway.stores.redis import Lost
        from gateway.stores.redis.entities import CHANNEL

        assert self._store is not None
        try:
            await self._store.publish(CHANNEL, b"")
        except Lost as error:
            raise StoreAway(str(error)) from None

    def open(self) -> None:
        """Listen from now on. Never fails: a store that is away is asked again and again."""
        if self._channel is not None:
            self._channel.open()

    async def close(self) -> None:
        """Let go."""
        if self._channel is not None:
            await self._channel.close()
        if self._store is not None:
            await self._store.close()
