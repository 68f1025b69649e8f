"""What the operator says of callers' tokens (JWT, RFC 7519), and the public keys that check them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

ASYMMETRIC = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
SYMMETRIC = ("HS256", "HS384", "HS512")  # only with a secret of their own

LONGEST = 16 * 1024  # bytes of a token


class Hidden(Protocol):
    """A secret that can't be printed."""

    def reveal(self) -> str:
        """The secret itself."""


@dataclass(slots=True, frozen=True)
class Claims:
    """Where a token says what; dotted paths ("groups.0"), "" where it does not say."""

    tenant: str = ""
    team: str = ""
    user: str = ""
    roles: str = ""
    models: str = ""
    tags: str = ""


@dataclass(slots=True, frozen=True)
class Jwt:
    """`[auth.jwt]`. One of `jwks` (a URL), `key` (a PEM public key), `secret` is there. Times in seconds."""

    issuer: str
    audience: tuple[str, ...]
    jwks: str = ""
    key: str = ""
    secret: Hidden | None = None
    algorithms: tuple[str, ...] = ("RS256",)
    claims: Claims = Claims(user="sub")
    required: tuple[str, ...] = ()
    leeway: float = 10.0  # how far the issuer's clock may be ahead
    refresh: float = 3600.0  # the key set is fetched anew after
    cooldown: float = 30.0  # and for a key that is not in it at most so often
    cache: float = 300.0  # a token that was good is not checked again for so long
    ca: str = ""  # PEM file of extra roots for `jwks`


class KeySet:
    """The identity provider's public keys, as of the newest word from whoever fetches them.

    `generation` moves with every change. `ask` asks for a fresh set; it is called only when one may be
    had, so that tokens with made-up keys lead to no request and wait for nothing.
    """

    def __init__(self, ask: Callable[[], None] | None = None) -> None:
        self.generation = 0
        self.keys: tuple[Mapping[str, Any], ...] = ()
        self._ask = ask
        self._not_before = 0.0  # monotonic
        self._question: tuple[asyncio.Event, float] | None = None  # under way, and when it is given up

    def replace(self, keys: Sequence[Mapping[str, Any]], pause: float) -> bool:
        """What is known now; a fresh set can be had in `pause` seconds. Whether anything is new."""
        new = tuple(keys) != self.keys
        if new:
            self.keys = tuple(keys)
            self.generation += 1
        self._not_before = time.monotonic() + pause
        if self._question is not None:
            self._question[0].set()
            self._question = None
        return new

    @property
    def refreshable(self) -> bool:
        """Whether a fresh set may be had now, or is on its way."""
        now = time.monotonic()
        if self._question is not None and now < self._question[1]:
            return True
        return self._ask is not None and now >= self._not_before

    async def refresh(self, most: float, again: float) -> None:
        """Wait for a fresh set, until `most` seconds after it was asked for.

        Look at `refreshable` first. Where nothing comes it is asked for again in `again` seconds at the
        earliest.
        """
        question = self._question
        if question is None or time.monotonic() >= question[1]:
            assert self._ask is not None
            question = self._question = asyncio.Event(), time.monotonic() + most
            self._not_before = time.monotonic() + again
            self._ask()
        arrived, end = question
        try:
            async with asyncio.timeout(end - time.monotonic()):
                await arrived.wait()
        except TimeoutError:
            pass
