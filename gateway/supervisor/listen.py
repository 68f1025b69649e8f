"""Listening sockets from addresses; what to tell people to type to reach them."""

from __future__ import annotations

import errno
import socket
import stat
import time
from pathlib import Path

from gateway.settings.address import Address, parse

_BACKLOG = 4096
_PATIENCE = 2.0  # seconds; the workers of a supervisor that was killed close the same address first thing


class StartError(Exception):
    """The appliance can't start; the message says why and what would be right."""


def listen(address: str, name: str, patience: float = _PATIENCE) -> socket.socket:
    """A listening socket. An address in use is tried again for `patience` seconds. Raises `StartError`."""
    where = parse(address)
    deadline = time.monotonic() + patience
    while True:
        try:
            return _unix(Path(where.path)) if where.path else _tcp(where)
        except OSError as error:
            if error.errno != errno.EADDRINUSE or time.monotonic() > deadline:
                raise StartError(f"can't listen on {name} = {address!r}: {_reason(error)}") from error
        time.sleep(0.02)


def _reason(error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return "another process listens there; stop it or choose another address"
    if error.errno == errno.EACCES:
        return "this user may not; ports below 1024 need a privilege"
    return error.strerror or str(error)


def _tcp(where: Address) -> socket.socket:
    family, _, _, _, address = socket.getaddrinfo(
        where.host, where.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    dual = family == socket.AF_INET6 and where.host == "::" and socket.has_dualstack_ipv6()
    sock = socket.create_server(address[:2], family=family, backlog=_BACKLOG, dualstack_ipv6=dual)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # accepted sockets inherit it
    return sock


def _unix(path: Path) -> socket.socket:
    """Like TCP, an address that nobody listens on is free: a socket file left behind is replaced."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if path.exists() and stat.S_ISSOCK(path.stat().st_mode) and not _answers(path):
            path.unlink(missing_ok=True)
        sock.bind(str(path))
        sock.listen(_BACKLOG)
    except BaseException:
        sock.close()
        raise
    return sock


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        try:
            probe.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except OSError:
            pass
    return True


def unlink(address: str) -> None:
    """Remove the file of a Unix socket that nobody listens on any more."""
    path = parse(address).path
    if path and not _answers(Path(path)):
        Path(path).unlink(missing_ok=True)


def url(sock: socket.socket, tls: bool = False) -> str:
    """How a client on this machine reaches the socket: a URL, or unix:PATH."""
    if sock.family == socket.AF_UNIX:
        return f"unix:{sock.getsockname()}"
    host, port = sock.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
    return f"{'https' if tls else 'http'}://{host}:{port}"
