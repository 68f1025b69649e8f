"""Server processes under measurement: started pinned, their CPU time and memory read from /proc."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path

TICK = os.sysconf("SC_CLK_TCK")


def free_port() -> int:
    """A loopback port nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Server:
    """A running command with all of its descendants. `cores` is a taskset list, "" for any."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        port: int,
        *,
        cores: str = "",
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        log: Path | None = None,
    ) -> None:
        self.name = name
        self.port = port
        self.admin = 0
        self.log = log
        self.ready = 0.0  # seconds from start to the first answer of 200
        pinned = ["taskset", "-c", cores, *command] if cores else list(command)
        sink = log.open("ab") if log else None
        self.started = time.monotonic()
        self._process = subprocess.Popen(
            pinned,
            cwd=cwd,
            env={**os.environ, **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=sink or subprocess.DEVNULL,
            stderr=sink or subprocess.DEVNULL,
            start_new_session=True,
        )
        if sink:
            sink.close()

    @property
    def pid(self) -> int:
        """The first process."""
        return self._process.pid

    def wait_ready(self, url: str, limit: float = 30.0) -> float:
        """Poll `url` until it answers 200; seconds since the start of the process."""
        while time.monotonic() - self.started < limit:
            if self._process.poll() is not None:
                raise RuntimeError(f"{self.name} exited with {self._process.returncode}: {self.tail()}")
            try:
                with urllib.request.urlopen(url, timeout=1.0) as answer:
                    if answer.status == 200:
                        self.ready = time.monotonic() - self.started
                        return self.ready
            except OSError:
                time.sleep(0.005)
        raise RuntimeError(f"{self.name} was not ready within {limit} s: {self.tail()}")

    def tail(self, size: int = 2000) -> str:
        """The end of what the processes printed."""
        return self.log.read_text(errors="replace")[-size:] if self.log else ""

    def pids(self) -> list[int]:
        """This process and all of its descendants, parents first."""
        return tree(self.pid)

    def cpu(self) -> float:
        """CPU seconds used so far by all of its processes."""
        return sum(cpu_seconds(pid) for pid in self.pids())

    def settled_cpu(self, limit: float = 10.0) -> float:
        """CPU seconds once the work behind the answers (ledger, logs) is done: idle for 0.3 s."""
        until = time.monotonic() + limit
        last = self.cpu()
        while time.monotonic() < until:
            time.sleep(0.3)
            now = self.cpu()
            if now - last <= 1.5 / TICK:
                return now
            last = now
        return last

    def stop(self, limit: float = 10.0) -> None:
        """SIGTERM, then SIGKILL to whatever is left of its session."""
        left = self.pids()
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(limit)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        for pid in left:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat after the command name; [] where the process has gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def tree(root: int) -> list[int]:
    """`root` and its descendants that are alive."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (fields := _stat(int(entry.name))):
            children.setdefault(int(fields[1]), []).append(int(entry.name))
    found, todo = [], [root]
    while todo:
        pid = todo.pop(0)
        found.append(pid)
        todo.extend(sorted(children.get(pid, [])))
    return [pid for pid in found if _stat(pid)]


def cpu_seconds(pid: int) -> float:
    """utime + stime of one process, its threads included."""
    fields = _stat(pid)
    return (int(fields[11]) + int(fields[12])) / TICK if fields else 0.0


def queued_seconds(pid: int) -> float:
    """Seconds the first thread of a process was ready to run and waited for a core."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[1]) / 1e9


def rss(pid: int) -> int:
    """Resident memory of one process in bytes."""
    fields = _stat(pid)
    return int(fields[21]) * os.sysconf("SC_PAGE_SIZE") if fields else 0


def anonymous(pid: int) -> int:
    """Resident memory that is the process's own in bytes: without mapped files, as journals are."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    return 0


def descriptors(pid: int) -> int:
    """Open file descriptors of one process."""
    try:
        return sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())
    except OSError:
        return 0
