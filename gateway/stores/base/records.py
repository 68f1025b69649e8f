"""`core.records.Records` on any database in SQL: what a ledger store inherits beside its own part."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from itertools import islice

from gateway.core.codec import canonical, loads
from gateway.core.errors import LedgerError
from gateway.core.principal import KeyEntry, document_of, entry_of
from gateway.core.records import (
    KEY,
    TOMBSTONES_MS,
    Actor,
    Answered,
    AuditRecord,
    Change,
    Conflict,
    Deed,
    Entity,
    KeptRevision,
)  # fmt: skip
from gateway.core.refusal import refusals
from gateway.core.sheet import Sheet
from gateway.stores.base import chain as chains
from gateway.stores.base import entities
from gateway.stores.base.tables import Tables

_MOST_ANSWERS = 10_000
_MOST_REVISIONS = 500
_COMMANDS = Actor("cli")


class SqlRecords:
    """Keys, tenants, audit, revisions and answers. `chain` names this replica's audit chain.

    Every change moves the entity, the stamp, the audit and the answer in one transaction; changes wait
    for one another, so that stamps become visible in their order.
    """

    chain = "local"
    common = False  # whether other replicas have the same ledger

    def _transaction(self) -> AbstractContextManager[Tables]:
        raise NotImplementedError

    def _translated(self) -> AbstractContextManager[Tables]:
        raise NotImplementedError

    # ------------------------------------------------------------------ entities

    def stamp(self) -> int:
        """Moves with every change of an entity, whoever made it."""
        with self._translated() as db:
            return entities.stamp(db)

    def entities(self, kind: str, *, after: str = "", most: int = 0, deleted: bool = False) -> list[Entity]:
        """Entities of a kind by id, those with ids above `after`; `most` 0 is all."""
        with self._translated() as db:
            return entities.some(db, kind, after, most, deleted)

    def since(self, stamp: int) -> list[Entity]:
        """Everything changed since that stamp, deleted ones too, in order."""
        with self._translated() as db:
            return entities.since(db, stamp)

    def entity(self, kind: str, id: str) -> Entity | None:
        """One entity, deleted ones too."""
        with self._translated() as db:
            return entities.one(db, kind, id)

    def change(self, change: Change) -> Entity:
        """Write, audit and remember in one transaction. Raises `Conflict`."""
        now = now_ms()
        with self._transaction() as db:
            entity = entities.write(db, change, now)
            chains.append(db, self.chain, [change.deed], now)
            if change.remember is not None:
                _remember(db, *change.remember, now)
            return entity

    def adopt(self, theirs: Sequence[Entity]) -> int:
        """Take over what other replicas wrote, where it is newer (`core.records.merged`); gives how many.

        Where both had changed the same thing meanwhile, the audit says what was given up.
        """
        adopted = 0
        with self._transaction() as db:
            deeds: list[Deed] = []
            for each in theirs:
                mine, fresh = entities.adopt(db, each)
                adopted += fresh is not None
                if mine is not None and fresh is not None and mine.version >= each.version:
                    deeds.append(_overruled(mine, fresh))
            if deeds:
                chains.append(db, self.chain, deeds, now_ms())
        return adopted

    # ------------------------------------------------------------------ keys, as entities

    def keys(self) -> list[KeyEntry]:
        """All keys, revoked ones too, oldest first."""
        with self._translated() as db:
            return [entry_of(entity.document) for entity in entities.oldest_first(db, KEY)]

    def add_key(self, entry: KeyEntry, actor: Actor = _COMMANDS) -> None:
        """Keep a new key. No other key in force may have its name. Raises `LedgerError`."""
        document = document_of(entry)
        deed = Deed(actor, "key.create", f"key/{entry.id}", after=document)
        try:
            self.change(Change(KEY, entry.id, document, deed, 0, ("name", "digest")))
        except Conflict as error:
            if error.current is not None and error.current.document.get("name") == entry.name:
                message = f"a key named {entry.name!a} exists: choose another name or revoke it"
                raise LedgerError(message) from None
            raise LedgerError(f"the key {entry.name!a} can't be kept: {error}") from None
        except (TypeError, ValueError) as error:
            raise LedgerError(f"the key {entry.name!a} can't be kept: {error}") from error

    def revoke_key(self, name_or_id: str, actor: Actor = _COMMANDS) -> bool:
        """Revoke a key; False where none in force has this name or id."""
        found = [
            entity
            for entity in self.entities(KEY)
            if name_or_id in (entity.id, entity.document["name"]) and not entity.document["revoked"]
        ]
        for entity in found:
            after = {**entity.document, "revoked": True}
            deed = Deed(actor, "key.revoke", f"key/{entity.id}", before=entity.document, after=after)
            self.change(Change(KEY, entity.id, after, deed))
        return bool(found)

    # ------------------------------------------------------------------ audit

    def note(self, deeds: Sequence[Deed], remember: tuple[str, Answered] | None = None) -> None:
        """Append to the audit what changed no entity; `remember` as in `Change`. Raises `Conflict` for it."""
        if deeds:
            now = now_ms()
            with self._transaction() as db:
                chains.append(db, self.chain, deeds, now)
                if remember is not None:
                    _remember(db, *remember, now)

    def _refused(self, db: Tables, sheets: Sequence[Sheet]) -> None:
        """What policies refused goes into the audit; for whoever books calls, in the same transaction."""
        groups = refusals(sheets)
        if groups:
            chains.refuse(db, self.chain, groups, now_ms())

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
        """Audit records by chain and number, or the newest first; see `core.records.Records`."""
        with self._translated() as db:
            if newest:
                found = chains.newest(db, chain, since_ms, until_ms)
            else:
                found = chains.read(db, beyond or (chain, after), chain, since_ms, until_ms)
            yield from islice(found, most or None)

    def chains(self) -> dict[str, tuple[int, str]]:
        """Each audit chain's newest number and hash."""
        with self._translated() as db:
            return chains.heads(db)

    def upkeep(self, keep_audit_ms: int = 0, most: int = 10_000) -> int:
        """Close counts of refusals whose minute is over, drop what is too old; see `core.records.Records`."""
        now, gone = now_ms(), 0
        with self._transaction() as db:
            chains.close_minutes(db, self.chain, now)
            entities.forget(db, now - TOMBSTONES_MS)
            db.execute("DELETE FROM answers WHERE until < ?", (now,))
            if keep_audit_ms:
                for name in chains.heads(db):
                    gone += chains.prune(db, name, now - keep_audit_ms, now, max(most - gone, 1))
        return gone

    # ------------------------------------------------------------------ revisions and answers

    def keep_revision(self, revision: KeptRevision) -> None:
        """Add to the history, unless it is the newest there already; see `core.records.Records`."""
        with self._transaction() as db:
            db.execute("UPDATE stamps SET n = n + 1 WHERE name = 'revisions'")
            newest = db.execute("SELECT id FROM revisions ORDER BY n DESC LIMIT 1").fetchone()
            if newest is not None and newest[0] == revision.id:
                return
            (n,) = db.execute("SELECT n FROM stamps WHERE name = 'revisions'").fetchone()
            texts = canonical(revision.actor).decode(), canonical(revision.files).decode()
            row = (n, revision.id, revision.ts_ms or now_ms(), *texts, revision.note)
            db.execute("INSERT INTO revisions (n, id, ts, actor, files, note) VALUES (?, ?, ?, ?, ?, ?)", row)
            (kept,) = db.execute("SELECT count(*) FROM revisions").fetchone()
            again = "SELECT n FROM revisions AS old WHERE EXISTS ("
            again += "SELECT 1 FROM revisions AS new WHERE new.n > old.n AND new.files = old.files)"
            for which in (again, "SELECT n FROM revisions"):
                most = max(kept - _MOST_REVISIONS, 0)
                delete = f"DELETE FROM revisions WHERE n IN ({which} ORDER BY n LIMIT ?)"
                kept -= db.execute(delete, (most,)).rowcount if most else 0

    def withdraw_revision(self, id: str) -> None:
        """Take its newest place out of the history."""
        with self._transaction() as db:
            newest = "SELECT max(n) FROM revisions WHERE id = ?"
            db.execute(f"DELETE FROM revisions WHERE n = ({newest})", (id,))

    def revisions(self, most: int = 100, before: int = 0) -> list[KeptRevision]:
        """Newest first; `before` a place in the history, for paging."""
        select = "SELECT n, id, ts, actor, files, note FROM revisions WHERE n < ? ORDER BY n DESC LIMIT ?"
        with self._translated() as db:
            rows = db.execute(select, (before or 1 << 62, most)).fetchall()
        return [
            KeptRevision(id, ts, loads(actor), loads(files), note, n)
            for n, id, ts, actor, files, note in rows
        ]

    def answered(self, key: str) -> Answered | None:
        """What was answered under this idempotency key, while it is remembered."""
        select = "SELECT fingerprint, status, body, until FROM answers WHERE name = ? AND until >= ?"
        with self._translated() as db:
            row = db.execute(select, (key, now_ms())).fetchone()
        return None if row is None else Answered(row[0], row[1], bytes(row[2]), row[3])


