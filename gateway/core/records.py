"""What operators change and what is remembered of it: entities, the audit, revisions, idempotent answers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from gateway.core.codec import canonical

KEY, TENANT, RAISE = "key", "tenant", "raise"  # kinds of entities
LARGEST_ENTITY = 64 * 1024  # bytes of its document, as canonical JSON

TOMBSTONES_MS = 400 * 86_400_000  # deleted ones are remembered for so long


@dataclass(slots=True, frozen=True)
class Entity:
    """One thing made through the admin API or the command line, at one version.

    `version` counts its changes from 1; `stamp` is the place of its newest change among all changes of
    this store. A deleted one keeps its last document, so that late replicas hear of it.
    """

    kind: str
    id: str
    version: int
    document: Mapping[str, Any]
    changed_ms: int
    deleted: bool = False
    stamp: int = 0


@dataclass(slots=True, frozen=True)
class Actor:
    """Who changed something: `kind` is token, key, jwt, cli, config or call (a caller that was refused)."""

    kind: str
    id: str = ""
    name: str = ""
    roles: tuple[str, ...] = ()
    address: str = ""


@dataclass(slots=True, frozen=True)
class Deed:
    """What is to be audited. `before` and `after` are documents without anything secret."""

    actor: Actor
    action: str  # "key.create" "key.rotate" "key.revoke" "tenant.update" "config.apply" "call.refuse" …
    target: str  # "key/key_0123…", "tenant/acme", "config/REVISION", "policy/NAME"
    before: Mapping[str, Any] | None = None
    after: Mapping[str, Any] | None = None
    revision: str = ""
    detail: Mapping[str, Any] | None = None
    ts_ms: int = 0  # 0: now


@dataclass(slots=True, frozen=True)
class AuditRecord:
    """One link of an audit chain. `hash` is hex SHA-256 over all other members, `previous` included."""

    chain: str  # one chain per writing replica
    n: int  # from 1, without gaps
    ts_ms: int
    actor: Mapping[str, Any]
    action: str
    target: str
    before: Mapping[str, Any] | None
    after: Mapping[str, Any] | None
    revision: str
    detail: Mapping[str, Any] | None
    previous: str
    hash: str


@dataclass(slots=True, frozen=True)
class Answered:
    """An answer kept under an idempotency key: `fingerprint` is of the request that it answered."""

    fingerprint: str
    status: int
    body: bytes
    until_ms: int


@dataclass(slots=True, frozen=True)
class Change:
    """One write of one entity, with what must stand in the audit: all of it or nothing is done.

    `document` None deletes. `expect` is the version that must be there (0: none; None: any).
    `remember` keeps the answer under an idempotency key of that actor.
    """

    kind: str
    id: str
    document: Mapping[str, Any] | None
    deed: Deed
    expect: int | None = None
    unique: tuple[str, ...] = ()  # members whose value no other live entity of the kind may have
    remember: tuple[str, Answered] | None = None  # ("actor id/idempotency key", the answer)


def merged(mine: Entity, theirs: Entity) -> Entity:
    """What two replicas agree on when both wrote the same thing: the same whoever merges, in any order.

    The higher version wins, then a deletion, then the later time. A key that one of them revoked or deleted
    stays so, whatever the other did meanwhile.
    """
    if mine.kind != KEY:
        return max(mine, theirs, key=lambda e: (e.version, e.deleted, e.changed_ms, canonical(e.document)))
    newest = max(mine, theirs, key=lambda e: (e.version, e.changed_ms, canonical(_unrevoked(e))))
    revoked = any(entity.document.get("revoked", False) for entity in (mine, theirs))
    document = {**newest.document, "revoked": True} if revoked else newest.document
    return replace(newest, document=document, deleted=mine.deleted or theirs.deleted)


def _unrevoked(entity: Entity) -> dict[str, Any]:
    return {name: value for name, value in entity.document.items() if name != "revoked"}


class Conflict(Exception):
    """The entity is not at the expected version, or a unique member is taken; the message says which."""

    def __init__(self, message: str, current: Entity | None = None) -> None:
        super().__init__(message)
        self.current = current


@dataclass(slots=True, frozen=True)
class KeptRevision:
    """A configuration that was accepted once. `files` are the texts it was read from, by path."""

    id: str
    ts_ms: int
    actor: Mapping[str, Any]
    files: Mapping[str, str]
    note: str = ""
    n: int = 0  # place in the history, from 1


class Records(Protocol):
    """Implemented by each ledger store beside `Ledger`; same rules: one thread, may block, `LedgerError`."""

    def stamp(self) -> int:
        """Moves with every change of an entity, whoever made it."""

    def entities(self, kind: str, *, after: str = "", most: int = 0, deleted: bool = False) -> list[Entity]:
        """Entities of a kind by id, those with ids above `after`; `most` 0 is all."""

    def since(self, stamp: int) -> list[Entity]:
        """Everything changed since that stamp, deleted ones too, in order."""

    def entity(self, kind: str, id: str) -> Entity | None:
        """One entity, deleted ones too."""

    def change(self, change: Change) -> Entity:
        """Write, audit and remember in one transaction. Raises `Conflict`."""

    def adopt(self, entities: Sequence[Entity]) -> int:
        """Take over what other replicas wrote, where its version (then its time) is newer; gives how many."""

    def note(self, deeds: Sequence[Deed], remember: tuple[str, Answered] | None = None) -> None:
        """Append to the audit what changed no entity; `remember` as in `Change`. Raises `Conflict` for it."""

    def audit(
        self,
        *,
        chain: str = "",
        after: int = 0,
        since_ms: int = 0,
        until_ms: int = 0,
        most: int = 0,
        beyond: tuple[str, int] | None = None,
        newest: bool = False,
    ) -> Iterator[AuditRecord]:
        """Audit records by chain and number; with a chain, those above `after`; `until_ms` not included.

        `beyond` is the chain and number of the last one seen, for paging over all chains. `newest` gives the
        newest first instead, by time; then `beyond` is not for use. `most` 0 is all.
        """

    def chains(self) -> dict[str, tuple[int, str]]:
        """Each audit chain's newest number and hash."""

    def upkeep(self, keep_audit_ms: int = 0, most: int = 10_000) -> int:
        """Close counts of refusals whose minute is over, drop what is too old; how many audit records went.

        To be called every few seconds. `keep_audit_ms` 0 keeps all of the audit; what is dropped of it is
        stated by a checkpoint at the end of its chain. At most `most` records go at once.
        """

    def keep_revision(self, revision: KeptRevision) -> None:
        """Add to the history, unless it is the newest there already.

        Of what is too much, texts that stand further up once more go first: a renewed secret makes a revision
        of its own, and must not crowd out what somebody wrote.
        """

    def withdraw_revision(self, id: str) -> None:
        """Take the newest place of a revision out of the history: it was found that it can't serve."""

    def revisions(self, most: int = 100, before: int = 0) -> list[KeptRevision]:
        """Newest first; `before` a place in the history, for paging."""

    def answered(self, key: str) -> Answered | None:
        """What was answered under this idempotency key, while it is remembered."""
