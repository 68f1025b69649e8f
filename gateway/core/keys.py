"""All keys the gateway knows, found by digest, each with the groups it is in."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from gateway.core.generations import Generations
from gateway.core.group import Group, Tenant, groups_of
from gateway.core.principal import KeyEntry, Principal

_MOST_CALLERS = 8192  # twice


class Keys:
    """Implements `core.ports.KeyDirectory`. `generation` moves with every change."""

    def __init__(self, entries: Sequence[KeyEntry] = (), tenants: Iterable[Tenant] = ()) -> None:
        self.generation = 0
        self._principals: dict[bytes, Principal] = {}
        self._digests: dict[str, tuple[bytes, ...]] = {}  # by the key's id
        self._tenants: Mapping[str, Tenant] = {}
        self._callers: Generations[KeyEntry, Principal] = Generations(_MOST_CALLERS)
        self.replace(entries, tenants)

    def find(self, digest: bytes) -> Principal | None:
        """Whose key this is; expired and revoked ones are found too."""
        return self._principals.get(digest)

    def caller(self, entry: KeyEntry) -> Principal:
        """The principal of one that no key stands for, such as a token's: the memo of equal ones is kept."""
        lasting = replace(entry, expires=None)
        known = self._callers.find(lasting)
        if known is None:
            known = Principal(lasting, self._groups(entry))
            self._callers.keep(lasting, known)
        return Principal(entry, known.groups, known.memo)

    def renew(self) -> None:
        """What was remembered of callers does not hold any more: others than keys may have changed."""
        self.generation += 1

    def replace(self, entries: Iterable[KeyEntry], tenants: Iterable[Tenant] = ()) -> None:
        """Swap in a new set; a principal of whom nothing has changed stays, and keeps its memo.

        Of the same secret the later entry counts.
        """
        self._tenants = {tenant.name: tenant for tenant in tenants}
        self._callers.clear()
        former, self._principals, self._digests = self._principals, {}, {}
        for entry in entries:
            self._add(entry, former)
        self.generation += 1

    def change(
        self, entries: Iterable[KeyEntry], gone: Iterable[str] = (), tenants: Iterable[Tenant] | None = None
    ) -> None:
        """Put in keys that are new or have changed, and take out those with the ids `gone`.

        `tenants`, where given, are all there are from now on.
        """
        if tenants is not None:
            self._regroup(tenants)
        former: dict[bytes, Principal] = {}
        fresh = list(entries)
        for id in (*gone, *[entry.id for entry in fresh]):
            for digest in self._digests.pop(id, ()):
                if digest in self._principals and self._principals[digest].key.id == id:
                    former[digest] = self._principals.pop(digest)
        for entry in fresh:
            self._add(entry, former, over=False)
        self.generation += 1

    def _regroup(self, tenants: Iterable[Tenant]) -> None:
        """Other tenants: only the principals whose groups are different now are made anew."""
        self._tenants = {tenant.name: tenant for tenant in tenants}
        self._callers.clear()
        memos: dict[str, dict[Any, Any]] = {}  # by the key's id: one for both secrets of a rotated key
        for digest, principal in list(self._principals.items()):
            key, groups = principal.key, self._groups(principal.key)
            if groups != principal.groups:
                self._principals[digest] = Principal(key, groups, memos.setdefault(key.id, {}))

    def _add(self, entry: KeyEntry, former: Mapping[bytes, Principal], over: bool = True) -> None:
        """Put in a key. Unless `over`, a key from the file keeps a secret that it has already."""
        groups = self._groups(entry)
        same = former.get(entry.digest)
        if same is None or same.key != entry or same.groups != groups:
            same = Principal(entry, groups)
        self._digests[entry.id] = (entry.digest,)
        self._put(entry.digest, same, over)
        if entry.previous and entry.previous != entry.digest and entry.previous_until is not None:
            until = (
                entry.previous_until if entry.expires is None else min(entry.previous_until, entry.expires)
            )
            before = replace(entry, digest=entry.previous, expires=until)
            self._digests[entry.id] = (entry.digest, entry.previous)
            self._put(entry.previous, Principal(before, groups, same.memo), over)

    def _put(self, digest: bytes, principal: Principal, over: bool) -> None:
        there = self._principals.get(digest)
        if there is not None and there.key.id != principal.key.id:
            if _ending(principal) and not _ending(there):
                return
            if not over and there.key.origin == "file" and principal.key.origin != "file":
                return
        self._principals[digest] = principal

    def _groups(self, entry: KeyEntry) -> tuple[Group, ...]:
        return groups_of(self._tenants, entry.tenant, entry.team, entry.user)

    def __len__(self) -> int:
        return len(self._digests)


def _ending(principal: Principal) -> bool:
    """Whether it stands for the secret that a rotated key had before."""
    return principal.key.previous == principal.key.digest
