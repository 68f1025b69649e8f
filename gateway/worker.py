"""A data-plane process: revision → pipeline → listening socket.

The supervisor starts it with three inherited descriptors: the link, the listening socket, and a lock that
says that it lives. When the link closes the supervisor has died: the worker drains and exits.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import logging
import resource
import signal
import socket
from pathlib import Path
from typing import Any

import uvicorn
import uvloop
from uvicorn.server import ServerState

from gateway import registry
from gateway.compose import Composer, retire
from gateway.core.keys import Keys
from gateway.core.parts import Parts
from gateway.core.ports import Backend
from gateway.core.token import KeySet
from gateway.front import asgi, lane
from gateway.front.door import Door
from gateway.link import ends, protocol
from gateway.link.journal import JournalWriter
from gateway.link.leases import LeaseClient
from gateway.link.seal import Seal
from gateway.live import Live
from gateway.observe.log import setup
from gateway.pipeline import Pipeline
from gateway.settings.schema import Server, Settings

log = logging.getLogger("penstock.worker")

_GRACE = 5.0  # seconds that connections have for their last bytes once the drain time is over
_REPORT = 1.0  # seconds between two reports


def admit(door: Door, live: Live, server: Server) -> None:
    """Serve new connections with these bounds and this certificate."""
    hot, tls = lane.Lane(live, server.bounds), server.tls
    config = uvicorn.Config(
        app=asgi.build(live, server.bounds, hot.intake),
        http=lane.LaneProtocol,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        date_header=False,
        server_header=False,
        proxy_headers=False,
        ssl_certfile=tls.cert if tls else None,
        ssl_keyfile=tls.key if tls else None,
    )
    config.load()
    state = ServerState()
    state.connections = door.connections
    door.open(lambda: hot(config, state, {}), config.ssl, server.bounds.connections)


class Worker:
    """One data-plane process, from its first revision to its last call."""

    def __init__(self, number: int, journal: JournalWriter) -> None:
        self._number = number
        self._journal = journal
        self._keys = Keys()
        self._key_set = KeySet(lambda: self._send({"t": "kid"}))
        self._seal = Seal()
        self._counts: dict[tuple[str, ...], float] = {}
        self._leases = LeaseClient(self._send, counts=self._counts)
        self._leaving = asyncio.Event()
        self._drain_time: float | None = None  # None: as the settings say
        self._settings = Settings()
        self._keyed = asyncio.Event()
        self._revisions: asyncio.Queue[Settings] = asyncio.Queue()
        self._link: ends.End | None = None
        self._retiring: set[asyncio.Task[None]] = set()
        self._composer = Composer(self._parts, registry.backend, registry.stages)

    def _parts(self, **revised: Any) -> Parts:
        same: dict[str, Any] = {
            "keys": self._keys,
            "key_set": self._key_set,
            "leases": self._leases,
            "journal": self._journal,
            "counts": self._counts,
            "seal": self._seal.close,
        }
        return Parts(worker=self._number, **same, **revised)

    # -- the supervisor's word

    async def connect(self, sock: socket.socket) -> ends.End:
        """Hear the supervisor from now on."""
        self._link = await ends.connect(sock, self._receive, self._orphaned)
        return self._link

    def _send(self, message: protocol.Message) -> None:
        if self._link is not None:
            self._link.send(message)

    def _receive(self, message: protocol.Message) -> None:
        match message["t"]:
            case "revision":
                self._revisions.put_nowait(protocol.settings_of(message))
            case "keys":
                self._keys.replace(protocol.entries_of(message), protocol.tenants_of(message) or ())
                self._keyed.set()
            case "key_changes":
                self._keys.change(protocol.entries_of(message), message["gone"], protocol.tenants_of(message))
            case "jwks":
                if self._key_set.replace(message["keys"], message["pause"]):
                    self._keys.renew()
            case "seal":
                self._seal.hear(message)
            case "drain":
                self._drain_time = float(message["seconds"])
                self._leaving.set()
            case _:
                self._leases.receive(message)

    def _orphaned(self, error: Exception | None) -> None:
        log.info("the supervisor has gone (%s)", error or "link closed")
        self._leaving.set()

    # -- from start to end

    async def serve(self, listener: socket.socket) -> int:
        """Serve until told to leave, then drain. Gives the exit status."""
        starting = asyncio.create_task(self._start(Door(listener)))
        leaving = asyncio.create_task(self._leaving.wait())
        await asyncio.wait((starting, leaving), return_when=asyncio.FIRST_COMPLETED)
        if not starting.done():
            starting.cancel()
            return 0
        started = starting.result()
        if started is None:
            return 1
        live, door = started
        revising = asyncio.create_task(self._revise(live, door))
        reporting = asyncio.create_task(self._report(live))
        await leaving
        revising.cancel()
        await self._drain(live, door)
        reporting.cancel()
        self._tell(live, 0.0)
        await retire(live.pipeline, self._composer.backends)
        return 0

    async def _start(self, door: Door) -> tuple[Live, Door] | None:
        settings = self._settings = await self._revisions.get()
        try:
            pipeline, _ = await self._composer.compose(settings)
            await self._keyed.wait()
            live = Live(pipeline, self._number)
            admit(door, live, settings.server)
        except Exception as error:
            self._fail(settings, error)
            return None
        # What start-up made stays: no collection need look at it again.
        gc.collect()
        gc.freeze()
        gc.set_threshold(10_000, 20, 50)
        self._send({"t": "ready", "revision": settings.revision})
        return live, door

    def _fail(self, settings: Settings, error: Exception) -> None:
        log.error("revision %s can't be served", settings.revision, exc_info=error)
        why = f"{type(error).__name__}: {error}"
        self._send({"t": "failed", "revision": settings.revision, "why": why})

    async def _revise(self, live: Live, door: Door) -> None:
        """Take each new revision; one that can't be built changes nothing."""
        while True:
            wanted = await self._revisions.get()
            try:
                pipeline, dropped = await self._composer.compose(wanted)
                if wanted.server != self._settings.server or wanted.server.tls:  # a renewed certificate
                    admit(door, live, wanted.server)
            except Exception as error:
                self._fail(wanted, error)
                continue
            live.swap(pipeline, lambda old, dropped=dropped: self._retire(old, dropped))  # type: ignore[misc]
            self._settings = wanted
            self._send({"t": "ready", "revision": wanted.revision})

    def _retire(self, pipeline: Pipeline, dropped: list[Backend]) -> None:
        task = asyncio.create_task(retire(pipeline, dropped))
        self._retiring.add(task)
        task.add_done_callback(self._retiring.discard)

    async def _drain(self, live: Live, door: Door) -> None:
        """No new connection; calls under way may end, in time, then each stream gets a final error event."""
        seconds = self._settings.server.bounds.drain if self._drain_time is None else self._drain_time
        live.draining = True
        door.close()
        if not await door.emptied(seconds):
            if live.calls:
                log.warning(
                    "%d calls are cut off: they took longer than the %g s of drain", live.calls, seconds
                )
            live.expire()
            door.expire()
            await door.emptied(_GRACE)

    async def _report(self, live: Live) -> None:
        """Once a second; that is also when the journal gets its next segment ready."""
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + _REPORT
            await asyncio.sleep(_REPORT)
            self._journal.prepare()
            self._tell(live, max(0.0, loop.time() - due))

    def _tell(self, live: Live, lag: float) -> None:
        """Gauges as they are, counters since the last time."""
        counts = {"|".join(name): delta for name, delta in self._counts.items()}
        counts |= {f"rejects|{code}": count for code, count in live.refused.items()}
        self._counts.clear()
        live.refused.clear()
        gauges = {"inflight": live.calls, "connections": live.connections, "lag_s": lag, "rss": _resident()}
        self._send({"t": "stat", "counts": counts, **gauges})


