"""A real PostgreSQL server on a free loopback port, for the tests."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tests.servers.ports import free_ports

_OPTIONS = {
    "fsync": "on",
    "synchronous_commit": "on",
    "shared_buffers": "32MB",
    "max_connections": "60",
    "autovacuum": "off",
    "jit": "off",
}


def found() -> dict[str, str] | None:
    """Where the server's programs are, by name; None where PostgreSQL is not installed."""
    folders = [str(path) for path in sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)]
    path = os.pathsep.join([*folders, os.environ.get("PATH", "")])
    programs = {name: shutil.which(name, path=path) for name in ("initdb", "postgres")}
    return {name: at for name, at in programs.items() if at} if all(programs.values()) else None


class Postgres:
    """One server. `url` names its superuser and first database; no password is asked for on the loopback."""

    def __init__(self, folder: Path, programs: dict[str, str]) -> None:
        self._folder = folder
        self._programs = programs
        self._process: subprocess.Popen[bytes] | None = None
        (self.port,) = free_ports(1)
        self.url = f"postgresql://postgres@127.0.0.1:{self.port}/postgres"

    def _as_user(self) -> dict[str, object]:
        """The server refuses to run as root."""
        if os.getuid() != 0:
            return {}
        nobody = pwd.getpwnam("nobody")
        return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}

    def create(self) -> None:
        """Make the data directory."""
        self._folder.mkdir(parents=True, exist_ok=True)
        if (user := self._as_user()) and isinstance(user["user"], int):
            os.chown(self._folder, user["user"], int(str(user["group"])))
        command = [self._programs["initdb"], "-D", "data", "-U", "postgres", "-A", "trust", "-E", "UTF8"]
        command += ["--no-sync", "--no-instructions", "--locale=C"]
        subprocess.run(command, cwd=self._folder, check=True, capture_output=True, **self._as_user())  # type: ignore[call-overload]

    def start(self) -> None:
        """Run, and wait until it answers."""
        options = {**_OPTIONS, "port": str(self.port), "listen_addresses": "127.0.0.1"}
        options |= {"unix_socket_directories": str(self._folder)}
        settings = [word for name, value in options.items() for word in ("-c", f"{name}={value}")]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._programs["postgres"], "-D", "data", *settings],
                cwd=self._folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True, **self._as_user(),
            )  # type: ignore[call-overload]  # fmt: skip
        deadline = time.monotonic() + 60
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError((self._folder / "log").read_text()[-2000:])
            time.sleep(0.05)

    def _answers(self) -> bool:
        import psycopg

        try:
            psycopg.connect(self.url, connect_timeout=5).close()
        except psycopg.OperationalError:
            return False
        return True

    def stop(self) -> None:
        """End it orderly: connections are closed."""
        self._end(signal.SIGINT)

    def kill(self) -> None:
        """SIGKILL the server and every process that serves a connection."""
        self._end(signal.SIGKILL)

    def _end(self, how: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        if how == signal.SIGKILL:
            process.send_signal(signal.SIGSTOP)  # it starts no others meanwhile
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            for pid in (str(process.pid), *children):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)
            # A server that is started before the last of them has gone refuses: their memory is in use.
            deadline = time.monotonic() + 60
            while any(map(_lives, children)) and time.monotonic() < deadline:
                time.sleep(0.01)
        else:
            process.send_signal(how)
        process.wait(60)

    def database(self, name: str) -> str:
        """Make a database; gives its URL."""
        import psycopg

        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(f'CREATE DATABASE "{name}"'.encode())
        return f"postgresql://postgres@127.0.0.1:{self.port}/{name}"


def _lives(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except OSError:
        return False


@contextlib.contextmanager
def serving() -> Iterator[Postgres]:
    """A server of its own in a temporary folder. `RuntimeError` where none is installed."""
    programs = found()
    if programs is None:
        raise RuntimeError("PostgreSQL is not installed (apt-get install postgresql)")
    with tempfile.TemporaryDirectory(prefix="penstock-pg-") as folder:
        Path(folder).chmod(0o755)
        server = Postgres(Path(folder) / "pg", programs)
        server.create()
        server.start()
        try:
            yield server
        finally:
            server.kill()
