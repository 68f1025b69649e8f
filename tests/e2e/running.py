"""A server process of the tests: started with a log file, waited for by asking it, always stopped."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.servers.ports import free_ports

__all__ = ["ROOT", "Running", "children", "free_ports", "until"]

ROOT = Path(__file__).resolve().parents[2]


def until(what: str, true: Callable[[], object], limit: float = 60.0) -> None:
    """Ask again and again until something holds; the limit only ends a failed test."""
    end = time.monotonic() + limit
    while not true():
        if time.monotonic() > end:
            raise AssertionError(f"not within {limit} s: {what}")
        time.sleep(0.01)


class Running:
    """A command in a session of its own, so that nothing of it is left behind."""

    def __init__(self, command: Sequence[str], log: Path, env: Mapping[str, str] | None = None) -> None:
        self.log = log
        inherited = {name: value for name, value in os.environ.items() if not name.endswith("_API_KEY")}
        with log.open("ab") as sink:
            self.process = subprocess.Popen(
                command,
                cwd=ROOT,
                env={**inherited, **(env or {})},
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=sink,
                start_new_session=True,
            )

    @property
    def alive(self) -> bool:
        """Whether the first process runs."""
        return self.process.poll() is None

    def output(self) -> str:
        """Everything printed so far."""
        return self.log.read_text(errors="replace")

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the first process alone."""
        self.process.send_signal(number)

    def wait(self, limit: float = 60.0) -> int:
        """The exit code, once it has ended."""
        return self.process.wait(limit)

    def stop(self, patience: float = 3.0) -> None:
        """SIGTERM twice (drain, then at once), then SIGKILL to the whole session.

        `patience`, in seconds, is for each of the first two: more of it where it has to end in order.
        """
        for _ in range(2):
            if self.alive:
                self.process.terminate()
                try:
                    self.process.wait(patience)
                except subprocess.TimeoutExpired:
                    continue
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def children(pid: int) -> list[int]:
    """The processes that `pid` started and that live."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == pid and fields[0] != "Z":
            found.append(int(entry.name))
    return sorted(found)
