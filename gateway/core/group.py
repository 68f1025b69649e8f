"""Tenants, teams and users: what holds for all their members, on top of what each key says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple


@dataclass(slots=True, frozen=True)
class Capture:
    """Whether and how prompts and answers of a tenant are kept: off unless asked for.

    `sample` is a share (0.0: none, 1.0: all calls), `most` bytes of each of prompt and answer, `keep`
    seconds; `redact` names kinds of finds that are replaced before anything is written.
    """

    sample: float = 0.0
    redact: tuple[str, ...] = ("secret", "email", "phone", "card", "iban", "ip")
    most: int = 16 * 1024
    keep: float = 7 * 86_400.0


@dataclass(slots=True, frozen=True)
class Member:
    """A team or a user of a tenant: `[tenants.NAME.teams.TEAM]`, `[tenants.NAME.users.USER]`.

    Empty `models`, `endpoints` or `networks` allow all.
    """

    description: str = ""
    models: tuple[str, ...] = ()
    endpoints: tuple[str, ...] = ()
    networks: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    disabled: bool = False


@dataclass(slots=True, frozen=True)
class Tenant:
    """`[tenants.NAME]`, or made through the admin API. Both it and the key must allow what is asked."""

    name: str
    description: str = ""
    models: tuple[str, ...] = ()
    endpoints: tuple[str, ...] = ()
    networks: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    disabled: bool = False
    teams: Mapping[str, Member] = field(default_factory=dict)
    users: Mapping[str, Member] = field(default_factory=dict)
    capture: Capture = Capture()
    origin: str = "file"  # "file" (gateway.toml, read-only elsewhere) or "ledger" (admin API)


class Group(NamedTuple):
    """One group that a caller is in. `kind` is tenant, team or user; `rules` hold for its members."""

    kind: str
    name: str
    rules: Tenant | Member


def groups_of(
    tenants: Mapping[str, Tenant], tenant: str, team: str = "", user: str = ""
) -> tuple[Group, ...]:
    """The groups of a caller about which something is said; teams and users are those of its tenant.

    A name about which nothing is said is a label for limits and the ledger, and restricts nothing.
    """
    found = tenants.get(tenant) if tenant else None
    if found is None:
        return ()
    groups = [Group("tenant", tenant, found)]
    if team in found.teams:
        groups.append(Group("team", team, found.teams[team]))
    if user in found.users:
        groups.append(Group("user", user, found.users[user]))
    return tuple(groups)


_LISTS = ("models", "endpoints", "networks", "tags")


def tenant_of(document: Mapping[str, Any], origin: str = "ledger") -> Tenant:
    """A tenant from its JSON document (`dataclasses.asdict` of one). Unknown members are an error."""
    values = {**document, **_lists(document), "origin": origin}
    for kind in ("teams", "users"):
        members = document.get(kind) or {}
        values[kind] = {name: Member(**{**each, **_lists(each)}) for name, each in members.items()}
    if "capture" in values:
        capture = dict(values["capture"])
        if "redact" in capture:
            capture["redact"] = tuple(capture["redact"])
        values["capture"] = Capture(**capture)
    return Tenant(**values)


def _lists(document: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    return {name: tuple(document[name]) for name in _LISTS if name in document}
