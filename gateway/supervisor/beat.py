"""When chores are due: together, because waking a process costs more than most of what it then does."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from gateway.core.errors import LedgerError

log = logging.getLogger("penstock")


def after(pause: float) -> float:
    """The loop's time of the next whole multiple of `pause` seconds that is at least half a pause away."""
    return (round(asyncio.get_running_loop().time() / pause) + 1) * pause


async def rest(pause: float) -> None:
    """Sleep until then."""
    await asyncio.sleep(after(pause) - asyncio.get_running_loop().time())


async def forever(pause: float, chore: Callable[[], Awaitable[None]]) -> None:
    """Do it now and again. A failure is logged and does not end it; that the ledger is away, once."""
    name = getattr(chore, "__name__", chore)
    waits = False
    while True:
        await rest(pause)
        try:
            await chore()
            waits = False
        except LedgerError as error:
            if not waits:  # chores come some times a second, and a database may be away for hours
                log.warning("%s waits for the ledger: %s", name, error)
            waits = True
        except Exception:
            log.exception("%s failed; it is tried again", name)
