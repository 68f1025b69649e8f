"""The real `penstock serve` on free loopback ports, with a data directory of its own."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import openai

from tests.e2e.running import ROOT, Running, children, free_ports, until

# Canary values: each must stay where it belongs and show up nowhere else.
KEY = "sk-penstock-canary-CALLER-7f3a9c1e5b2d4860"
PROVIDER_KEY = "sk-canary-PROVIDER-a1b2c3d4e5f60718"
BACKUP_KEY = "sk-canary-BACKUP-90817263544536271"

NARROW, EXPIRED = "sk-penstock-narrow-0000", "sk-penstock-expired-0000"


def digest(key: str) -> str:
    """A key as gateway.toml may hold it."""
    return f"sha256:{hashlib.sha256(key.encode()).hexdigest()}"


class Gateway(Running):
    """One gateway. `config` is gateway.toml without [server] listen, admin and data_dir."""

    def __init__(
        self,
        directory: Path,
        config: str,
        *,
        workers: int = 1,
        server: str = "",
        listen: str = "",
        env: dict[str, str] | None = None,
        ready: bool = True,
    ) -> None:
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        self.port, self.admin_port = free_ports(2)
        self._listen = listen or f"127.0.0.1:{self.port}"
        self.workers = workers
        self._server = server
        self.path = directory / "gateway.toml"
        self.write(config)
        self.env = {"PROVIDER_KEY": PROVIDER_KEY, "BACKUP_KEY": BACKUP_KEY, "CALLER_KEY": KEY, **(env or {})}
        self.start()
        if ready:
            self.wait_ready()

    def start(self) -> None:
        """Start the process (again)."""
        command = [sys.executable, "-m", "gateway", "serve", "-c", str(self.path)]
        super().__init__(command, self.directory / "out.log", self.env)

    def write(self, config: str) -> None:
        """Put a configuration in place, as an editor does: another file under the same name."""
        head = (
            f'[server]\nlisten = "{self._listen}"\nadmin = "127.0.0.1:{self.admin_port}"\n'
            f'workers = {self.workers}\ndata_dir = "data"\n{self._server}\n'
        )
        self.put(head + config)

    def put(self, text: str) -> None:
        """The same with the whole file: a gateway that looks just then must not see half of it."""
        draft = self.directory / "draft.toml"
        draft.write_text(text)
        draft.replace(self.path)

    def wait_ready(self) -> None:
        """Poll /readyz until every worker accepts calls."""
        until(
            f"the gateway is ready; it said {self.output()[-3000:]}", lambda: not self.alive or self.ready()
        )
        assert self.alive, self.output()

    def ready(self) -> bool:
        """Whether /readyz says yes."""
        try:
            return self.admin("/readyz")[0] == 200
        except OSError:
            return False

    def admin(self, path: str) -> tuple[int, str]:
        """Status and body of a GET on the admin port."""
        with closing(http.client.HTTPConnection("127.0.0.1", self.admin_port, timeout=30)) as connection:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()

    def worker_pids(self) -> list[int]:
        """The worker processes, as /proc names them."""
        return [pid for pid in children(self.process.pid) if b"gateway.worker" in _command(pid)]

    def memory(self) -> int:
        """Bytes that the largest worker has in memory."""
        pages = (int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in self.worker_pids())
        return max(pages) * os.sysconf("SC_PAGE_SIZE")

    # -- clients

    @property
    def url(self) -> str:
        """The base address for SDKs."""
        return f"http://127.0.0.1:{self.port}/v1"

    def client(self, key: str = KEY, **options: Any) -> openai.OpenAI:
        """The official SDK, without retries of its own."""
        return openai.OpenAI(base_url=self.url, api_key=key, max_retries=0, timeout=30, **options)

    def async_client(self, key: str = KEY, **options: Any) -> openai.AsyncOpenAI:
        """The official SDK, asynchronous."""
        return openai.AsyncOpenAI(base_url=self.url, api_key=key, max_retries=0, timeout=30, **options)

    def post(
        self,
        document: Any,
        *,
        path: str = "/v1/chat/completions",
        key: str = KEY,
        patient: bool = True,
        **headers: str,
    ) -> tuple[int, dict[str, str], bytes]:
        """One plain POST: status, headers (lower-case), body. Header names have _ for -.

        On a machine that stands still for a second limits can't be checked in time: `patient` asks again, as
        the answer says.
        """
        body = document if isinstance(document, bytes) else json.dumps(document).encode()
        sent = {"content-type": "application/json", "authorization": f"Bearer {key}"}
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        end = time.monotonic() + 30
        while True:
            answer = self.request("POST", path, body, sent)
            if not (patient and unchecked(answer[0], answer[2])) or time.monotonic() > end:
                return answer

    def request(
        self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> tuple[int, dict[str, str], bytes]:
        """One plain request."""
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)) as connection:
            connection.request(method, path, body, headers or {})
            answer = connection.getresponse()
            found = {name.lower(): value for name, value in answer.getheaders()}
            return answer.status, found, answer.read()

    # -- what it noted

    def rows(self, where: str = "1", *values: object) -> list[dict[str, Any]]:
        """Ledger rows, read from the file as any tool would."""
        path = next((self.directory / "data").glob("ledger.sqlite"), None)
        if path is None:
            return []
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=30)) as connection:
            connection.row_factory = sqlite3.Row
            found = connection.execute(f"SELECT * FROM calls WHERE {where}", values)
            return [dict(row) for row in found]

    def row(self, request_id: str) -> dict[str, Any]:
        """The one row of a call, once it is written."""
        until(f"a row for {request_id}", lambda: self.rows("id = ?", request_id))
        found = self.rows("id = ?", request_id)
        assert len(found) == 1
        return found[0]

    def command(self, *arguments: str, check: bool = True) -> str:
        """Run another penstock command on the same configuration; its output."""
        done = subprocess.run(
            [sys.executable, "-m", "gateway", *arguments, "-c", str(self.path)],
            cwd=ROOT,
            env={**os.environ, **self.env},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return done.stdout


def unchecked(status: int, answer: bytes) -> bool:
    """Whether a call was refused because its limits could not be checked in time."""
    return status == 503 and b'"gateway_limits_unavailable"' in answer


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def standard(provider: str, backup: str) -> str:
    """The configuration most tests share: two recording providers, an Azure one, odd models."""
    return f"""