def now_ms() -> int:
    """Epoch milliseconds."""
    return time.time_ns() // 1_000_000


def _remember(db: Tables, key: str, answer: Answered, now: int) -> None:
    """Raises `Conflict` when something was answered under this key already."""
    db.execute("DELETE FROM answers WHERE until < ?", (now,))
    (kept,) = db.execute("SELECT count(*) FROM answers").fetchone()
    if kept >= _MOST_ANSWERS:
        oldest = "DELETE FROM answers WHERE name IN (SELECT name FROM answers ORDER BY until LIMIT ?)"
        db.execute(oldest, (kept - _MOST_ANSWERS + 1,))
    insert = "INSERT INTO answers (name, fingerprint, status, body, until) VALUES (?, ?, ?, ?, ?)"
    insert += " ON CONFLICT DO NOTHING"
    row = (key, answer.fingerprint, answer.status, answer.body, answer.until_ms)
    if not db.execute(insert, row).rowcount:
        raise Conflict("something was answered under this idempotency key meanwhile; ask again")


def _overruled(mine: Entity, fresh: Entity) -> Deed:
    return Deed(
        Actor("replica"),
        f"{fresh.kind}.merge",
        f"{fresh.kind}/{fresh.id}",
        before=mine.document,
        after=fresh.document,
        detail={"version": fresh.version, "why": "two replicas had changed it while they could not talk"},
    )
