"""The admin API over a real ledger and directory, without processes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import httpx

from gateway.control.app import build
from gateway.control.changes import stale
from gateway.control.operator import ADMIN, Operator
from gateway.control.port import Applied, Wanted
from gateway.core.keys import Keys
from gateway.core.limit import LimitRule
from gateway.core.principal import KeyEntry, digest
from gateway.core.records import Actor, Change, Entity
from gateway.core.rights import OPERATORS
from gateway.observe.metrics import Metrics
from gateway.settings.schema import Settings
from gateway.stores.sqlite import SqliteLedger
from gateway.supervisor.directory import Directory

T = TypeVar("T")

TOKEN = "psa-canary-admin-token-0123456789"
SETTINGS = Settings(
    revision="r1",
    path="gateway.toml",
    limits=(
        LimitRule("rpm", ("key",), "requests", 5, 60.0),
        LimitRule("money", ("tenant",), "usd", 25_000_000, calendar="month"),
    ),
    keys=(KeyEntry("key_file", "filed", digest(b"filed")),),
)


class Desk:
    """`control.port.Desk` on one SQLite file; every change goes through a real directory."""

    def __init__(self, directory: Path, settings: Settings = SETTINGS) -> None:
        self.metrics = Metrics("test")
        self.settings = settings
        self.ledger = SqliteLedger(directory / "ledger.sqlite")
        self.ledger.open()
        self._directory = Directory(self.ledger, self._in_thread, settings, lambda directory, news: None)
        self.tenants = self._directory.tenants
        self.raises = self._directory.raises
        self.applied: list[Mapping[str, str]] = []

    async def _in_thread(self, work: Callable[[], T]) -> T:
        await asyncio.sleep(0)  # other requests get their turn, as with a thread
        return work()

    def texts(self) -> Mapping[str, str]:
        return {}

    def ready(self) -> tuple[bool, dict[str, Any]]:
        return True, {}

    def status(self) -> dict[str, Any]:
        return {"revision": "r1"}

    def all_keys(self) -> list[KeyEntry]:
        return self._directory.keys()

    async def operator(self, credential: bytes, address: str) -> Operator | None:
        if credential == TOKEN.encode():
            return Operator(Actor("token", "admin", "admin token", (ADMIN,), address), (ADMIN,))
        await self._directory.poll()
        found = Keys(self.all_keys()).find(digest(credential))
        if found is None or found.key.revoked:
            return None
        roles = tuple(role for role in found.key.roles if role in OPERATORS)
        return (
            Operator(Actor("key", found.key.id, found.key.name, roles), roles, found.key) if roles else None
        )

    async def do(self, work: Callable[[SqliteLedger], T]) -> T:
        return await self._in_thread(lambda: work(self.ledger))

    async def change(self, change: Change) -> Entity:
        return await self._directory.change(change)

    async def found(self, kind: str, name: Callable[[], str]) -> Entity | None:
        entity = await self.do(lambda books: books.entity(kind, name()))
        return None if entity is None or entity.deleted else entity

    def standings(self, rule: str) -> Sequence[Mapping[str, Any]]:
        return [{"value": "k", "amount": 5, "used": 2, "leased": 1, "left": 2, "reset_s": 1.0}]

    async def apply(self, wanted: Wanted) -> Applied:
        if wanted.expect and wanted.expect != self.settings.revision:
            raise stale()
        self.applied.append(wanted.files)
        return Applied("r2")

    def given(self, key: KeyEntry, secret: str) -> None:
        """Put a key into the ledger."""
        self.ledger.add_key(replace(key, digest=digest(secret.encode())))


Session = Callable[[httpx.AsyncClient], Coroutine[Any, Any, T]]


def talk(desk: Desk, session: Session[T], token: str = TOKEN) -> T:
    """Run a conversation with the API."""

    async def run() -> T:
        transport = httpx.ASGITransport(build(desk), raise_app_exceptions=False)  # type: ignore[arg-type]
        headers = {"authorization": f"Bearer {token}"} if token else {}
        base = "http://admin/admin/v1"
        async with httpx.AsyncClient(transport=transport, base_url=base, headers=headers) as client:
            return await session(client)

    return asyncio.run(run())
