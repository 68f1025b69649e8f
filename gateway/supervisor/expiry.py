"""Which keys end soon: told once a day for each, from seven days before."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any

from gateway.core.principal import KeyEntry

SOON = 7 * 86_400.0  # seconds
_DAY = 86_400.0
_MOST = 50  # keys told of in one look; the next look goes on

Happened = Callable[..., None]  # (kind, subject, **detail)


class Expiry:
    """Hears of all keys whenever they change, and looks through them now and then."""

    def __init__(self, happened: Happened, clock: Callable[[], float] = time.time) -> None:
        self._happened = happened
        self._clock = clock
        self._ending: dict[str, KeyEntry] = {}  # those that end some day, by id
        self._told: dict[str, float] = {}  # when, by id

    def know(self, entries: Iterable[KeyEntry]) -> None:
        """All keys there are."""
        self._ending = {key.id: key for key in entries if key.expires is not None and not key.revoked}
        self._told = {id: when for id, when in self._told.items() if id in self._ending}

    def look(self) -> None:
        """Tell of those that end soon and were not told of within a day."""
        now, told = self._clock(), 0
        for key in self._ending.values():
            left = (key.expires or 0.0) - now
            if 0.0 < left <= SOON and now - self._told.get(key.id, 0.0) >= _DAY and told < _MOST:
                self._told[key.id] = now
                told += 1
                self._happened("key.expiring", f"key {key.name}", **_figures(key, left))


def _figures(key: KeyEntry, left: float) -> dict[str, Any]:
    """What an owner has to know; never the key or its digest."""
    return {"id": key.id, "tenant": key.tenant, "expires": key.expires, "hours_left": int(left // 3600)}
