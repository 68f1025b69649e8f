"""Whom a command asks: the gateway that runs, or where none does, the ledger."""

from __future__ import annotations

import re
import sys
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gateway.commands.client import Client
from gateway.commands.ledger import opened
from gateway.commands.output import Faulty, Refused, config_path, load
from gateway.commands.remote import Remote
from gateway.link import lock
from gateway.settings.process import DATA_DIR
from gateway.settings.schema import Server, Settings

_STATED = re.compile(r"""^[ \t]*data_dir[ \t]*=[ \t]*(["'])(.+?)\1""", re.MULTILINE)


@contextmanager
def connected(args: Namespace, create: bool = False) -> Iterator[Client]:
    """The gateway of this configuration; without one its ledger, made where `create` says so.

    A file with faults keeps nobody from the gateway that serves an earlier state of it: keys are revoked and
    configurations taken back just then. Raises `Refused`.
    """
    try:
        settings = load(args)
    except Faulty:
        remote = _serving(config_path(args))
        if remote is None:
            raise
        print(
            "the configuration has faults (penstock check tells them): the one that serves holds",
            file=sys.stderr,
        )
        yield remote
        return
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


def _serving(path: Path | None) -> Remote | None:
    """The gateway that was started with this file, which has faults now; None where none is found."""
    if path is None:
        return None
    path = path.absolute()
    try:
        stated = _STATED.search(path.read_text("utf-8", "replace"))
    except OSError:
        stated = None
    data = path.parent / (stated[2] if stated else DATA_DIR)
    if not _runs(data):
        return None
    remote = Remote(Settings(path=str(path), server=Server(data_dir=str(data))))
    # What stands in `data` may be another's: this file's own may be stated in one that it includes.
    return remote if remote.there() and str(path) in remote.ask("GET", "config")["files"] else None


def _runs(data: Path) -> bool:
    try:
        return lock.held(data / "supervisor.lock")
    except OSError as error:
        raise Refused(f"{data} can't be read: {(error.strerror or str(error)).lower()}") from None
