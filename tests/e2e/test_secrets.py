"""Secrets that change while it runs, from files and commands: no restart, and no call that fails."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.e2e.gateway import KEY, Gateway
from tests.e2e.running import until

ANSWER = json.dumps(
    {
        "id": "x",
        "object": "chat.completion",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
    }
).encode()
DOCUMENT = {"model": "gpt-4o", "messages": [{"role": "user", "content": "hi"}]}


class Guarded(ThreadingHTTPServer):
    """A provider that takes certain keys at certain times, and counts."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Guard)
        self.accepted: set[str] = set()
        self.seen: Counter[str] = Counter()  # accepted requests by key
        self.refused = 0
        self.connections = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Guard(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Guarded

    def setup(self) -> None:
        super().setup()
        self.server.connections += 1

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        key = self.headers.get("authorization", "").removeprefix("Bearer ")
        good = key in self.server.accepted
        if good:
            self.server.seen[key] += 1
        else:
            self.server.refused += 1
        body = ANSWER if good else b'{"error":{"message":"no"}}'
        self.send_response(200 if good else 401)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: Any) -> None:
        """Say nothing."""


@contextmanager
def guarded(*keys: str) -> Iterator[Guarded]:
    with Guarded() as server:
        server.accepted = set(keys)
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


class Load:
    """Callers that never stop; what they were answered."""

    def __init__(self, gateway: Gateway, callers: int = 4) -> None:
        self.statuses: Counter[int] = Counter()
        self._stop = threading.Event()
        self._gateway = gateway
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(callers)]

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                status = self._gateway.post(DOCUMENT)[0]
            except OSError:
                status = 0
            self.statuses[status] += 1

    def more(self, count: int) -> None:
        """Wait for so many further answers."""
        wanted = sum(self.statuses.values()) + count
        until(f"{count} more calls", lambda: sum(self.statuses.values()) >= wanted, 60)

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(30)


def config(provider: str, api_key: str, more: str = "") -> str:
    return f"""
[[keys]]
name = "canary"
key = "env:CALLER_KEY"

[backends.main]
kind = "openai"
base_url = "{provider}/v1"
api_key = {api_key}
{more}
"""


def swap(file: Path, text: str, mode: int = 0o600) -> None:
    """Put a file in place as a whole, as whoever rotates a secret has to."""
    draft = file.with_suffix(".draft")
    draft.write_text(text)
    draft.chmod(mode)
    draft.replace(file)


def test_a_provider_key_rotates_under_load_without_a_failed_call_or_a_new_connection(tmp_path: Path) -> None:
    old, new = "sk-canary-rotation-old-0001", "sk-canary-rotation-new-0002"
    directory = tmp_path / "gw"
    directory.mkdir()
    swap(directory / "key", f"{old}\n")
    with (
        guarded(old) as provider,
        Gateway(directory, config(provider.url, '"file:key"'), workers=2) as gateway,
        Load(gateway) as load,
    ):
        load.more(100)
        provider.accepted = {old, new}
        before = provider.connections
        swap(directory / "key", f"{new}\n")
        until("the new key is used", lambda: provider.seen[new])
        load.more(50)

        def old_one_is_out_of_use() -> bool:
            count = provider.seen[old]
            load.more(60)
            return provider.seen[old] == count

        until("the old key is not used any more", old_one_is_out_of_use, 60)
        provider.accepted = {new}
        load.more(100)
        assert set(load.statuses) == {200}, load.statuses
        assert provider.refused == 0
        # Callers meet either worker, so a few connections may still be added; each kept those it had.
        assert provider.connections - before <= 4
        for secret in (old, new):
            assert secret not in gateway.output()


