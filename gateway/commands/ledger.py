"""The ledger as commands use it: beside a running gateway or without one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gateway.commands.output import Refused
from gateway.core.errors import LedgerError
from gateway.core.ports import Ledger
from gateway.settings.schema import Settings


@contextmanager
def opened(settings: Settings, create: bool = False) -> Iterator[Ledger | None]:
    """The ledger in data_dir; None where there is none yet and none is to be made. Raises `Refused`."""
    file = Path(settings.server.data_dir) / "ledger.sqlite"
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
