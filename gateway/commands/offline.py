"""The operations of the admin API on the ledger itself, where no gateway runs: the same checks and audit."""

from __future__ import annotations

import asyncio
import os
import pwd
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar, cast

from gateway.commands.client import Document, Told
from gateway.control import body as bodies
from gateway.control import history
from gateway.control.changes import conflicted, stale
from gateway.control.operation import Ask, Operation
from gateway.control.operator import ADMIN, Operator
from gateway.control.port import Applied, Wanted
from gateway.control.resources import config, keys, limits, tenants
from gateway.control.resources.config import written
from gateway.control.rewrite import Rewrite
from gateway.core.codec import dumps, loads
from gateway.core.errors import GatewayError
from gateway.core.group import Tenant, tenant_of
from gateway.core.limit import Raise
from gateway.core.ports import Ledger
from gateway.core.principal import KeyEntry
from gateway.core.records import RAISE, TENANT, Actor, Change, Conflict, Entity, KeptRevision
from gateway.core.store import LedgerStore
from gateway.observe.metrics import Metrics
from gateway.settings.faults import ConfigError
from gateway.settings.load import load
from gateway.settings.schema import Settings
from gateway.supervisor.limits import Limits

T = TypeVar("T")

_OPERATIONS = (*keys.OPERATIONS, *tenants.OPERATIONS, *limits.OPERATIONS, *config.OPERATIONS)


class _NoLedger:
    """A ledger that there is not yet: nothing is in it."""

    def keys(self) -> list[KeyEntry]:
        """None."""
        return []

    def entities(self, kind: str) -> list[Entity]:
        """None."""
        return []

    def entity(self, kind: str, id: str) -> Entity | None:
        """None."""
        return None

    def revisions(self, most: int = 100, before: int = 0) -> list[KeptRevision]:
        """None."""
        return []


class Offline:
    """Runs operations in this process as the user who asks, with all rights: who can write the ledger has
    them.
    """

    def __init__(self, settings: Settings, ledger: Ledger | None) -> None:
        self._desk = _Desk(settings, cast(LedgerStore, ledger or _NoLedger()), ledger is not None)
        self.settings = self._desk.settings

    def ask(
        self,
        method: str,
        *path: str,
        body: Mapping[str, Any] | None = None,
        query: Mapping[str, str] | None = None,
        version: int | str | None = None,
    ) -> Document:
        """One operation. Raises `Told` where it is refused; `LedgerError` where the ledger can't be used."""
        operation, places = _operation(method, path)
        try:
            document = asyncio.run(self._run(operation, places, body, query or {}, version))
        except (GatewayError, Conflict) as error:
            refusal = conflicted(error) if isinstance(error, Conflict) else error
            raise Told(refusal.message, refusal.code, refusal.param or "") from None
        return dict(cast(Document, loads(dumps(document))))

    async def _run(
        self,
        operation: Operation,
        places: Mapping[str, str],
        body: Mapping[str, Any] | None,
        query: Mapping[str, str],
        version: int | str | None,
    ) -> Any:
        operator = Operator(_user(), (ADMIN,))
        operator.demand(operation.permission)
        values = bodies.read(operation.body, body or {}) if operation.body is not None else {}
        if operation.path == "/limits/{limit}":
            await self._desk.count()
        match = f'"{version}"' if isinstance(version, str) else "*"
        answer = await operation.run(Ask(self._desk, operator, places, query, values, match))
        if answer.deed is not None:
            deed = answer.deed
            await self._desk.do(lambda books: books.note([deed]))
        if answer.change is None:
            return answer.document
        if version is not None and answer.change.expect != version:
            raise stale()
        entity = await self._desk.change(answer.change)
        if answer.version is not None:
            answer.document["version"] = entity.version
        return answer.document


def _operation(method: str, path: Sequence[str]) -> tuple[Operation, dict[str, str]]:
    for operation in _OPERATIONS:
        pieces = operation.path.strip("/").split("/")
        if operation.method == method and len(pieces) == len(path):
            pairs = list(zip(pieces, path, strict=True))
            if all(piece.startswith("{") or piece == given for piece, given in pairs):
                return operation, {piece.strip("{}"): given for piece, given in pairs if piece[0] == "{"}
    raise LookupError(f"no operation {method} {'/'.join(path)}")