[[keys]]
name = "canary"
key = "env:CALLER_KEY"
tenant = "acme"
team = "search"
user = "bot"

[[keys]]
name = "narrow"
hash = "{digest(NARROW)}"
models = ["gpt-4o*"]
endpoints = ["chat/completions"]

[[keys]]
name = "expired"
hash = "{digest(EXPIRED)}"
expires = 2020-01-01

[backends.main]
kind = "openai"
base_url = "{provider}/v1"
api_key = "env:PROVIDER_KEY"
timeout = {{ connect = "10s", first = "20s", idle = "5s", total = "60s" }}

[backends.backup]
kind = "openai"
base_url = "{backup}/v1"
api_key = "env:BACKUP_KEY"

[backends.azure]
kind = "azure"
base_url = "{provider}"
api_key = "env:PROVIDER_KEY"
api_version = "2024-10-21"

[backends.nowhere]
kind = "openai"
base_url = "http://127.0.0.1:9/v1"
api_key = "sk-nowhere"

[models."*"]
targets = [ {{ backend = "main" }} ]

[models.via-azure]
targets = [ {{ backend = "azure", model = "my-deployment" }} ]

[models.renamed]
targets = [ {{ backend = "main", model = "gpt-4o-mini" }} ]

[models.saved]
targets = [ {{ backend = "main", model = "fault;status=503" }} ]
fallback = [ {{ backend = "backup", model = "gpt-4o-mini" }} ]

[models.saved-429]
targets = [ {{ backend = "main", model = "fault;status=429;retry_after=2" }} ]
fallback = [ {{ backend = "backup", model = "gpt-4o-mini" }} ]

[models.lost-429]
targets = [ {{ backend = "main", model = "fault;status=429;retry_after=2" }} ]
fallback = [ {{ backend = "nowhere" }} ]

[models.saved-connect]
targets = [ {{ backend = "nowhere" }} ]
fallback = [ {{ backend = "backup", model = "gpt-4o-mini" }} ]

[models.saved-dies]
targets = [ {{ backend = "main", model = "fault;die_after=0" }} ]
fallback = [ {{ backend = "backup", model = "gpt-4o-mini" }} ]

[models.saved-garbage]
targets = [ {{ backend = "main", model = "fault;garbage_after=0" }} ]
fallback = [ {{ backend = "backup", model = "gpt-4o-mini" }} ]

[models.saved-stalls]
targets = [ {{ backend = "main", model = "fault;stall_after=0" }} ]
fallback = [ {{ backend = "backup", model = "gpt-4o-mini" }} ]

[models.saved-stream-dies]
targets = [ {{ backend = "main", model = "fault;die_after=3" }} ]
fallback = [ {{ backend = "backup", model = "gpt-4o-mini" }} ]

[models.lost]
targets = [ {{ backend = "nowhere" }} ]

[prices.priced]
input = 2.5
cached_input = 1.25
output = 10.0
"""
