"""Who administers, and what they may: roles, and the bounds of whoever holds a key.

Nobody gives away more than they have: what an operator makes, changes or renews must lie within the
operator's own bounds, before and after.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_network

from gateway.core.errors import PolicyError
from gateway.core.principal import KeyEntry
from gateway.core.records import Actor
from gateway.core.rights import CALLER, OPERATORS

VIEWER, OPERATOR, ADMIN, AUDITOR = OPERATORS

# Each permission and the roles that have it. Those with a * are for operators without a tenant of their own.
PERMISSIONS = {
    "status.read": (VIEWER, OPERATOR, ADMIN, AUDITOR),
    "keys.read": (VIEWER, OPERATOR, ADMIN),
    "keys.write": (OPERATOR, ADMIN),
    "tenants.read": (VIEWER, OPERATOR, ADMIN),
    "tenants.write*": (ADMIN,),
    "limits.read*": (VIEWER, OPERATOR, ADMIN),
    "limits.write*": (OPERATOR, ADMIN),
    "usage.read": (VIEWER, OPERATOR, ADMIN, AUDITOR),
    "audit.read*": (AUDITOR, ADMIN),
    "config.read*": (VIEWER, OPERATOR, ADMIN),
    "config.write*": (ADMIN,),
}


@dataclass(slots=True, frozen=True)
class Operator:
    """Somebody who administers. `entry` is the key or token they hold; None for the admin token."""

    actor: Actor
    roles: tuple[str, ...]
    entry: KeyEntry | None = None

    @property
    def tenant(self) -> str:
        """The one tenant they may look at and change things of; "" for all."""
        return self.entry.tenant if self.entry else ""

    def permissions(self) -> list[str]:
        """What they may, for `whoami`."""
        return [name.rstrip("*") for name in PERMISSIONS if self._has(name)]

    def demand(self, permission: str) -> None:
        """Raises `PolicyError` (403) where they may not."""
        name = permission if permission in PERMISSIONS else permission + "*"
        if not self._has(name):
            needed = " or ".join(PERMISSIONS[name])
            where = ", without a tenant of its own" if name.endswith("*") else ""
            raise PolicyError(f"{permission} needs the role {needed}{where}.", code="policy_role_required")

    def _has(self, name: str) -> bool:
        if name.endswith("*") and self.tenant:
            return False
        return not set(self.roles).isdisjoint(PERMISSIONS[name])

    def within(self, key: KeyEntry) -> None:
        """Raises `PolicyError` (403) where a key can do what this operator can't."""
        beyond = beyond_of(self.entry, key) if self.entry is not None else ""
        if beyond:
            raise PolicyError(
                f"The key's {beyond} would go beyond your own.", code="policy_beyond_own_rights", param=beyond
            )


def beyond_of(own: KeyEntry, key: KeyEntry) -> str:
    """The first member in which `key` reaches further than a holder of `own` does; "" where none does."""
    if not set(key.roles) <= {*own.roles, CALLER}:
        return "roles"
    for name in ("tenant", "team", "user"):
        if getattr(own, name) and getattr(key, name) != getattr(own, name):
            return name
    if not _narrower(own.models, key.models):
        return "models"
    if not _narrower(own.endpoints, key.endpoints):
        return "endpoints"
    if not _inside(own.networks, key.networks):
        return "networks"
    if not set(own.tags) <= set(key.tags):
        return "tags"  # policies may look at them
    if own.expires is not None and (key.expires is None or key.expires > own.expires):
        return "expires"
    return ""


def _narrower(own: tuple[str, ...], given: tuple[str, ...]) -> bool:
    """Whether all that `given` globs match, `own` globs match too. Where it can't be told: no."""
    return not own or (bool(given) and all(any(_covers(mine, glob) for mine in own) for glob in given))


def _covers(mine: str, glob: str) -> bool:
    """Only what is plain to see: the same, a plain name or glob behind a prefix that `mine` leaves open."""
    if mine in (glob, "*"):
        return True
    head = mine.removesuffix("*")
    plain = not any(mark in head for mark in "*?[")
    return mine.endswith("*") and plain and glob.startswith(head)


def _inside(own: tuple[str, ...], given: tuple[str, ...]) -> bool:
    if not own:
        return True
    mine = [ip_network(each) for each in own]
    theirs = [ip_network(each) for each in given]
    return bool(theirs) and all(
        any(each.version == net.version and each.subnet_of(net) for net in mine)  # type: ignore[arg-type]
        for each in theirs
    )
