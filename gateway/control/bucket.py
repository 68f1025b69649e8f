"""Which buckets of a limit somebody means: a raise for one that nobody ever counts in would do nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from fnmatch import fnmatchcase

from gateway.core.errors import CallerError
from gateway.core.group import Tenant
from gateway.core.limit import LimitRule, matches
from gateway.core.principal import ANYONE, KeyEntry
from gateway.settings.schema import Settings

_MARKS = frozenset("*?[")
_SLASHED = ("model", "tag")  # only these may have a "/" in them
_TOLD = 5  # of what is known, in a refusal


class Buckets:
    """What callers can be counted by, as far as it is known: by keys, tenants and the settings."""

    def __init__(self, settings: Settings, keys: Sequence[KeyEntry], tenants: Iterable[Tenant]) -> None:
        self._settings = settings
        self._keys = keys
        self._tenants = {tenant.name: tenant for tenant in tenants}
        self._stated: dict[str, Callable[[], Iterable[str]]] = {
            "tenant": lambda: self._tenants,
            "team": lambda: [name for each in self._tenants.values() for name in each.teams],
            "user": lambda: [name for each in self._tenants.values() for name in each.users],
        }

    def meant(self, rule: LimitRule, wanted: str) -> str:
        """The glob over a rule's buckets that was meant: a key may be called by its name, if one has it.

        Raises `CallerError` where no caller there is can be counted in such a bucket. What tokens and tags
        will say is not known: that passes.
        """
        if wanted in ("", "*"):
            return "*"
        if rule.scope == ("global",):
            if fnmatchcase("", wanted):
                return wanted
            raise _refused(f"The limit {rule.id} counts all calls together: leave value out.")
        scopes = rule.scope
        parts = wanted.split("/", len(scopes) - 1)
        for place, scope in enumerate(scopes[: len(parts)]):
            last = place == len(scopes) - 1
            if not last and (scope in _SLASHED or _MARKS & set(parts[place])):
                return "/".join(parts)  # what follows may be meant for this scope or for the next
            parts[place] = self._part(scope, parts[place])
        if len(parts) < len(scopes):
            shape = "/".join(scopes)
            raise _refused(
                f"The limit {rule.id} counts by {shape}: value has all of them, as in {wanted[:128]!a} with"
                f" {'/*' * (len(scopes) - len(parts))} after it."
            )
        return self._within(rule, "/".join(parts))

    def _within(self, rule: LimitRule, value: str) -> str:
        names = {key.id: key.name for key in self._keys}
        named = "/".join([names.get(part, part) for part in value.split("/")])
        if not _MARKS & set(value) and not matches(rule, value, named):
            raise _refused(
                f"The limit {rule.id} holds for {rule.match!a} alone: {value[:128]!a} is none of them."
            )
        return value

    def _part(self, scope: str, wanted: str) -> str:
        """What was meant of one scope; names of keys become their ids."""
        if scope == "key":
            return self._key(wanted)
        if scope == "model":
            known: Iterable[str] = [each.name for each in self._settings.models]
            if any(fnmatchcase(wanted, each) for each in known) or (
                _MARKS & set(wanted) and any(each.glob for each in self._settings.models)
            ):
                return wanted
        elif scope == "backend":
            known = self._settings.backends
        elif scope in self._stated and self._settings.auth.jwt is None:
            known = {getattr(key, scope) for key in self._keys} | set(self._stated[scope]())
        else:
            return wanted
        if not any(fnmatchcase(each, wanted) for each in known if each):
            raise _unknown(scope, wanted, known)
        return wanted

    def _key(self, wanted: str) -> str:
        ids = {key.id for key in self._keys} | {ANYONE.id}
        if wanted in ids or (self._settings.auth.jwt is not None and wanted.startswith("jwt:")):
            return wanted
        named = [key.id for key in self._keys if key.name == wanted and not key.revoked]
        if len(named) == 1:
            return named[0]
        if named:
            raise CallerError(
                f"{len(named)} keys are named {wanted!a}: say which one by its id, {' or '.join(named[:5])}.",
                status=409,
                code="caller_conflict",
                param="value",
            )
        if _MARKS & set(wanted):
            if self._settings.auth.jwt is not None or any(fnmatchcase(each, wanted) for each in ids):
                return wanted
            raise _refused(
                f"The pattern {wanted[:128]!a} matches the id of no key: it is held against ids, not names."
            )
        raise _unknown("key", wanted, {key.name for key in self._keys if not key.revoked})


def _unknown(scope: str, wanted: str, known: Iterable[str]) -> CallerError:
    some = sorted(name for name in known if name)
    named = ", ".join(f"{name!a}" for name in some[:_TOLD])
    more = f" and {len(some) - _TOLD} more" if len(some) > _TOLD else ""
    there = f"there are {named}{more}" if some else "there is none at all"
    which = "key of that name or id" if scope == "key" else scope
    return _refused(f"There is no {which} for {wanted[:128]!a}: {there}.")


def _refused(message: str) -> CallerError:
    return CallerError(message, param="value")
