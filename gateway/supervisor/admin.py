"""The admin port: uvicorn in the supervisor's own loop."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator

import uvicorn

from gateway.control.app import Control, build


class Admin(uvicorn.Server):
    """Serves the control app on a socket until `close`; signals are the supervisor's business."""

    def __init__(self, control: Control) -> None:
        super().__init__(
            uvicorn.Config(
                build(control),
                http="httptools",
                ws="none",
                lifespan="off",
                log_config=None,
                log_level="warning",
                access_log=False,
                date_header=False,
                server_header=False,
                limit_concurrency=256,
                timeout_graceful_shutdown=1,
            )
        )
        self._closed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def open(self, sock: socket.socket) -> None:
        """Start serving."""
        self._task = asyncio.create_task(self.serve(sockets=[sock]))

    async def close(self) -> None:
        """Stop; answers under way have a second."""
        self._closed.set()
        if self._task is not None:
            await self._task

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Take none."""
        yield

    async def main_loop(self) -> None:
        """Wait for the end without waking up ten times a second."""
        await self.on_tick(0)
        await self._closed.wait()