def _resident() -> int:
    return int(Path("/proc/self/statm").read_bytes().split()[1]) * resource.getpagesize()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="penstock worker", description="Started by `penstock serve`.")
    parser.add_argument("--number", type=int, required=True, help="this worker's number")
    parser.add_argument("--link", type=int, required=True, help="descriptor of the socket to the supervisor")
    parser.add_argument("--listen", type=int, required=True, help="descriptor of the listening socket")
    parser.add_argument("--journal", type=Path, required=True, help="directory of this worker's journal")
    parser.add_argument("--calls", type=int, default=10_000, help="calls open at once, at most")
    parser.add_argument("--level", default="info", help="level of the process log")
    return parser.parse_args()


async def _run(arguments: argparse.Namespace) -> int:
    journal = JournalWriter(arguments.journal, arguments.calls)
    with contextlib.closing(journal):
        worker = Worker(arguments.number, journal)
        link = await worker.connect(socket.socket(fileno=arguments.link))
        status = await worker.serve(socket.socket(fileno=arguments.listen))
        await link.finish()
        return status


def main() -> int:
    """The process. The supervisor alone decides when it ends: signals of the terminal are ignored."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    arguments = _arguments()
    setup(arguments.level)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_run(arguments))


if __name__ == "__main__":
    raise SystemExit(main())
