"""The identity provider's key set, for all workers: fetched here and nowhere else."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any

from gateway.core.token import Jwt, KeySet
from gateway.link import protocol

log = logging.getLogger("penstock.jwks")

Fetch = Callable[[str, str], Awaitable[list[dict[str, Any]]]]


async def _fetch(url: str, ca: str) -> list[dict[str, Any]]:
    from gateway.net.jwks import fetch  # httpx and the cryptography are loaded only where somebody asked

    return await fetch(url, ca)


class Jwks:
    """Fetches at once, every `refresh` seconds, and when a worker meets an unknown key.

    Between two requests there are always `cooldown` seconds, however many ask. Where a request fails the set
    that was there stays. `tell` hears of each new message for workers, `failed` of the first of several
    failures, `count` of every request.
    """

    def __init__(
        self,
        tell: Callable[[protocol.Message], None],
        failed: Callable[[str, str], None],
        count: Callable[..., None],
        fetch: Fetch = _fetch,
    ) -> None:
        self._tell = tell
        self._failed = failed
        self._count = count
        self._fetch = fetch
        self.key_set = KeySet(self.asked)  # the same for whoever checks tokens in this process
        self._rule: Jwt | None = None
        self._keys: list[dict[str, Any]] = []
        self._not_before = 0.0  # monotonic
        self._failing = False
        self._wanted = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def configure(self, rule: Jwt | None) -> None:
        """Fetch what this revision says; keys of another place are forgotten at once."""
        if rule is not None and not rule.jwks:
            rule = None
        if rule == self._rule:
            return
        moved = rule is None or self._rule is None or rule.jwks != self._rule.jwks
        self._rule = rule
        if self._task is not None:
            self._task.cancel()
            self._task = None
        if moved:
            self._keys, self._not_before, self._failing = [], 0.0, False
            self.key_set.replace([], 0.0)
        if rule is not None:
            self._say()
            self._task = asyncio.create_task(self._keep(rule))

    def message(self) -> protocol.Message:
        """The set as it is, and in how many seconds a fresh one can be had."""
        return protocol.jwks(self._keys, max(0.0, self._not_before - time.monotonic()))

    def _say(self) -> None:
        message = self.message()
        self.key_set.replace(message["keys"], message["pause"])
        self._tell(message)

    def asked(self) -> None:
        """A worker has met a key that is not in its set."""
        if self._rule is None:
            return
        if time.monotonic() >= self._not_before:
            self._wanted.set()
        else:
            self._say()

    async def _keep(self, rule: Jwt) -> None:
        while True:
            early = self._not_before - time.monotonic()
            if early > 0:
                await asyncio.sleep(early)
            self._wanted.clear()
            good = await self._refresh(rule)
            self._wanted.clear()  # those that asked meanwhile have been told
            try:
                async with asyncio.timeout(rule.refresh if good else rule.cooldown):
                    await self._wanted.wait()
            except TimeoutError:
                pass

    async def _refresh(self, rule: Jwt) -> bool:
        try:
            self._keys = await self._fetch(rule.jwks, rule.ca)
        except Exception as error:
            self._count("jwks_fetches", "failed")
            if not self._failing:
                self._failing = True
                self._failed(_origin(rule.jwks), str(error))
        else:
            self._count("jwks_fetches", "ok")
            if self._failing:
                log.info("the key set of %s can be fetched again", _origin(rule.jwks))
            self._failing = False
        self._not_before = time.monotonic() + rule.cooldown
        self._say()
        return not self._failing

    async def close(self) -> None:
        """Fetch no more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
            self._task = None


def _origin(url: str) -> str:
    """A URL without its query, which may name somebody."""
    return url.partition("?")[0]
