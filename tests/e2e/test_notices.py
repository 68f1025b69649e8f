"""Notices reach a webhook while the gateway runs, and a broken one disturbs nothing."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.e2e.gateway import Gateway
from tests.e2e.running import until


class Hooks(ThreadingHTTPServer):
    """Takes webhooks; the first of all meets an error."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Hook)
        self.taken: list[tuple[str, dict[str, Any]]] = []  # webhook-id and body
        self.tries: list[str] = []


class _Hook(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Hooks

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.tries.append(self.headers["webhook-id"])
        first = len(self.server.tries) == 1
        if not first:
            self.server.taken.append((self.headers["webhook-id"], json.loads(body)))
        self.send_response(503 if first else 204)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *arguments: Any) -> None:
        """Say nothing."""


@contextmanager
def hooks() -> Iterator[Hooks]:
    with Hooks() as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def config(port: int, more: str = "") -> str:
    return f"""
[[plugins]]
use = "plugins.webhook:Webhook"
url = "http://127.0.0.1:{port}/"
kinds = ["config.*", "worker.*"]
{more}
"""


def test_what_happens_is_posted_in_order_and_again_where_it_was_not_taken(tmp_path: Path) -> None:
    with hooks() as server, Gateway(tmp_path / "gw", config(server.server_address[1])) as gateway:
        gateway.write(config(server.server_address[1], "[observee]\n"))
        until("the refusal is told", lambda: len(server.taken) == 1)
        assert server.tries[0] == server.tries[1] == server.taken[0][0]
        refused = server.taken[0][1]
        assert refused["type"] == "config.refused" and "observee" in str(refused["data"]["faults"])
        gateway.write(
            config(server.server_address[1], '[[limits]]\nscope = "key"\nrequests = 5\nper = "1m"\n')
        )
        until("the next revision is told", lambda: len(server.taken) == 2)
        assert server.taken[1][1]["type"] == "config.accepted"
        os.kill(gateway.worker_pids()[0], signal.SIGKILL)
        until("the restart is told", lambda: len(server.taken) == 3)
        assert server.taken[2][1]["type"] == "worker.restarted"
        assert '"event":"config.refused"' in gateway.output()


def test_a_webhook_that_can_not_be_made_is_a_fault_at_the_start_and_keeps_the_revision_later(
    tmp_path: Path,
) -> None:
    bad = '[[plugins]]\nuse = "plugins.webhook:Webhook"\nurl = "ftp://x"\n'
    with Gateway(tmp_path / "one", bad, ready=False) as gateway:
        assert gateway.wait() == 1
        assert "plugins.webhook:Webhook" in gateway.output() and "url must be such as" in gateway.output()
    with Gateway(tmp_path / "two", config(9)) as gateway:
        gateway.write(config(9).replace("config.*", "confg.*"))
        until("it is refused", lambda: "matches no kind of notice" in gateway.admin("/readyz")[1])
        assert gateway.ready()
        gateway.write(config(9))
        gateway.signal(signal.SIGHUP)
        until("all is well again", lambda: "matches no kind" not in gateway.admin("/readyz")[1])


def test_explain_leaves_listeners_out_of_the_walk_of_a_call(tmp_path: Path) -> None:
    with Gateway(tmp_path / "gw", config(9)) as gateway:
        assert "webhook" not in gateway.command("explain").lower()
