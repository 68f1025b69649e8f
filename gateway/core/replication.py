"""The port to what replicas tell one another through a shared store: entities, and whose turn it is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol


class StoreAway(Exception):
    """The shared store can't be reached in time, or fails."""


class Put(NamedTuple):
    """One entity to write, if what stands there has the SHA-1 `seen` (hex); "": if nothing stands there.

    An empty `text` takes it out, and tells nobody.
    """

    name: str
    seen: str
    text: bytes


class EntityStore(Protocol):
    """The shared store. Every method raises `StoreAway`."""

    async def look(self, mark: str) -> tuple[str, int, int]:
        """The era ("" where nothing is there), the counter, and the place of the entity `mark`.

        The place is 0 where there is no such entity; of no entity ("") it is the counter.
        """

    async def page(self, after: int, most: int) -> Sequence[tuple[int, str, bytes]]:
        """What was written after this place of the counter, in order: place, name, text."""

    async def put(self, era: str, n: int, fresh: str, puts: Sequence[Put]) -> tuple[str, list[bytes | None]]:
        """Write, and tell everybody. Gives the era and what stands there instead; None: it was written.

        `era` and `n` are what the writer has seen last; a store that is behind it, or has no era yet, takes
        `fresh` as its era. When its era is not the writer's nothing is written and nothing given; "" is any.
        """

    async def hold(self, token: str, ms: int) -> bool:
        """Take the turn, for at most so long; False while somebody else has it."""

    async def release(self, token: str) -> None:
        """Give it back, if it is still ours."""
