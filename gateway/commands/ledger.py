"""The ledger as commands use it: beside a running gateway or without one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from gateway.commands.output import Refused
from gateway.core.errors import LedgerError
from gateway.core.ports import Ledger
from gateway.settings.exec import PREFIX, Execs, Failed, command
from gateway.settings.schema import Settings
from gateway.settings.sealed import SOURCES
from gateway.settings.secret import Secret


@contextmanager
def opened(settings: Settings, create: bool = False) -> Iterator[Ledger | None]:
    """The ledger in data_dir; None where there is none yet and none is to be made. Raises `Refused`."""
    file = Path(settings.server.data_dir) / "ledger.sqlite"
    settings = _resolved(settings)
    if settings.state.ledger is None and not create and not file.exists():
        yield None
        return
    from gateway import registry
    from gateway.supervisor.replica import replica_id

    try:
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        ledger = registry.ledger(settings, file.parent, replica_id(file.parent))
        ledger.open()
    except OSError as error:
        raise Refused(f"{file.parent} can't be used: {(error.strerror or str(error)).lower()}") from None
    except (LedgerError, ValueError) as error:
        raise Refused(str(error)) from None
    try:
        yield ledger
    except LedgerError as error:
        raise Refused(str(error)) from None
    finally:
        ledger.close()


def _resolved(settings: Settings) -> Settings:
    """With the database's URL, should a command give it: others are not asked for what they do not need."""
    url = settings.state.ledger
    if url is None or not url.reveal().startswith(SOURCES):
        return settings
    source, text = url.source, url.reveal()
    if not text.startswith(PREFIX):
        raise Refused(f"the ledger is a database whose URL can't be had here: {source}")
    try:
        given = Execs().value(command(text, Path(settings.path).parent), os.environ)
    except Failed as failed:
        raise Refused(f"the ledger is a database whose URL can't be had: {failed}") from None
    return replace(settings, state=replace(settings.state, ledger=Secret(given, source)))
