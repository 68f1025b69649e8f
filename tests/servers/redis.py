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

from tests.servers.ports import free_ports


def found() -> str | None:
    """The server's program; None where none is installed."""
    return shutil.which("redis-server") or shutil.which("valkey-server")


def free_port() -> int:
    """One that nobody listens on."""
    (port,) = free_ports(1)
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
        deadline = time.monotonic() + 60
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 5):
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
        with socket.create_connection(("127.0.0.1", self.port), 30) as sock:
            parts = [f"${len(word.encode())}\r\n{word}\r\n" for word in words]
            sock.sendall(f"*{len(words)}\r\n{''.join(parts)}".encode())
            answer = b""
            while _end(answer) < 0:
                piece = sock.recv(65536)
                if not piece:
                    raise ConnectionError(f"closed after {answer!r}")
                answer += piece
            return answer.decode(errors="replace")


def _end(answer: bytes, at: int = 0) -> int:
    """Where the answer ends that begins there; -1 as long as not all of it has come."""
    end = answer.find(b"\r\n", at)
    if end < 0:
        return -1
    kind, size, end = answer[at : at + 1], answer[at + 1 : end], end + 2
    if kind == b"$" and size != b"-1":
        end += int(size) + 2
        return end if end <= len(answer) else -1
    for _ in range(int(size) if kind == b"*" else 0):
        end = _end(answer, end)
        if end < 0:
            return -1
    return end


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


@contextlib.contextmanager
def cluster(count: int = 3) -> Iterator[list[Redis]]:
    """A cluster of so many primaries that share all slots."""
    with contextlib.ExitStack() as stack:
        options = ["--cluster-enabled", "yes", "--cluster-node-timeout", "15000"]
        nodes = [stack.enter_context(serving(*options)) for _ in range(count)]
        share = -(-16384 // count)
        for n, node in enumerate(nodes):
            last = min((n + 1) * share, 16384) - 1
            assert "OK" in node.ask("CLUSTER", "ADDSLOTSRANGE", str(n * share), str(last))
            assert "OK" in node.ask("CLUSTER", "MEET", "127.0.0.1", str(nodes[0].port))
        deadline = time.monotonic() + 60
        while not all("cluster_state:ok" in node.ask("CLUSTER", "INFO") for node in nodes) or not all(
            node.ask("CLUSTER", "NODES").count("connected") >= count for node in nodes
        ):
            assert time.monotonic() < deadline, "the cluster does not form"
            time.sleep(0.05)
        yield nodes


@contextlib.contextmanager
def sentinel() -> Iterator[tuple[Redis, Redis, Redis]]:
    """A primary, its replica, and a Sentinel that calls it `mymaster` and fails over alone."""
    with contextlib.ExitStack() as stack:
        primary = stack.enter_context(serving())
        second = stack.enter_context(serving("--replicaof", f"127.0.0.1 {primary.port}"))
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="penstock-sentinel-"))
        config = (
            f"sentinel monitor mymaster 127.0.0.1 {primary.port} 1\n"
            "sentinel down-after-milliseconds mymaster 3000\n"
            "sentinel failover-timeout mymaster 2000\n"
        )
        watch = Redis(Path(folder), sentinel=config)
        watch.start()
        stack.callback(watch.kill)
        deadline = time.monotonic() + 60
        while "slave0:" not in primary.ask("INFO", "replication") or f"{second.port}" not in watch.ask(
            "SENTINEL", "REPLICAS", "mymaster"
        ):
            assert time.monotonic() < deadline, "the replica is not found"
            time.sleep(0.05)
        yield primary, second, watch
