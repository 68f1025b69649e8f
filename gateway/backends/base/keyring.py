"""The credentials of one backend, taken in turn; one that was refused rests for a while."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from typing import Any

from gateway.core.moment import pause

log = logging.getLogger("penstock.backends")

REFUSED = 60.0  # seconds a key rests that the provider does not accept (401, 403)
LIMITED = 10.0  # seconds a key rests after a 429 that does not say how long
LONGEST = 600.0


class Credential:
    """One API key as the header block that goes out with it. `until`: it rests (clock's seconds).

    `name` is what may be said of it; `ways` is the backend's memory of requests made with it.
    """

    __slots__ = ("block", "name", "until", "ways")

    def __init__(self, block: bytes, name: str = "") -> None:
        self.block = block
        self.name = name
        self.ways: dict[Any, Any] = {}
        self.until = 0.0

    def __repr__(self) -> str:
        return "Credential(***)"


class Keyring:
    """Round robin over the credentials that do not rest; when all do, over the one that wakes first."""

    __slots__ = ("_clock", "_credentials", "_next", "only")

    def __init__(
        self,
        blocks: Sequence[bytes],
        clock: Callable[[], float] = time.monotonic,
        names: Sequence[str] = (),
    ) -> None:
        names = names or [""] * len(blocks)
        self._credentials = [Credential(*each) for each in zip(blocks, names, strict=True)]
        self.only = self._credentials[0] if len(self._credentials) == 1 else None
        self._clock = clock
        self._next = 0

    def pick(self) -> Credential:
        """The next one's turn."""
        if self.only is not None:
            return self.only
        credentials = self._credentials
        now = self._clock()
        for _ in credentials:
            credential = credentials[self._next]
            self._next = (self._next + 1) % len(credentials)
            if credential.until <= now:
                return credential
        return min(credentials, key=lambda credential: credential.until)

    def other(self, tried: Sequence[Credential]) -> Credential | None:
        """One that does not rest and was not tried; None where there is none."""
        credential = self.pick()
        untried = [each for each in self._credentials if each not in tried and each.until <= self._clock()]
        return credential if credential in untried else next(iter(untried), None)

    def refused(self, credential: Credential, status: int, retry_after: bytes | None) -> None:
        """The provider answered 401, 403 or 429 to this one."""
        stated = None if retry_after is None else pause(retry_after, time.time())
        rest = (LIMITED if status == 429 else REFUSED) if stated is None else min(stated, LONGEST)
        now = self._clock()
        if credential.until <= now:  # else it was told of already
            log.warning("the provider answered %d to %s; that key rests %g s", status, credential.name, rest)
        credential.until = now + rest
