"""`/admin/v1/keys`: virtual keys of the ledger; those of the file are shown too, and changed there."""

from __future__ import annotations

import time
from typing import Any

from gateway.control.body import CHANGED_KEY, NEW_KEY, ROTATION
from gateway.control.changes import OVERLAP, not_found, read_only
from gateway.control.operation import PAGING, Answer, Ask, Operation, changed, page
from gateway.core.errors import CallerError
from gateway.core.moment import iso
from gateway.core.principal import KeyEntry
from gateway.core.records import KEY, Entity

STATES = ("active", "expired", "revoked")
_FILTERS = {
    "tenant": "only keys of this tenant",
    "team": "only keys of this team",
    "user": "only keys of this user",
    "name": "only the key of this name",
    "state": "only keys that are active, expired or revoked",
}


def shown(entry: KeyEntry, version: int | None = None) -> dict[str, Any]:
    """A key without anything that is secret."""
    now = time.time()
    expired = entry.expires is not None and entry.expires <= now
    overlapping = entry.previous_until if entry.previous_until and entry.previous_until > now else None
    return {
        "id": entry.id,
        "name": entry.name,
        "state": "revoked" if entry.revoked else "expired" if expired else "active",
        "from": entry.origin,
        "tenant": entry.tenant,
        "team": entry.team,
        "user": entry.user,
        "roles": list(entry.roles),
        "models": list(entry.models),
        "endpoints": list(entry.endpoints),
        "tags": list(entry.tags),
        "networks": list(entry.networks),
        "expires": iso(entry.expires, "seconds"),
        "previous_until": iso(overlapping, "seconds"),
        "created": iso(entry.created or None, "seconds"),
        "made_by": entry.made_by,
        "version": version,
    }


async def _list(ask: Ask) -> Answer:
    if ask.query.get("state", STATES[0]) not in STATES:
        raise CallerError(f"state must be one of {', '.join(STATES)}.", param="state")
    items = [shown(entry) for entry in ask.desk.all_keys() if _visible(ask, entry)]
    for name in _FILTERS:
        if name in ask.query:
            items = [item for item in items if item[name] == ask.query[name]]
    return Answer(page(items, ask))


def _visible(ask: Ask, entry: KeyEntry) -> bool:
    return not ask.operator.tenant or entry.tenant == ask.operator.tenant


async def _get(ask: Ask) -> Answer:
    filed = _filed(ask)
    if filed is not None:
        return Answer(shown(filed))
    entity = await _entity(ask)
    return Answer(shown(_entry(entity), entity.version), version=entity.version)


def _entry(entity: Entity) -> KeyEntry:
    from gateway.core.principal import entry_of

    return entry_of(entity.document)


def _filed(ask: Ask) -> KeyEntry | None:
    wanted = ask.path["key"]
    for entry in ask.settings.keys:
        if wanted in (entry.id, entry.name) and _visible(ask, entry):
            return entry
    return None


async def _entity(ask: Ask) -> Entity:
    """The key of that id, or the one in force of that name; and only one that this operator may see.

    Raises `CallerError`: 404, and 409 where several in force have that name.
    """
    wanted = ask.path["key"]

    def named() -> list[KeyEntry]:
        return [
            e for e in ask.desk.all_keys() if e.name == wanted and e.origin != "file" and _visible(ask, e)
        ]

    def identity() -> str:
        ids = [e.id for e in named() if not e.revoked]
        if len(ids) > 1 and not wanted.startswith("key_"):
            raise CallerError(
                f"{len(ids)} keys are named {wanted!a}: say which one by its id, {' or '.join(ids[:5])}.",
                status=409,
                code="caller_conflict",
            )
        return ids[0] if ids and not wanted.startswith("key_") else wanted

    entity = await ask.desk.found(KEY, identity)
    if entity is None or not _visible(ask, _entry(entity)):
        raise not_found("key", wanted, "; the one that had this name is revoked" if named() else "")
    return entity


async def _own(ask: Ask) -> Entity:
    filed = _filed(ask)
    if filed is not None:
        raise read_only("key", filed.name, ask.settings)
    return await _entity(ask)


async def _create(ask: Ask) -> Answer:
    change, entry, secret = ask.changes.new_key(ask.values)
    return changed(change, {"key": secret, **shown(entry)}, 201, f"keys/{entry.id}")


async def _patch(ask: Ask) -> Answer:
    change, entry = ask.changes.changed_key(await _own(ask), ask.values)
    return changed(change, shown(entry))


async def _rotate(ask: Ask) -> Answer:
    overlap = ask.values.get("overlap")
    change, entry, secret = ask.changes.rotated_key(await _own(ask), OVERLAP if overlap is None else overlap)
    return changed(change, {"key": secret, **shown(entry)})


async def _revoke(ask: Ask) -> Answer:
    change, entry = ask.changes.revoked_key(await _own(ask))
    return changed(change, shown(entry))


_NEW = {"name": "ci", "tenant": "acme", "models": ["gpt-4o*"], "expires": "2030-01-01T00:00:00Z"}

OPERATIONS = (
    Operation(
        "GET", "/keys", "keys.read", "List keys", _list, query={**_FILTERS, **PAGING}, answer="KeyPage"
    ),
    Operation(
        "POST", "/keys", "keys.write", "Make a key; its secret is in this answer and nowhere else", _create,
        body=NEW_KEY, example=_NEW, answer="NewKey", status=201, keyed=True,
    ),
    Operation("GET", "/keys/{key}", "keys.read", "One key, by id or name", _get, answer="Key"),
    Operation(
        "PATCH", "/keys/{key}", "keys.write", "Change members; null takes one back to its default", _patch,
        body=CHANGED_KEY, example={"models": ["gpt-4o-mini"]}, answer="Key", matched=True,
    ),
    Operation(
        "POST", "/keys/{key}/rotate", "keys.write",
        "A new secret; the old one works until the overlap is over", _rotate,
        body=ROTATION, example={"overlap": "24h"}, answer="NewKey", keyed=True,
    ),
    Operation("DELETE", "/keys/{key}", "keys.write", "Revoke a key, for good", _revoke, answer="Key"),
)  # fmt: skip
