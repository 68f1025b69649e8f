"""Tokens that were seen before: the good ones until they expire, the bad ones for some seconds."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Awaitable, Callable

from gateway.core.generations import Generations
from gateway.core.principal import KeyEntry, Principal
from gateway.core.token import LONGEST, Jwt, KeySet
from gateway.net.jwt import BadToken, Checker, UnknownKey, is_token

log = logging.getLogger("penstock.tokens")

_MOST = 4096  # of either kind
_BAD_FOR = 5.0  # seconds
_WAIT = 1.0  # seconds for a fresh key set

__all__ = ["Tokens", "is_token"]


class Tokens:
    """Finds the caller of a token. Nothing here holds a token, only its SHA-256.

    A token whose key is not known waits up to a second for a fresh key set, if one may be had now.
    """

    def __init__(self, rule: Jwt, keys: KeySet, caller: Callable[[KeyEntry], Principal]) -> None:
        self._rule = rule
        self._keys = keys
        self._caller = caller
        self._checker = Checker(rule, keys)
        self._good: Generations[bytes, Principal] = Generations(_MOST)
        self._bad: dict[bytes, float] = {}
        self._generation = keys.generation

    def forget(self) -> None:
        """Check every token anew: keys or tenants have changed."""
        self._good.clear()
        self._bad.clear()

    def find(self, token: bytes) -> Principal | Awaitable[Principal | None] | None:
        """The caller, None for a token that is not good; awaitable where a fresh key set is worth a wait."""
        if len(token) > LONGEST:
            return None
        if self._generation != self._keys.generation:
            self._generation = self._keys.generation
            self.forget()
        seen = hashlib.sha256(token).digest()
        now = time.time()
        known = self._good.find(seen)
        if known is not None and known.until is not None and now < known.until:
            return known
        if self._bad.get(seen, 0.0) > now:
            return None
        try:
            return self._checked(token, seen, now)
        except BadToken as error:
            if isinstance(error, UnknownKey) and self._keys.refreshable:
                return self._again(token, seen)
            self._refuse(seen, now, error)
        return None

    async def _again(self, token: bytes, seen: bytes) -> Principal | None:
        await self._keys.refresh(_WAIT, self._rule.cooldown)
        now = time.time()
        try:
            return self._checked(token, seen, now)
        except BadToken as error:
            self._refuse(seen, now, error)
        return None

    def _checked(self, token: bytes, seen: bytes, now: float) -> Principal:
        principal = self._caller(self._checker.check(token, now))
        expires = principal.key.expires
        principal.until = now + self._rule.cache if expires is None else min(expires, now + self._rule.cache)
        self._good.keep(seen, principal)
        return principal

    def _refuse(self, seen: bytes, now: float, error: BadToken) -> None:
        log.debug("a token was refused: %s", error)
        if len(self._bad) >= _MOST:
            self._bad.clear()
        self._bad[seen] = now + _BAD_FOR
