"""Who opens the admin API: the admin token, or a key or token whose roles are for it."""

from __future__ import annotations

import asyncio
import hmac
import os
import secrets
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from gateway.control.operator import ADMIN, Operator
from gateway.core.keys import Keys
from gateway.core.principal import Principal, digest
from gateway.core.records import Actor
from gateway.core.rights import OPERATORS, rights_of
from gateway.core.token import Jwt, KeySet
from gateway.settings.schema import Settings
from gateway.supervisor.directory import Directory, News
from gateway.supervisor.jwks import Jwks

VARIABLE = "PENSTOCK_ADMIN_TOKEN"
FILE = "admin.token"  # in data_dir, for commands on the same host
ADDRESS = "admin.address"  # beside it, while the gateway runs: where its admin port is
_LONGEST = 512  # bytes of the admin token or a key
_LOOKS, _LOOK = 20, 0.05  # for a fresh key set: how often, and seconds between


def admin_token(data: Path, environ: Mapping[str, str]) -> tuple[str, bool]:
    """The admin token, and whether it was made just now. Raises `OSError`, `ValueError`."""
    given = environ.get(VARIABLE, "").strip()
    if given:
        if len(given) < 16 or not given.isascii() or not given.isprintable():
            raise ValueError(f"{VARIABLE} must be 16 or more printable ASCII characters")
        return given, False
    file = data / FILE
    try:
        kept = file.read_text("ascii").strip()
    except FileNotFoundError:
        kept = ""
    if kept:
        return kept, False
    made = f"psa-{secrets.token_urlsafe(32)}"
    fresh = file.with_name(f"{FILE}.{secrets.token_hex(4)}")
    fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        os.write(fd, f"{made}\n".encode())
    finally:
        os.close(fd)
    fresh.replace(file)
    return made, True


class Operators:
    """Finds out who presents a credential. Hears of keys and tenants from the directory."""

    def __init__(self, token: str, settings: Callable[[], Settings], jwks: Jwks) -> None:
        self._token = digest(token.encode())
        self._settings = settings
        self._jwks = jwks
        self._keys = Keys()
        self._key_set = KeySet(self._ask)
        self._rule: Jwt | None = None
        self._tokens: Any = None
        self._asking: asyncio.Task[None] | None = None

    def hear(self, directory: Directory, news: News) -> None:
        """What has changed of keys and tenants."""
        if news.whole:
            self._keys.replace(directory.keys(), directory.tenants())
        elif news.keys or news.gone or news.tenants:
            self._keys.change(news.keys, news.gone, directory.tenants() if news.tenants else None)
        else:
            return
        if self._tokens is not None:
            self._tokens.forget()

    def _renew(self) -> None:
        """As the revision that serves and the newest key set have it."""
        rule = self._settings().auth.jwt
        if rule != self._rule:
            self._rule, self._tokens = rule, None
            if rule is not None:
                from gateway.net.tokens import Tokens  # loads cryptography, where somebody asked for it

                self._tokens = Tokens(rule, self._key_set, self._keys.caller)
        if rule is not None and rule.jwks:
            message = self._jwks.message()
            self._key_set.replace(message["keys"], message["pause"])

    def _ask(self) -> None:
        self._jwks.asked()
        self._asking = asyncio.get_running_loop().create_task(self._awaited())

    async def _awaited(self) -> None:
        """The set is fetched for the workers; it is looked at until it is another one."""
        before = self._jwks.message()["keys"]
        for _ in range(_LOOKS):
            await asyncio.sleep(_LOOK)
            message = self._jwks.message()
            if message["keys"] != before or message["pause"]:
                self._key_set.replace(message["keys"], message["pause"])
                return

    async def find(self, credential: bytes, address: str) -> Operator | None:
        """Who it is; None for a credential that opens nothing here, whatever is wrong with it."""
        if not credential:
            return None
        presented = digest(credential[: _LONGEST + 1])
        if hmac.compare_digest(presented, self._token):
            return Operator(Actor("token", "admin", "admin token", (ADMIN,), address), (ADMIN,))
        principal = self._keys.find(presented) if len(credential) <= _LONGEST else None
        self._renew()
        if principal is None and self._tokens is not None:
            found = self._tokens.find(credential)
            principal = await found if found is not None and not isinstance(found, Principal) else found
        return _operator(principal, address) if principal is not None else None


def _operator(principal: Principal, address: str) -> Operator | None:
    key = principal.key
    roles = tuple(role for role in key.roles if role in OPERATORS)
    rights = rights_of(principal)
    ended = key.revoked or (key.expires is not None and key.expires <= time.time())
    if not roles or ended or rights.disabled or (rights.fenced and rights.address(address)):
        return None
    kind = "jwt" if key.origin == "jwt" else "key"
    return Operator(Actor(kind, key.id, key.name, roles, address), roles, key)
