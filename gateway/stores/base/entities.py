"""Entities in a database: versions, what may be there only once, the stamp. In the caller's transaction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from gateway.core.codec import canonical, loads
from gateway.core.records import KEY, LARGEST_ENTITY, Change, Conflict, Entity, merged
from gateway.stores.base.tables import Tables

_COLUMNS = "kind, id, version, document, changed, deleted, stamp"
_SELECT = "SELECT " + _COLUMNS + " FROM entities WHERE "


def stamp(db: Tables) -> int:
    """The place of the newest change."""
    return int(db.execute("SELECT n FROM stamps WHERE name = 'entities'").fetchone()[0])


def one(db: Tables, kind: str, id: str) -> Entity | None:
    """One entity, deleted ones too."""
    row = db.execute(_SELECT + "kind = ? AND id = ?", (kind, id)).fetchone()
    return None if row is None else _entity(row)


def some(db: Tables, kind: str, after: str, most: int, deleted: bool) -> list[Entity]:
    """Entities of a kind by id."""
    where = "kind = ? AND id > ? AND deleted <= ? ORDER BY id LIMIT ?"
    return list(map(_entity, db.execute(_SELECT + where, (kind, after, int(deleted), most or 1 << 40))))


def oldest_first(db: Tables, kind: str) -> list[Entity]:
    """Those of a kind that are not deleted, in the order in which they were made."""
    return list(map(_entity, db.execute(_SELECT + "kind = ? AND deleted = 0 ORDER BY born", (kind,))))


def since(db: Tables, stamp: int) -> list[Entity]:
    """What was changed since, in order."""
    return list(map(_entity, db.execute(_SELECT + "stamp > ? ORDER BY stamp", (stamp,))))


def _entity(row: Sequence[Any]) -> Entity:
    kind, id, version, document, changed, deleted, stamp = row
    return Entity(kind, id, version, loads(document), changed, bool(deleted), stamp)


# ---------------------------------------------------------------------- writing


def write(db: Tables, change: Change, now_ms: int) -> Entity:
    """Make the change. Raises `Conflict`; a document that is no JSON or too large is a `ValueError`."""
    place = _next(db)
    current = one(db, change.kind, change.id)
    _check(db, change, current)
    document = change.document if change.document is not None else current.document if current else {}
    # The clock may go back; a later change is later all the same.
    changed = max(now_ms, current.changed_ms + 1) if current else now_ms
    version = current.version + 1 if current else 1
    entity = Entity(change.kind, change.id, version, document, changed, change.document is None, place)
    _put(db, entity)
    return entity


def _next(db: Tables) -> int:
    """The next stamp; others who want one wait until this transaction has ended."""
    db.execute("UPDATE stamps SET n = n + 1 WHERE name = 'entities'")
    return stamp(db)


def _check(db: Tables, change: Change, current: Entity | None) -> None:
    live = current if current is not None and not current.deleted else None
    what = f"{change.kind} {change.id}"
    if change.expect is not None and change.expect != (live.version if live else 0):
        there = f"is at version {live.version}" if live else "does not exist"
        raise Conflict(f"{what} {there}, not at version {change.expect}", current)
    if live is None and change.document is None:
        raise Conflict(f"{what} does not exist", current)
    if change.kind == KEY and current is not None and live is None:
        raise Conflict(f"{what} was deleted; a deleted key never comes back", current)
    document = change.document
    if document is None:
        return
    for member in change.unique:
        value = document.get(member)
        other = _holder(db, change.kind, change.id, member, value)
        if other is not None:
            raise Conflict(f"a {change.kind} with the {member} {_shown(member, value)} exists already", other)


def _holder(db: Tables, kind: str, id: str, member: str, value: Any) -> Entity | None:
    """Who else has this value. A revoked one's name is free again; its digest never is."""
    others = "kind = ? AND id <> ? AND deleted = 0"
    if member == "name":
        row = db.execute(
            _SELECT + others + " AND name = ? AND revoked = 0", (kind, id, str(value))
        ).fetchone()
        return None if row is None else _entity(row)
    if member == "digest":
        row = db.execute(_SELECT + others + " AND digest = ?", (kind, id, str(value))).fetchone()
        return None if row is None else _entity(row)
    alike = map(_entity, db.execute(_SELECT + others, (kind, id)))
    return next((each for each in alike if each.document.get(member) == value), None)


def _shown(member: str, value: Any) -> str:
    return "of this secret" if member == "digest" else ascii(value)


def _put(db: Tables, entity: Entity) -> None:
    document = canonical(entity.document)
    if len(document) > LARGEST_ENTITY:
        raise ValueError(f"the document has {len(document)} bytes, {LARGEST_ENTITY} are allowed")
    name, digest = str(entity.document.get("name", "")), str(entity.document.get("digest", ""))
    values = (
        entity.version, document.decode(), entity.changed_ms, int(entity.deleted), entity.stamp, name, digest,
        int(bool(entity.document.get("revoked"))),
    )  # fmt: skip
    update = (
        "UPDATE entities SET version = ?, document = ?, changed = ?, deleted = ?, stamp = ?, name = ?,"
        " digest = ?, revoked = ? WHERE kind = ? AND id = ?"
    )
    if not db.execute(update, (*values, entity.kind, entity.id)).rowcount:
        insert = (
            "INSERT INTO entities (version, document, changed, deleted, stamp, name, digest, revoked, kind,"
            " id, born) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
        )
        db.execute(insert, (*values, entity.kind, entity.id, entity.stamp))


def adopt(db: Tables, theirs: Entity) -> tuple[Entity | None, Entity | None]:
    """Take over another replica's; gives what stood here and what stands now (None: nothing changed)."""
    mine = one(db, theirs.kind, theirs.id)
    agreed = theirs if mine is None else merged(mine, theirs)
    if mine is not None and same(mine, agreed):
        return mine, None
    fresh = replace(agreed, stamp=_next(db))
    _put(db, fresh)
    return mine, fresh


def same(one: Entity, other: Entity) -> bool:
    """Whether two say the same, wherever they stand."""
    return _said(one) == _said(other)


def _said(entity: Entity) -> tuple[Any, ...]:
    document: Mapping[str, Any] = entity.document
    return entity.version, entity.changed_ms, entity.deleted, canonical(document)


def forget(db: Tables, before_ms: int) -> int:
    """Drop deleted ones of long ago; how many."""
    return db.execute("DELETE FROM entities WHERE deleted = 1 AND changed < ?", (before_ms,)).rowcount
