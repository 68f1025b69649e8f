"""Real Redis (or Valkey) servers on free loopback ports, for the tests."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path


def found() -> str | None:
    """The server's program; None where none is installed."""
    return shutil.which("redis-server") or shutil.which("valkey-server")


def free_port() -> int:
    """One that nobody listens on; below the ephemeral ones' upper end, so that a cluster's bus fits too."""
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port: int = probe.getsockname()[1]
        if port < 55_000:
            return port


class Redis:
    """One server. It keeps nothing on disk unless `options` say so."""

    def __init__(self, folder: Path, options: Sequence[str] = (), sentinel: str = "") -> None:
        self.folder = folder
        self.options = list(options)
        self.port = free_port()
        self.tls = "--tls-port" in self.options
        self._sentinel = sentinel
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where it is."""
        return f"redis://127.0.0.1:{self.port}/0"

    def _command(self) -> list[str]:
        program = found()
        assert program is not None
        if self._sentinel:
            config = self.folder / "sentinel.conf"
            config.write_text(self._sentinel)
            return [program, str(config), "--sentinel", "--port", str(self.port), "--bind", "127.0.0.1"]
        plain = "0" if self.tls else str(self.port)
        words = [program, "--port", plain, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        words += ["--dir", str(self.folder), "--enable-debug-command", "local"]
        return words + [word.replace("{port}", str(self.port)) for word in self.options]

    def start(self) -> None:
        """Run, and wait until its port is open."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                self._command(), stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        deadline = time.monotonic() + 30
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError((self.folder / "log").read_text()[-2000:])
            time.sleep(0.02)

    def signal(self, number: int) -> None:
        """SIGSTOP makes it slow without end, SIGCONT ends that."""
        assert self.process is not None
        os.kill(self.process.pid, number)

    def kill(self) -> None:
        """SIGKILL; whatever it held is gone."""
        process, self.process = self.process, None
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGCONT)
            process.kill()
            process.wait(30)

    def ask(self, *words: str) -> str:
        """One command by a connection of its own, in RESP; gives the raw answer."""
        with socket.create_connection(("127.0.0.1", self.port), 5) as sock:
            parts = [f"${len(word.encode())}\r\n{word}\r\n" for word in words]
            sock.sendall(f"*{len(words)}\r\n{''.join(parts)}".encode())
            return sock.recv(65536).decode(errors="replace")


@contextlib.contextmanager
def serving(*options: str) -> Iterator[Redis]:
    """A server of its own in a temporary folder. `RuntimeError` where none is installed."""
    if found() is None:
        raise RuntimeError("neither Redis nor Valkey is installed (apt-get install redis-server)")
    with tempfile.TemporaryDirectory(prefix="penstock-redis-") as folder:
        server = Redis(Path(folder), options)
        server.start()
        try:
            yield server
        finally:
            server.kill()
