"""The admin port: uvicorn in the supervisor's own loop."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import uvicorn

from gateway.control.app import build
from gateway.core.store import LedgerStore
from gateway.supervisor.clerk import InThread
from gateway.supervisor.desk import AdminDesk
from gateway.supervisor.directory import Directory
from gateway.supervisor.impatient import CONNECTIONS, Impatient
from gateway.supervisor.jwks import Jwks
from gateway.supervisor.limits import Limits
from gateway.supervisor.listen import StartError, url
from gateway.supervisor.operators import ADDRESS, Operators, admin_token
from gateway.supervisor.report import Report, log
from gateway.supervisor.revisions import Revisions
from gateway.supervisor.workers import Workers


class Admin(uvicorn.Server):
    """Serves the control app on a socket until `close`; signals are the supervisor's business.

    Raises `StartError` where there is no good admin token and none can be kept.
    """

    def __init__(
        self,
        report: Report,
        revisions: Revisions,
        workers: Workers,
        limits: Limits,
        directory: Directory,
        ledger: LedgerStore,
        do: InThread,
        data: Path,
        jwks: Jwks,
        reload: Callable[[], Awaitable[None]],
    ) -> None:
        try:
            token, self._made = admin_token(data, os.environ)
        except (OSError, ValueError) as error:
            raise StartError(f"the admin API has no token: {error}") from error
        self._token = token if self._made else ""
        self._address = data / ADDRESS
        self.operators = Operators(token, lambda: revisions.current, jwks)
        self.desk = AdminDesk(
            report, revisions, workers, limits, directory, ledger, do, self.operators, reload
        )
        super().__init__(
            uvicorn.Config(
                build(self.desk),
                http=Impatient,
                ws="none",
                lifespan="off",
                log_config=None,
                log_level="warning",
                access_log=False,
                date_header=False,
                server_header=False,
                limit_concurrency=CONNECTIONS,
                timeout_graceful_shutdown=1,
            )
        )
        self._closed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def welcome(self) -> None:
        """Print the admin token once, when it has just been made."""
        if self._token:
            told = "it is shown only now and kept in data_dir/admin.token"
            print(f"An admin token was made; {told}:  {self._token}", flush=True)
            self._token = ""

    def open(self, sock: socket.socket) -> None:
        """Start serving, and note where: it may be another place than the file says."""
        fresh = self._address.with_name(f"{ADDRESS}.new")
        try:
            fresh.write_text(url(sock).removeprefix("http://") + "\n", "utf-8")
            fresh.replace(self._address)
        except OSError as error:
            log.warning("commands on this host may not find the admin port: %s", error)
        self._task = asyncio.create_task(self.serve(sockets=[sock]))

    async def close(self) -> None:
        """Stop; answers under way have a second."""
        self._closed.set()
        self._address.unlink(missing_ok=True)
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
