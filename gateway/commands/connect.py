"""Whom a command asks: the gateway that runs, or where none does, the ledger."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gateway.commands.client import Client
from gateway.commands.ledger import opened
from gateway.commands.output import Refused, load
from gateway.commands.remote import Remote
from gateway.link import lock


@contextmanager
def connected(args: Namespace, create: bool = False) -> Iterator[Client]:
    """The gateway of this configuration; without one its ledger, made where `create` says so.

    Raises `Refused`.
    """
    settings = load(args)
    data = Path(settings.server.data_dir)
    if _runs(data):
        remote = Remote(settings)
        if remote.there():
            yield remote
            return
        print(
            f"no gateway answers at {remote.where}, though one has {data}: "
            "this is done in its ledger, where it is noticed",
            file=sys.stderr,
        )
    from gateway.commands.offline import Offline  # it loads half of the gateway

    with opened(settings, create) as ledger:
        yield Offline(settings, ledger)


def _runs(data: Path) -> bool:
    try:
        return lock.held(data / "supervisor.lock")
    except OSError as error:
        raise Refused(f"{data} can't be read: {(error.strerror or str(error)).lower()}") from None
