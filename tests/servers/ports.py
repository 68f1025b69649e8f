"""Loopback ports that stay free until somebody listens on them, however many processes run tests at once."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from itertools import count

# Below those that the kernel gives to connections and to whoever asks for any port: nobody gets one of these
# by chance between its choice and its use. A node of a Redis cluster listens 10,000 above its port too.
_FIRST, _BLOCK, _BLOCKS, _BUS = 12_000, 100, 100, 10_000


def _claimed() -> Iterator[int]:
    """Ports of blocks that this process alone hands out for as long as it lives, each once."""
    for number in count(os.getpid()):
        block = number % _BLOCKS
        mark = socket.socket(socket.AF_UNIX)
        try:
            mark.bind(f"\0penstock-tests-ports-{block}")
        except OSError:  # another process has it
            mark.close()
            if number > os.getpid() + 10 * _BLOCKS:
                raise
            continue
        mark.detach()  # stays open until the process ends
        yield from range(_FIRST + block * _BLOCK, _FIRST + (block + 1) * _BLOCK)


_ports = _claimed()


def free_ports(count: int) -> list[int]:
    """Ports nobody listens on, all different."""
    found: list[int] = []
    while len(found) < count:
        port = next(_ports)
        if _free(port) and _free(port + _BUS):
            found.append(port)
    return found


def _free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("", port))
        except OSError:
            return False
    return True
