"""A gateway that asks OPA: what it decides holds, and what holds while it is away."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.gateway import Gateway
from tests.e2e.provider import Provider

TOKEN = "canary-opa-token-5e1f"
CONFIG = """
[[keys]]
name = "person"
key = "env:CALLER_KEY"
tenant = "acme"

[backends.main]
kind = "openai"
base_url = "{provider}/v1"
api_key = "env:PROVIDER_KEY"

[models."*"]
targets = [ {{ backend = "main" }} ]

[[plugins]]
use = "plugins.opa:Opa"
url = "{opa}/v1/data/penstock/allow"
timeout = "5s"
fail = "{fail}"
token = "env:OPA_TOKEN"
"""


class Decider(BaseHTTPRequestHandler):
    """OPA's data API: allows what is tagged so, and lowers the temperature of everything."""

    protocol_version = "HTTP/1.1"
    asked: list[tuple[str, str | None, Any]]

    def do_POST(self) -> None:
        given = json.loads(self.rfile.read(int(self.headers["content-length"])))["input"]
        self.asked.append((self.path, self.headers["authorization"], given))
        allow = "approved" in given["tags"]
        result = {"allow": allow, "reason": "needs the tag approved", "set": {"temperature": 0.1}}
        body = json.dumps({"result": result}).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *words: object) -> None:
        """Say nothing."""


@contextmanager
def opa() -> Iterator[tuple[str, list[tuple[str, str | None, Any]]]]:
    asked: list[tuple[str, str | None, Any]] = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Asked", (Decider,), {"asked": asked}))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def chat(mark: str) -> dict[str, Any]:
    return {"model": "gpt-4o-mini", "user": mark, "messages": [{"role": "user", "content": "Hello"}]}


def test_what_opa_decides_holds_and_its_token_is_nowhere_else(tmp_path: Path, provider: Provider) -> None:
    with opa() as (url, asked):
        config = CONFIG.format(provider=provider.url, opa=url, fail="closed")
        with Gateway(tmp_path / "gw", config, env={"OPA_TOKEN": TOKEN}) as gateway:
            status, _, answer = gateway.post(chat("opa-no"))
            error = json.loads(answer)["error"]
            assert (status, error["code"]) == (403, "policy_denied")
            assert "needs the tag approved" in error["message"]
            status, headers, _ = gateway.post(chat("opa-yes"), x_penstock_tags="approved")
            assert status == 200 and provider.only("opa-yes").json()["temperature"] == 0.1
            assert provider.marked("opa-no") == []
            assert json.loads(gateway.row(headers["x-request-id"])["reasons"])["policy"] == "opa"
            told = gateway.output() + gateway.command("explain") + gateway.command("explain", "--json")
            assert TOKEN not in told + gateway.admin("/metrics")[1]
    path, token, given = asked[0]
    assert (path, token) == ("/v1/data/penstock/allow", f"Bearer {TOKEN}")
    assert given["principal"]["tenant"] == "acme" and "sk-" not in json.dumps(given)


@pytest.mark.parametrize(("fail", "status"), [("closed", 503), ("open", 200)])
def test_while_opa_is_away_the_fail_mode_holds(
    tmp_path: Path, provider: Provider, fail: str, status: int
) -> None:
    config = CONFIG.format(provider=provider.url, opa="http://127.0.0.1:9", fail=fail)
    with Gateway(tmp_path / "gw", config, env={"OPA_TOKEN": TOKEN}) as gateway:
        found, _, answer = gateway.post(chat(f"opa-{fail}"), x_penstock_tags="approved")
        assert found == status
        assert fail == "open" or json.loads(answer)["error"]["code"] == "gateway_policy_unavailable"
