"""Addresses to listen on: `HOST:PORT`, `[IPV6]:PORT` or `unix:PATH`."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import Any

from gateway.settings.faults import quote
from gateway.settings.kinds import Kind, Reading, Wrong, text_of
from gateway.settings.tree import Node

_HOST_PORT = re.compile(r"(?:\[([0-9A-Fa-f:.%a-z]+)\]|([A-Za-z0-9_.-]+)):([0-9]{1,5})")
_LONGEST_SOCKET = 107  # bytes of a Unix socket's path (sockaddr_un, Linux)
_FORMS = '"HOST:PORT", "[IPV6]:PORT" or "unix:PATH"'


@dataclass(slots=True, frozen=True)
class Address:
    """Where to listen: a host and port, or `path` of a Unix socket."""

    host: str = ""
    port: int = 0
    path: str = ""

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach it."""
        if self.path or self.host == "localhost":
            return True
        ip = _ip(self.host)
        return ip is not None and ip.is_loopback

    def meets(self, other: Address) -> bool:
        """Whether both can't be listened on at once. Port 0 (any free one) meets nothing."""
        if self.path or other.path:
            return self.path == other.path
        if self.port != other.port or not self.port:
            return False
        return self.host == other.host or self.everywhere or other.everywhere

    @property
    def everywhere(self) -> bool:
        """Whether it is every address of this machine."""
        ip = _ip(self.host)
        return ip is not None and ip.is_unspecified

    def __str__(self) -> str:
        if self.path:
            return f"unix:{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def _ip(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def parse(text: str) -> Address:
    """The address a text names. Raises `Wrong` saying what would be right."""
    if text.startswith("unix:"):
        return _socket(text.removeprefix("unix:"))
    match = _HOST_PORT.fullmatch(text)
    if match is None:
        raise Wrong(f"{quote(text)} is not an address; write {_FORMS}")
    six, host, port = match.groups()
    if six is not None and (_ip(six) is None or ":" not in six):
        raise Wrong(f"{quote(six)} is not an IPv6 address")
    if host and re.fullmatch(r"[0-9.]+", host) and _ip(host) is None:
        raise Wrong(f"{quote(host)} is not an IPv4 address")
    if int(port) > 65535:
        raise Wrong(f"port {port} does not exist; the last one is 65535")
    return Address(six or host, int(port))


def _socket(path: str) -> Address:
    if not path or not path.isprintable():
        raise Wrong('names no socket; write "unix:PATH"')
    if len(path.encode()) > _LONGEST_SOCKET:
        raise Wrong(f"the socket's path is longer than {_LONGEST_SOCKET} bytes")
    return Address(path=path)


class Listen(Kind):
    """An address to listen on; a socket's path is made absolute."""

    def parse(self, node: Node, reading: Reading) -> str:
        address = parse(text_of(node, f"an address: {_FORMS}"))
        if address.path:
            address = _socket(str(node.source.directory / address.path))
        return str(address)

    def schema(self) -> dict[str, Any]:
        return {
            "type": "string",
            "pattern": r"^(unix:.+|\[[0-9A-Fa-f:.%a-z]+\]:[0-9]{1,5}|[A-Za-z0-9_.-]+:[0-9]{1,5})$",
        }
