"""Keys, tenants and raises of replicas that have a ledger each: told to one another through a shared store.

Each replica's ledger is the truth of what it was told; the store holds the newest of everything, and a
counter that moves with every change. Nothing depends on a message arriving: who has missed some, or was
away, reads on from the counter it had reached. A store that comes back empty, or with an older state, has
another era, or a lower counter: then everybody compares all again. Where two changed the same thing while
they could not talk, `core.records.merged` says what holds, on every replica the same.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from typing import Any

from gateway.core.codec import JSONError, canonical, loads
from gateway.core.records import TOMBSTONES_MS, Conflict, Entity, Records
from gateway.core.replication import EntityStore, Put, StoreAway
from gateway.supervisor.clerk import InThread

log = logging.getLogger("penstock.replicas")

_PAGE = 100  # entities read or written in one step
_HOLD = 2000  # milliseconds after which a dead replica's turn is over
_PATIENCE = 3.0  # seconds to wait for another replica's turn
_RETRY = 0.02
_BEHIND = 1 << 53  # of a counter: every store is behind it
_ROUNDS = 8  # rounds until what others write meanwhile can wait for the next look


class Replicas:
    """Keeps this replica's ledger and the shared store the same. `lost` says whether the store is away."""

    def __init__(self, store: EntityStore, records: Records, do: InThread) -> None:
        self.lost = False
        self._store = store
        self._records = records
        self._do = do
        self._era = ""
        self._n = 0  # how far the store's changes are known here
        self._mark = ""  # the name of the last of them
        self._stamp = -1  # how far ours are known there
        self._theirs: dict[str, str] = {}  # name → hash of what stands in the store
        self._stale: list[str] = []  # deleted so long ago that nobody need know it any more
        self._adopted = 0
        self._lock = asyncio.Lock()
        self._turns = asyncio.Lock()

    # -- in step

    async def sync(self) -> int:
        """Take what others changed and give what was changed here; how many were taken.

        Where the store is away nothing happens, and `lost` says so.
        """
        async with self._lock:
            self._adopted = 0
            await self._tried()
            return self._adopted

    async def _tried(self) -> None:
        try:
            for _ in range(_ROUNDS):
                await self._pull()
                if await self._push():
                    break
        except StoreAway as error:
            self._away(error)
            return
        if self.lost:
            log.info("keys and tenants of other replicas are known again")
        self.lost = False

    @contextlib.asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """What is changed inside is changed by one replica at a time, on the newest state of all.

        While the store is away each replica changes its own, and they agree later. Raises `Conflict` where
        another replica keeps the turn for too long.
        """
        async with self._turns:
            token = secrets.token_hex(8)
            held = await self._held(token)
            try:
                if held:
                    await self.sync()
                yield
                if held:
                    await self.sync()
            finally:
                if held:
                    with contextlib.suppress(StoreAway):
                        await self._store.release(token)

    async def _held(self, token: str) -> bool:
        if self.lost:
            return False
        deadline = time.monotonic() + _PATIENCE
        try:
            while not await self._store.hold(token, _HOLD):
                if time.monotonic() > deadline:
                    raise Conflict("another replica is making a change and does not end; try again")
                await asyncio.sleep(_RETRY)
        except StoreAway as error:
            self._away(error)
            return False
        return True

    def _away(self, error: StoreAway) -> None:
        if not self.lost:
            log.warning("keys and tenants of other replicas can't be had for now: %s", error)
        self.lost = True

    # -- what others changed

    async def _pull(self) -> None:
        era, n, place = await self._store.look(self._mark)
        # Back at an older state, perhaps grown again since: others, who had seen less, shall find out too.
        if era == self._era and (n < self._n or place < self._n):
            await self._store.put(era, _BEHIND, secrets.token_hex(8), ())
            era, n, _ = await self._store.look("")
        if era != self._era:
            if self._era:
                log.info("the shared store has lost something: all keys and tenants are compared")
            self._forget(era)
        while self._n < n:
            page = await self._store.page(self._n, _PAGE)
            if not page:
                return
            await self._adopt([(name, text) for _, name, text in page])
            self._n, self._mark, _ = page[-1]

    def _forget(self, era: str) -> None:
        self._era, self._n, self._mark, self._stamp = era, 0, "", -1
        self._theirs.clear()

    async def _adopt(self, written: Iterable[tuple[str, bytes]]) -> None:
        entities: list[Entity] = []
        read: dict[str, str] = {}
        for name, text in written:
            read[name] = _hash(text)
            if self._theirs.get(name) == read[name]:
                continue  # our own
            entity = _entity(name, text)
            if entity is not None and _forgotten(entity):
                self._stale.append(name)
            elif entity is not None:
                entities.append(entity)
        if entities:
            self._adopted += await self._do(lambda: self._records.adopt(entities))
        self._theirs |= read  # only now: what the ledger could not take is read again

    # -- what was changed here

    async def _push(self) -> bool:
        """False where something must be read again first."""
        stamp, changed = await self._do(self._changed)
        for start in range(0, len(changed), _PAGE):
            puts = [_put(entity, self._theirs) for entity in changed[start : start + _PAGE]]
            puts = [put for put in puts if put.seen != _hash(put.text)]
            if puts and not await self._write(puts):
                return False
        self._stamp = stamp
        while self._stale:
            names, self._stale = self._stale[:_PAGE], self._stale[_PAGE:]
            await self._write([Put(name, self._theirs.get(name, ""), b"") for name in names])
        return True

    def _changed(self) -> tuple[int, list[Entity]]:
        """In the ledger's thread."""
        stamp = self._records.stamp()
        changed = self._records.since(self._stamp) if stamp != self._stamp else []
        return stamp, [entity for entity in changed if not _forgotten(entity)]

    async def _write(self, puts: Sequence[Put]) -> bool:
        fresh = secrets.token_hex(8)
        era, instead = await self._store.put(self._era, self._n, fresh, puts)
        if not instead:
            return False  # it has another era: `_pull` finds that
        self._era = era
        other: list[tuple[str, bytes]] = []
        for put, there in zip(puts, instead, strict=True):
            if there is None and put.text:
                self._theirs[put.name] = _hash(put.text)
            elif there:
                other.append((put.name, there))
            else:  # nothing stands there
                self._theirs.pop(put.name, None)
        await self._adopt(other)
        return not any(there is not None for there in instead)


