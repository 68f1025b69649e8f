"""Ranges of addresses: `10.0.0.0/8`, `2001:db8::/32`, or a single address."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Any

from gateway.settings.faults import quote
from gateway.settings.kinds import Kind, Reading, Wrong, text_of
from gateway.settings.tables import Many
from gateway.settings.tree import Node


class Network(Kind):
    """A CIDR range in its shortest form; an address alone is the range of just it."""

    def parse(self, node: Node, reading: Reading) -> str:
        text = text_of(node, 'an address range such as "10.0.0.0/8"')
        try:
            return str(ip_network(text))
        except ValueError:
            pass
        try:
            right = ip_network(text, strict=False)
        except ValueError:
            raise Wrong(f'{quote(text)} is not an address range such as "10.0.0.0/8"') from None
        raise Wrong(f"{quote(text)} has bits beyond its length; write {quote(str(right))}")

    def schema(self) -> dict[str, Any]:
        return {"type": "string", "pattern": "^[0-9A-Fa-f:.]+(/[0-9]{1,3})?$"}


NETWORKS = Many(Network(), most=1000)