def _user() -> Actor:
    uid = os.getuid()
    try:
        name = pwd.getpwuid(uid).pw_name
    except KeyError:
        name = f"uid {uid}"
    return Actor("cli", f"uid:{uid}", name, (ADMIN,))


class _Desk:
    """`control.port.Desk` over files alone."""

    def __init__(self, settings: Settings, books: LedgerStore, there: bool) -> None:
        self.metrics = Metrics()
        self.settings = settings
        self._texts: dict[str, str] = {}
        self._read()
        self._books = books
        self._there = there
        self._limits: Limits | None = None
        kept = books.revisions(1)
        if kept and dict(kept[0].files) == self._files():
            # Secrets that are not known here make another revision of the same text.
            self.settings = replace(settings, revision=kept[0].id)

    def _read(self) -> None:
        """Again, with the texts. Raises `ConfigError`."""
        texts: dict[str, str] = {}
        path = Path(self.settings.path) if self.settings.path else None
        self.settings = load(path, os.environ, resolve=False, texts=texts)
        self._texts = texts

    def texts(self) -> Mapping[str, str]:
        """The files as they were read."""
        return self._texts

    def _files(self) -> dict[str, str]:
        return history.masked(self._texts, self.settings)

    def ready(self) -> tuple[bool, dict[str, Any]]:
        """Nothing runs."""
        return False, {}

    def status(self) -> dict[str, Any]:
        """Nothing runs."""
        return {}

    async def operator(self, credential: bytes, address: str) -> Operator | None:
        """Nobody presents anything here."""
        return None

    def all_keys(self) -> list[KeyEntry]:
        """All keys, those of the file too."""
        return [*self._books.keys(), *self.settings.keys]

    def tenants(self) -> list[Tenant]:
        """All tenants; of the same name the file's counts."""
        filed = self.settings.tenants
        made = [tenant_of(each.document) for each in self._books.entities(TENANT) if each.id not in filed]
        return [*made, *filed.values()]

    def raises(self) -> list[Raise]:
        """Raises that are not over."""
        found = [Raise(**each.document) for each in self._books.entities(RAISE)]
        return [each for each in found if each.until > time.time()]

    async def do(self, work: Callable[[LedgerStore], T]) -> T:
        """Now: nobody else waits."""
        return work(self._books)

    async def change(self, change: Change) -> Entity:
        """Write. Raises `Conflict`, `LedgerError`."""
        return self._books.change(change)

    async def found(self, kind: str, name: Callable[[], str]) -> Entity | None:
        """An entity that is not deleted."""
        entity = self._books.entity(kind, name())
        return entity if entity is not None and not entity.deleted else None

    async def count(self) -> None:
        """How the buckets stand, from the ledger."""
        if self._there:
            self._limits = Limits(self.settings.limits, self._books, _now, lambda *_: None)
            self._limits.replace_raises(self.raises())
            await self._limits.restore()

    def standings(self, rule: str) -> Sequence[Mapping[str, Any]]:
        """As the ledger has them."""
        return self._limits.standings(rule) if self._limits is not None else ()

    async def apply(self, wanted: Wanted) -> Applied:
        """Write these files; where they have faults, they are as before. Raises `CallerError`."""
        if wanted.expect and wanted.expect != self.settings.revision:
            raise stale()
        self._keep(Actor("config", name="gateway.toml"), "")  # so that there is a way back
        fresh = Rewrite(wanted.files, wanted.gone)
        written(fresh.do)
        try:
            self._read()
        except ConfigError as error:
            written(fresh.undo)
            return Applied(self.settings.revision, str(error))
        self._keep(wanted.actor, wanted.note)
        return Applied(self.settings.revision, aside=tuple(fresh.aside))

    def _keep(self, actor: Actor, note: str) -> None:
        who = {"kind": actor.kind, "id": actor.id, "name": actor.name}
        ms = int(time.time() * 1000)
        self._books.keep_revision(KeptRevision(self.settings.revision, ms, who, self._files(), note))


async def _now(work: Callable[[], T]) -> T:
    return work()