class Bell:
    """Replicas that share one ledger: they only tell one another when to look."""

    def __init__(self, ring: Callable[[], Awaitable[None]]) -> None:
        self.lost = False
        self._ring = ring  # raises `StoreAway`

    async def sync(self) -> int:
        """Nothing: what others changed stands in the ledger."""
        return 0

    @contextlib.asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Tell the others after what is changed inside; those who miss it look a little later."""
        yield
        with contextlib.suppress(StoreAway):
            await self._ring()


def _forgotten(entity: Entity) -> bool:
    return entity.deleted and entity.changed_ms < int(time.time() * 1000) - TOMBSTONES_MS


def _put(entity: Entity, theirs: dict[str, str]) -> Put:
    name = f"{entity.kind}:{entity.id}"
    said: dict[str, Any] = {
        "version": entity.version,
        "changed_ms": entity.changed_ms,
        "deleted": entity.deleted,
        "document": entity.document,
    }
    return Put(name, theirs.get(name, ""), canonical(said))


def _entity(name: str, text: bytes) -> Entity | None:
    kind, _, id = name.partition(":")
    try:
        said = loads(text)
        return Entity(
            kind,
            id,
            int(said["version"]),
            dict(said["document"]),
            int(said["changed_ms"]),
            bool(said["deleted"]),
        )
    except (JSONError, KeyError, TypeError, ValueError) as error:
        log.error("%s in the shared store can't be understood and is left out: %s", name[:128], error)
        return None


def _hash(text: bytes) -> str:
    return hashlib.sha1(text, usedforsecurity=False).hexdigest()
