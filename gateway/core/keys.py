"""All keys the gateway knows, found by digest."""

from __future__ import annotations

from collections.abc import Sequence

from gateway.core.principal import KeyEntry, Principal


class Keys:
    """Implements `core.ports.KeyDirectory`. `generation` moves with every change."""

    def __init__(self, entries: Sequence[KeyEntry] = ()) -> None:
        self.generation = 0
        self._principals: dict[bytes, Principal] = {}
        self.replace(entries)

    def find(self, digest: bytes) -> Principal | None:
        """Whose key this is; expired and revoked ones are found too."""
        return self._principals.get(digest)

    def replace(self, entries: Sequence[KeyEntry]) -> None:
        """Swap in a new set; a principal whose entry is the same stays, and keeps its memo."""
        fresh: dict[bytes, Principal] = {}
        for entry in entries:
            known = self._principals.get(entry.digest)
            same = known is not None and known.key == entry
            fresh[entry.digest] = known if known is not None and same else Principal(entry)
        self._principals = fresh
        self.generation += 1

    def __len__(self) -> int:
        return len(self._principals)
