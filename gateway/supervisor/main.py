"""`penstock serve`: takes what only one process may have, then runs the appliance on it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import uvloop

from gateway.link import lock
from gateway.observe.log import setup
from gateway.settings.faults import ConfigError
from gateway.settings.schema import Server
from gateway.supervisor.appliance import Appliance
from gateway.supervisor.listen import StartError, listen, unlink
from gateway.supervisor.revisions import Revisions


def serve(path: Path | None) -> int:
    """Run until told to stop. Exit status: 0 stopped in order, 1 could not start or was stopped at once."""
    try:
        revisions = Revisions(path, os.environ)
        setup(revisions.current.observe.level)
        server = revisions.current.server
        with (
            data_dir(Path(server.data_dir)) as data,
            _sockets(server) as (data_port, admin_port),
            asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
        ):
            return runner.run(Appliance(revisions, data, data_port, admin_port).run())
    except (ConfigError, StartError) as error:
        print(error, file=sys.stderr)
        return 1


@contextlib.contextmanager
def data_dir(path: Path) -> Iterator[Path]:
    """The data directory, ours alone for as long as we live."""
    try:
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
        held = lock.hold(path / "supervisor.lock")
    except OSError as error:
        raise StartError(f"server.data_dir {path} can't be used: {error.strerror}") from error
    if held is None:
        owner = (path / "supervisor.lock").read_text().strip()
        raise StartError(
            f"server.data_dir {path} is in use by another penstock (pid {owner or 'unknown'}); "
            "stop it or choose another data_dir"
        )
    try:
        os.ftruncate(held, 0)
        os.write(held, f"{os.getpid()}\n".encode())
        yield path
    finally:
        os.close(held)


@contextlib.contextmanager
def _sockets(server: Server) -> Iterator[tuple[socket.socket, socket.socket]]:
    with contextlib.ExitStack() as stack:
        sockets = []
        for name in ("listen", "admin"):
            address = getattr(server, name)
            stack.callback(unlink, address)  # after the socket is closed
            sockets.append(stack.enter_context(listen(address, f"server.{name}")))
        yield sockets[0], sockets[1]
