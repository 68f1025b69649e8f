"""The worker processes: started, greeted, watched, replaced, told to leave."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path

from gateway.link import ends, lock, protocol
from gateway.link.protocol import Message
from gateway.link.seal import Seal
from gateway.settings.schema import Settings

log = logging.getLogger("penstock.workers")

_FIRST_DELAY, _LONGEST_DELAY = 0.1, 10.0  # seconds before a worker that died is replaced
_NEVER = ("PENSTOCK_ADMIN_TOKEN",)  # no worker needs it
_HEALTHY = 30.0  # a worker that lived so long starts the delays anew


@dataclass(slots=True, eq=False)
class Process:
    """One worker process. `source` is the name of its journal's directory."""

    number: int
    source: str
    popen: subprocess.Popen[bytes]
    pidfd: int
    delay: float
    replaces: bool
    started: float = field(default_factory=time.monotonic)
    link: ends.End | None = None
    revision: str = ""  # the one it serves; "" until it is ready
    failure: str = ""  # why it could not take a revision


class Workers:
    """As many worker processes as are wanted, on one listening socket."""

    def __init__(
        self,
        listener: socket.socket,
        journals: Path,
        boot: str,
        started: Callable[[Process], None],
        received: Callable[[Process, Message], None],
        ended: Callable[[Process], None],
    ) -> None:
        self.running: dict[int, Process] = {}
        self.wanted = 0
        self._listener = listener
        self._journals = journals
        self._boot = boot
        self._tell_started, self._tell_received, self._tell_ended = started, received, ended
        self._next = _after(journals)
        self._pending = 0  # replacements that wait for their delay
        self.seal = Seal.fresh()  # for texts in the journals
        self._hidden: tuple[str, ...] = ()  # environment variables that workers do not get
        self._greetings: dict[str, Callable[[], Message]] = {"seal": self.seal.message}
        self._options: list[str] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._leaving = False

    # -- start

    def start(self, settings: Settings) -> None:
        """Start as many as are wanted; each is greeted with the revision, and with the keys once known."""
        calls, level = settings.server.bounds.connections, settings.observe.level
        # A call may still be settling when its connection has made room for another.
        self._options = ["--calls", str(calls + calls // 8 + 64), "--level", level]
        self.adopt(settings)

    def adopt(self, settings: Settings) -> None:
        """Hand a revision to all, and have as many as it wants."""
        self._hidden = (*settings.hidden, *_NEVER)
        self.greet(protocol.revision(settings))
        self.resize(settings.server.workers, settings.server.bounds.drain)

    def resize(self, wanted: int, drain: float) -> None:
        """Have so many: start what is missing, let the newest drain that are too many."""
        if self._leaving:
            return
        self.wanted = wanted
        for process in list(self.running.values())[wanted:]:
            self._dismiss(process, drain)
        for _ in range(wanted - len(self.running) - self._pending):
            self._spawn(_FIRST_DELAY)

    def _spawn(self, delay: float, replaces: bool = False) -> None:
        number, self._next = self._next, self._next + 1
        source = f"{self._boot}-{number}"
        directory = self._journals / source
        directory.mkdir(parents=True)
        held = lock.hold(directory / "lock")
        assert held is not None  # the directory is new
        ours, theirs = socket.socketpair()
        # A child begins with these blocked: the terminal's Ctrl-C is for the supervisor, which drains.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM, signal.SIGHUP))
        try:
            popen = self._popen(number, directory, theirs, held)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            theirs.close()
            os.close(held)  # from here on the child alone holds it
        process = Process(number, source, popen, os.pidfd_open(popen.pid), delay, replaces)
        self.running[number] = process
        asyncio.get_running_loop().add_reader(process.pidfd, self._ended, process)
        self._task(self._connect(process, ours))
        self._tell_started(process)

    def _popen(self, number: int, directory: Path, link: socket.socket, held: int) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-P", "-m", "gateway.worker"]
        command += ["--number", str(number), "--journal", str(directory)]
        # Secrets come over the link, in a form that no process list shows.
        environ = {name: value for name, value in os.environ.items() if name not in self._hidden}
        command += ["--link", str(link.fileno()), "--listen", str(self._listener.fileno()), *self._options]
        return subprocess.Popen(
            command,
            # The very modules that run here, whatever the working directory holds.
            env={**environ, "PYTHONPATH": os.pathsep.join(str(Path(p).absolute()) for p in sys.path)},
            stdin=subprocess.DEVNULL,
            pass_fds=[link.fileno(), self._listener.fileno(), held],
        )

    async def _connect(self, process: Process, sock: socket.socket) -> None:
        process.link = await ends.connect(
            sock,
            lambda message: self._received(process, message),
            lambda error: self._hung_up(process, error),
        )
        for greeting in self._greetings.values():
            process.link.send(greeting())

    def _task(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # -- talk

    def _received(self, process: Process, message: Message) -> None:
        if message["t"] == "ready":
            process.revision, process.failure = message["revision"], ""
        elif message["t"] == "failed":
            process.failure = message["why"]
        self._tell_received(process, message)

    def _hung_up(self, process: Process, error: Exception | None) -> None:
        if error is not None:
            log.error("worker %d (pid %d) is out of order: %s", process.number, process.popen.pid, error)
            process.popen.kill()

    def send(self, number: int, message: Message) -> None:
        """To one worker; nowhere when it has gone."""
        process = self.running.get(number)
        if process is not None and process.link is not None:
            process.link.send(message)

    def greet(self, message: Message) -> None:
        """To all workers, and first thing to those that start later; the newest of each type."""
        self.introduce(message["t"], lambda: message)
        self.tell(message)

    def introduce(self, kind: str, made: Callable[[], Message]) -> None:
        """Send workers that start later what this then gives."""
        self._greetings[kind] = made

    def tell(self, message: Message | None) -> None:
        """To all workers that run now; None is nothing to tell."""
        for number in self.running:
            if message is not None:
                self.send(number, message)

    @property
    def ready(self) -> int:
        """How many accept calls."""
        return sum(1 for process in self.running.values() if process.revision)

    # -- end

    def _ended(self, process: Process) -> None:
        asyncio.get_running_loop().remove_reader(process.pidfd)
        os.close(process.pidfd)
        status = process.popen.wait()
        if process.link is not None:
            process.link.close()
        del self.running[process.number]
        self._tell_ended(process)
        if not self._leaving and len(self.running) + self._pending < self.wanted:
            self._pending += 1
            self._task(self._replace(process, status))

    async def _replace(self, process: Process, status: int) -> None:
        lived = time.monotonic() - process.started
        delay = _FIRST_DELAY if lived >= _HEALTHY else process.delay
        log.warning(
            "worker %d (pid %d) ended with %s after %.1f s; another starts in %g s",
            process.number, process.popen.pid, _spelled(status), lived, delay,
        )  # fmt: skip
        while not self._leaving:
            await asyncio.sleep(delay)
            delay = min(delay * 2, _LONGEST_DELAY)
            try:
                if not self._leaving and len(self.running) < self.wanted:
                    self._spawn(delay, replaces=True)
                break
            except OSError as error:
                log.error("no worker can be started: %s; the next try is in %g s", error, delay)
        self._pending -= 1

    def drain(self, seconds: float) -> None:
        """Tell all to stop accepting, finish within `seconds`, and exit. None is replaced any more."""
        self._leaving = True
        for process in list(self.running.values()):
            self._dismiss(process, seconds)

    def _dismiss(self, process: Process, seconds: float) -> None:
        if process.link is None:
            process.popen.kill()  # it has not been greeted yet
        else:
            process.link.send({"t": "drain", "seconds": seconds})

    def kill(self) -> None:
        """End all at once."""
        self._leaving = True
        for process in self.running.values():
            process.popen.kill()

    async def gone(self, seconds: float, unless: asyncio.Event | None = None) -> bool:
        """Wait at most so long until none is left; whether that is so."""
        deadline = time.monotonic() + seconds
        while self.running and time.monotonic() < deadline and not (unless and unless.is_set()):
            await asyncio.sleep(0.01)
        return not self.running


def _after(journals: Path) -> int:
    """The first free number: a worker that outlived an earlier supervisor still uses its own."""
    taken = (path.name.rpartition("-")[2] for path in journals.glob("*-*"))
    return max((int(number) + 1 for number in taken if number.isdecimal()), default=0)


def _spelled(status: int) -> str:
    return signal.Signals(-status).name if status < 0 else f"status {status}"