def test_one_bad_key_of_several_fails_no_call_and_rests(tmp_path: Path) -> None:
    env = {"ONE": "sk-canary-several-0001", "TWO": "sk-canary-several-0002"}
    with (
        guarded(env["TWO"]) as provider,
        Gateway(tmp_path / "gw", config(provider.url, '["env:ONE", "env:TWO"]'), env=env) as gateway,
    ):
        assert [gateway.post(DOCUMENT)[0] for _ in range(20)] == [200] * 20
        assert provider.refused == 1
        assert "401 to key 1 of 2 of backend main (env:ONE)" in gateway.output()
        assert not any(secret in gateway.output() for secret in env.values())


def program(directory: Path, text: str) -> None:
    swap(directory / "give", f"#!/bin/sh\n{text}\n", 0o700)


def test_a_command_gives_the_key_and_the_next_one_and_may_fail_in_between(tmp_path: Path) -> None:
    one, two = "sk-canary-command-0001", "sk-canary-command-0002"
    directory = tmp_path / "gw"
    directory.mkdir()
    program(directory, f"echo {one}")
    more = '[secrets]\nrefresh = "1s"\n'
    with (
        guarded(one, two) as provider,
        Gateway(directory, config(provider.url, '"exec:./give"', more)) as gateway,
    ):
        assert gateway.post(DOCUMENT)[0] == 200 and provider.seen == {one: 1}
        program(directory, f"echo sk-canary-broken; echo {two} >&2; exit 7")
        until("readiness tells of it", lambda: "stale" in gateway.admin("/readyz")[1])
        assert gateway.ready(), "a running gateway goes on with the last value"
        assert gateway.post(DOCUMENT)[0] == 200 and provider.seen[one] == 2
        assert "ended with status 7" in gateway.output()
        metrics = gateway.admin("/metrics")[1]
        assert 'penstock_notices_total{kind="secret.failed"} 1.0' in metrics
        assert "penstock_secret_failures_total " in metrics
        program(directory, f'echo \'{{"value": "{two}", "ttl": 3600}}\'')
        until("the next key is used", lambda: gateway.post(DOCUMENT)[0] == 200 and provider.seen[two], 60)
        until("nothing is stale any more", lambda: "stale" not in gateway.admin("/readyz")[1])
        said = gateway.output()
        assert '"event":"secret.back"' in said
        assert not any(secret in said for secret in (one, two, "sk-canary-broken"))


def test_a_command_that_fails_at_the_start_is_a_fault_that_names_it(tmp_path: Path) -> None:
    directory = tmp_path / "gw"
    directory.mkdir()
    program(directory, "echo sk-canary-printed; exit 3")
    with Gateway(directory, config("http://127.0.0.1:9", '"exec:./give"'), ready=False) as gateway:
        assert gateway.wait() == 1
        assert '"exec:./give": ended with status 3' in gateway.output()
        assert "sk-canary-printed" not in gateway.output()


def test_workers_do_not_get_variables_that_hold_secrets(tmp_path: Path) -> None:
    env = {
        "ONE": "sk-canary-environment-0001",
        "PENSTOCK_ADMIN_TOKEN": "canary-admin-token-0123456789",
        "PLAIN": "x",
    }
    with (
        guarded(env["ONE"]) as provider,
        Gateway(tmp_path / "gw", config(provider.url, '"env:ONE"'), env=env) as gateway,
    ):
        assert gateway.post(DOCUMENT)[0] == 200
        (worker,) = gateway.worker_pids()
        for _ in range(2):
            seen = Path(f"/proc/{worker}/environ").read_bytes() + Path(f"/proc/{worker}/cmdline").read_bytes()
            for secret in (env["ONE"], env["PENSTOCK_ADMIN_TOKEN"], KEY):
                assert secret.encode() not in seen
            assert b"PLAIN=x" in seen
            os.kill(worker, signal.SIGKILL)
            until("another worker serves", lambda old=worker: gateway.worker_pids() not in ([], [old]))  # type: ignore[misc]
            (worker,) = gateway.worker_pids()
            gateway.wait_ready()
        assert 'penstock_notices_total{kind="worker.restarted"}' in gateway.admin("/metrics")[1]
