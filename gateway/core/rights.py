"""What a caller may use: compiled once per principal from its key and every group it is in.

All of them must allow what is asked. Nothing here looks at a call or raises: `core.rights` says what is
allowed, a stage says so to the caller.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from fnmatch import translate
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from gateway.core.principal import Principal

CALLER = "caller"  # the role of those that call models
OPERATORS = ("viewer", "operator", "admin", "auditor")  # roles for the admin API; they call no models

_MOST_ADDRESSES = 256  # that are remembered for one principal

Matches = Callable[[str], bool]
Network = IPv4Network | IPv6Network


class Rights:
    """The rights of one principal. What is "" is allowed.

    `disabled` names the group that is switched off. `calls` says whether its roles let it call models at
    all, `chosen` whether it may use certain models only, `listed` whether models or endpoints are listed for
    it, `fenced` whether it must come from certain networks.
    """

    __slots__ = ("_addresses", "_endpoints", "_models", "_networks", "calls", "chosen", "disabled", "fenced",
                 "listed", "tags")  # fmt: skip

    def __init__(self, principal: Principal) -> None:
        key = principal.key
        own = "This token" if key.origin == "jwt" else "This key"
        named = [(own, key), *((f"The {kind} `{name}`", rules) for kind, name, rules in principal.groups)]
        self._models = tuple((who, globs(rules.models)) for who, rules in named if rules.models)
        self._endpoints = tuple((who, globs(rules.endpoints)) for who, rules in named if rules.endpoints)
        self._networks = tuple((who, networks(rules.networks)) for who, rules in named if rules.networks)
        self._addresses: dict[str, str] = {}
        tags = [tag for _, rules in named for tag in rules.tags]
        self.tags = tuple(dict.fromkeys(tags))
        off = [f"The {kind} `{name}`" for kind, name, rules in principal.groups if rules.disabled]
        self.disabled = off[0] if off else ""
        self.calls = not key.roles or any(role not in OPERATORS for role in key.roles)
        self.chosen = bool(self._models)
        self.listed = bool(self._models or self._endpoints)
        self.fenced = bool(self._networks)

    def model(self, name: str) -> str:
        """Who does not allow this model; ""  where all do."""
        return next((who for who, matches in self._models if not matches(name)), "")

    def endpoint(self, *names: str) -> str:
        """Who does not allow an endpoint that has these names."""
        return next((who for who, matches in self._endpoints if not any(map(matches, names))), "")

    def address(self, client: str) -> str:
        """Who does not allow calls from this address. One that is no IP address is in no network."""
        found = self._addresses.get(client)
        if found is None:
            found = self._outside(client)
            if len(self._addresses) >= _MOST_ADDRESSES:
                self._addresses.clear()
            self._addresses[client] = found
        return found

    def _outside(self, client: str) -> str:
        address = address_of(client)
        for who, ranges in self._networks:
            if address is None or not any(address in each for each in ranges):
                return who
        return ""


def rights_of(principal: Principal) -> Rights:
    """A principal's rights, remembered with it."""
    rights: Rights | None = principal.memo.get("rights")
    if rights is None:
        rights = principal.memo["rights"] = Rights(principal)
    return rights


def address_of(text: str) -> IPv4Address | IPv6Address | None:
    """The IP address, None for what is none. IPv4 in IPv6 (::ffff:…) is IPv4; a zone is left out."""
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


@lru_cache(1024)
def networks(ranges: tuple[str, ...]) -> tuple[Network, ...]:
    """CIDR ranges as networks. Raises `ValueError`."""
    return tuple(map(ip_network, ranges))


@lru_cache(1024)
def globs(patterns: tuple[str, ...]) -> Matches:
    """Whether a name matches one of these shell-style patterns, upper and lower case apart."""
    exact = frozenset(pattern for pattern in patterns if not any(mark in pattern for mark in "*?["))
    others = [re.compile(translate(pattern)).match for pattern in patterns if pattern not in exact]
    if not others:
        return exact.__contains__
    return lambda name: name in exact or any(match(name) for match in others)
