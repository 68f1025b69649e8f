"""When chores are due: together, because waking a process costs more than most of what it then does."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

log = logging.getLogger("penstock")


def after(pause: float) -> float:
    """The loop's time of the next whole multiple of `pause` seconds that is at least half a pause away."""
    return (round(asyncio.get_running_loop().time() / pause) + 1) * pause


async def rest(pause: float) -> None:
    """Sleep until then."""
    await asyncio.sleep(after(pause) - asyncio.get_running_loop().time())


async def forever(pause: float, chore: Callable[[], Awaitable[None]]) -> None:
    """Do it now and again. A failure is logged and does not end it."""
    while True:
        await rest(pause)
        try:
            await chore()
        except Exception:
            log.exception("%s failed; it is tried again", getattr(chore, "__name__", chore))
