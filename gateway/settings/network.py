"""Ranges of addresses: `10.0.0.0/8`, `2001:db8::/32`, or a single address."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Any

from gateway.settings.faults import quote
from gateway.settings.kinds import Kind, Reading, Wrong, text_of
from gateway.settings.tables import Many
from gateway.settings.tree import Node

_IN_IPV6 = IPv6Network("::ffff:0:0/96")


def shortest(text: str, strict: bool = True) -> str:
    """A range in its shortest form. Raises `ValueError` where it is none, with `strict` also for bits beyond
    its length. A range of IPv4 inside IPv6 is that of IPv4: callers' addresses are compared as such."""
    found = ip_network(text, strict=strict)
    if isinstance(found, IPv6Network) and found.subnet_of(_IN_IPV6):
        return str(IPv4Network((int(found.network_address) & 0xFFFF_FFFF, found.prefixlen - 96)))
    return str(found)


class Network(Kind):
    """A CIDR range in its shortest form; an address alone is the range of just it."""

    def parse(self, node: Node, reading: Reading) -> str:
        text = text_of(node, 'an address range such as "10.0.0.0/8"')
        try:
            return shortest(text)
        except ValueError:
            pass
        try:
            right = shortest(text, strict=False)
        except ValueError:
            raise Wrong(f'{quote(text)} is not an address range such as "10.0.0.0/8"') from None
        raise Wrong(f"{quote(text)} has bits beyond its length; write {quote(right)}")

    def schema(self) -> dict[str, Any]:
        return {"type": "string", "pattern": "^[0-9A-Fa-f:.]+(/[0-9]{1,3})?$"}


NETWORKS = Many(Network(), most=1000)
