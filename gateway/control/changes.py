"""Every administrative change there is: checked against what the operator may, and made ready to be written.

Nothing here does I/O. A change is made from the entity as it is; `expect` in it is that version, so that
nothing is lost when somebody else was faster. The command line and the admin API are two callers of this.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping
from dataclasses import MISSING, asdict, fields, replace
from typing import Any

from gateway.control.operator import Operator
from gateway.core.codec import canonical
from gateway.core.errors import CallerError
from gateway.core.group import Capture, Tenant
from gateway.core.limit import MICROS, LimitRule, Raise
from gateway.core.principal import KeyEntry, document_of, entry_of, mint, rotate
from gateway.core.records import KEY, LARGEST_ENTITY, RAISE, TENANT, Change, Conflict, Deed, Entity
from gateway.settings.schema import Settings

OVERLAP = 86_400.0  # seconds for which a rotated key's old secret works, unless told otherwise
_MOST_USD = 1e9  # as the most of a limit in dollars
_KEY_DEFAULTS = {f.name: f.default for f in fields(KeyEntry) if f.default is not MISSING}


def not_found(kind: str, name: str, but: str = "") -> CallerError:
    """There is no such thing, or none that this operator may see; `but` says what there is instead."""
    return CallerError(f"There is no {kind} {name!a}{but}.", status=404, code="caller_not_found")


def read_only(kind: str, name: str, settings: Settings) -> CallerError:
    """It stands in the file, and is changed there."""
    return CallerError(
        f"The {kind} {name!a} stands in {settings.path}: change it there.",
        status=409,
        code="caller_read_only",
    )


def stale() -> CallerError:
    """What was read is not there any more."""
    return CallerError(
        "It has been changed meanwhile: read it again.", status=412, code="caller_precondition_failed"
    )


def conflicted(error: Conflict) -> CallerError:
    """A change that could not be made, as a refusal."""
    if error.current is not None and "not at version" in str(error):
        if not str(error).endswith("not at version 0"):
            return stale()
        there = f"the {error.current.kind} {error.current.id!a} exists already"
        return CallerError(_sentence(there), status=409, code="caller_conflict")
    return CallerError(_sentence(str(error)), status=409, code="caller_conflict")


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."


class Changes:
    """Makes changes ready for one operator. `settings` is the revision that serves."""

    def __init__(self, operator: Operator, settings: Settings) -> None:
        self._operator = operator
        self._settings = settings

    # -- keys

    def new_key(self, values: Mapping[str, Any]) -> tuple[Change, KeyEntry, str]:
        """A new key: the change, the key, and its secret, which nobody can tell again."""
        self._operator.demand("keys.write")
        secret, fresh = mint(values["name"])
        given = {name: value for name, value in values.items() if value is not None}
        own = self._operator.entry
        if own is not None:
            for name in ("tenant", "team", "user"):
                given.setdefault(name, getattr(own, name))  # theirs, unless said otherwise
        entry = replace(fresh, created=float(int(time.time())), made_by=self._operator.actor.name, **given)
        if any(key.name == entry.name for key in self._settings.keys):
            raise read_only("key", entry.name, self._settings)
        self._operator.within(entry)
        change = Change(
            KEY, entry.id, document_of(entry), self._deed("key.create", f"key/{entry.id}", None, entry), 0,
            ("name", "digest"),
        )  # fmt: skip
        return _fitting(change), entry, secret

    def changed_key(self, entity: Entity, values: Mapping[str, Any]) -> tuple[Change, KeyEntry]:
        """Some members of a key replaced; None takes one back to its default."""
        before = self._key_of(entity)
        given = {
            name: _KEY_DEFAULTS[name] if value is None else value
            for name, value in values.items()
            if name != "name"
        }
        after = replace(before, **given)
        self._operator.within(after)
        return self._of_key("key.update", entity, before, after), after

    def rotated_key(self, entity: Entity, overlap: float = OVERLAP) -> tuple[Change, KeyEntry, str]:
        """A new secret; the one before works for `overlap` more seconds."""
        before = self._key_of(entity)
        try:
            secret, after = rotate(before, overlap, time.time())
        except ValueError as error:
            raise CallerError(_sentence(str(error)), status=409, code="caller_conflict") from None
        return self._of_key("key.rotate", entity, before, after, ("digest",)), after, secret

    def revoked_key(self, entity: Entity) -> tuple[Change, KeyEntry]:
        """Refused from now on, for good."""
        before = self._key_of(entity)
        after = replace(before, revoked=True)
        return self._of_key("key.revoke", entity, before, after), after

    def _key_of(self, entity: Entity) -> KeyEntry:
        self._operator.demand("keys.write")
        entry = entry_of(entity.document)
        self._operator.within(entry)
        return entry

    def _of_key(
        self, action: str, entity: Entity, before: KeyEntry, after: KeyEntry, unique: tuple[str, ...] = ()
    ) -> Change:
        # The name stays: two keys that replicas made apart may share one, and must be revocable all the same.
        deed = self._deed(action, f"key/{entity.id}", before, after)
        return _fitting(Change(KEY, entity.id, document_of(after), deed, entity.version, unique))

    # -- tenants

    def new_tenant(self, values: Mapping[str, Any]) -> tuple[Change, Tenant]:
        """A tenant that there was not before."""
        name = values["name"]
        if name in self._settings.tenants:
            raise read_only("tenant", name, self._settings)
        return self._tenant("tenant.create", name, None, Tenant(**_given(values), origin="ledger"), 0)

    def changed_tenant(
        self, entity: Entity, tenant: Tenant, values: Mapping[str, Any]
    ) -> tuple[Change, Tenant]:
        """Some members of a tenant replaced; None takes one back to its default."""
        defaults = {"capture": Capture(), "teams": {}, "users": {}}
        plain = {f.name: f.default for f in fields(Tenant)}
        given: dict[str, Any] = {
            name: defaults.get(name, plain.get(name)) if value is None else value
            for name, value in values.items()
            if name != "name"
        }
        after = replace(tenant, **given)
        return self._tenant("tenant.update", tenant.name, tenant, after, entity.version)

    def deleted_tenant(self, entity: Entity, tenant: Tenant) -> Change:
        """What it said of its keys holds no more; the keys stay."""
        return self._tenant("tenant.delete", tenant.name, tenant, None, entity.version)[0]

    def _tenant(
        self, action: str, name: str, before: Tenant | None, after: Tenant | None, expect: int
    ) -> tuple[Change, Any]:
        self._operator.demand("tenants.write")
        documents = [asdict(each) if each is not None else None for each in (before, after)]
        deed = Deed(
            self._operator.actor,
            action,
            f"tenant/{name}",
            documents[0],
            documents[1],
            self._settings.revision,
        )
        return _fitting(Change(TENANT, name, documents[1], deed, expect)), after

    # -- raises

    def new_raise(self, rule: LimitRule, values: Mapping[str, Any]) -> tuple[Change, Raise]:
        """More room for a while in the buckets of a rule."""
        self._operator.demand("limits.write")
        until, span = values.get("until"), values.get("for")
        if (until is None) == (span is None):
            raise CallerError("Give either until or for.", param="until")
        until = time.time() + span if span is not None else float(until or 0)
        if until <= time.time():
            raise CallerError("until lies in the past.", param="until")
        if rule.unit == "usd" and values["by"] > _MOST_USD:
            raise CallerError(f"by must be at most {_MOST_USD:.0f} US dollars.", param="by")
        amount = round(values["by"] * MICROS) if rule.unit == "usd" else int(values["by"])
        if amount < 1 or (rule.unit != "usd" and amount != values["by"]):
            raise CallerError(f"by must be a whole number of {rule.unit}, 1 or more.", param="by")
        made = Raise(f"raise_{secrets.token_hex(8)}", rule.id, amount, until, values.get("value") or "*")
        reason = {"reason": values["reason"]} if values.get("reason") else None
        deed = Deed(
            self._operator.actor, "limit.raise", f"limit/{rule.id}", None, asdict(made),
            self._settings.revision, reason,
        )  # fmt: skip
        return Change(RAISE, made.id, asdict(made), deed, 0), made

    def ended_raise(self, entity: Entity) -> Change:
        """Over before its time."""
        self._operator.demand("limits.write")
        before = dict(entity.document)
        deed = Deed(
            self._operator.actor, "limit.unraise", f"limit/{before['rule']}", before, None,
            self._settings.revision,
        )  # fmt: skip
        return Change(RAISE, entity.id, None, deed, entity.version)

    def _deed(self, action: str, target: str, before: KeyEntry | None, after: KeyEntry) -> Deed:
        documents = [document_of(each) if each is not None else None for each in (before, after)]
        return Deed(self._operator.actor, action, target, documents[0], documents[1], self._settings.revision)


def _given(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _fitting(change: Change) -> Change:
    """The change, if a ledger takes it. Raises `CallerError` (413)."""
    if change.document is not None and (size := len(canonical(change.document))) > LARGEST_ENTITY:
        told = f"The {change.kind} would be {size} bytes of JSON with all its members; {LARGEST_ENTITY} fit."
        raise CallerError(told, status=413, code="caller_body_too_large")
    return change
