"""When chores are due: together, because waking a process costs more than most of what it then does."""

from __future__ import annotations

import asyncio


def after(pause: float) -> float:
    """The loop's time of the next whole multiple of `pause` seconds that is at least half a pause away."""
    return (round(asyncio.get_running_loop().time() / pause) + 1) * pause


async def rest(pause: float) -> None:
    """Sleep until then."""
    await asyncio.sleep(after(pause) - asyncio.get_running_loop().time())
