"""The gateway as an application of another server: as strict as on its own port."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator

import pytest

from tests.e2e.gateway import KEY, NARROW, PROVIDER_KEY, standard
from tests.e2e.provider import Provider
from tests.e2e.raw import Conversation
from tests.e2e.running import Running, free_ports, until
from tests.e2e.test_processes import refuses


@pytest.fixture(scope="module", params=["httptools", "h11"])
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, provider: Provider
) -> Iterator[str]:
    """The address of uvicorn with one of its parsers."""
    directory = tmp_path_factory.mktemp("server")
    config = directory / "gateway.toml"
    config.write_text(f'[server]\ndata_dir = "data"\n{standard(provider.url, provider.url)}')
    [port] = free_ports(1)
    command = [sys.executable, "-m", "uvicorn", "--http", request.param, "--port", str(port)]
    env = {"PENSTOCK_CONFIG": str(config), "PROVIDER_KEY": PROVIDER_KEY, "BACKUP_KEY": "b", "CALLER_KEY": KEY}
    with Running([*command, "gateway.front.asgi:app"], directory / "log", env) as running:
        until("it listens", lambda: not refuses(port) or not running.alive)
        assert running.alive, running.output()
        yield f"http://127.0.0.1:{port}"


def ask(server: str, line: bytes, *headers: bytes, key: str = KEY) -> bytes:
    """The whole answer to a request without a body."""
    lines = [line + b" HTTP/1.1", b"Host: x", b"Authorization: Bearer " + key.encode(), *headers]
    with Conversation(server) as talk:
        talk.send(b"\r\n".join([*lines, b"Connection: close", b"", b""]))
        return talk.rest()


@pytest.mark.parametrize("key", [KEY, NARROW])
@pytest.mark.parametrize(
    "line",
    [
        b"GET /v1/../../admin/keys",
        b"GET /v1/%2e%2e/%2e%2e/admin",
        b"GET /v1/models/../files/x",
        b"DELETE /v1/files/%2E%2e/assistants/a1",
        b"POST /v1/chat/completions/../../files",
        b"GET /v1/chat/completions/..%2ffiles",
        b"GET //x/v1/models",
        b"GET /v1//models",
    ],
)
def test_no_path_leads_elsewhere_than_it_says(server: str, provider: Provider, line: bytes, key: str) -> None:
    before = len(provider.journal())
    answer = ask(server, line, key=key)
    assert answer.startswith(b"HTTP/1.1 400 "), answer
    error = json.loads(answer.partition(b"\r\n\r\n")[2])["error"]
    assert (error["type"], error["code"]) == ("invalid_request_error", "caller_bad_request")
    assert len(provider.journal()) == before


@pytest.mark.parametrize(
    "header",
    [
        b"Host: y",
        b"Authorization: Bearer other",
        b"Content-Type: a/b\r\nContent-Type: c/d",
        b"Transfer-Encoding: gzip, chunked",
        b"Content-Length: 1\r\nTransfer-Encoding: chunked",
    ],
)
def test_no_header_has_two_readings(server: str, provider: Provider, header: bytes) -> None:
    before = len(provider.journal())
    answer = ask(server, b"POST /v1/files", header)
    assert answer[9:12] in (b"400", b"501"), answer  # some of them the server refuses itself
    assert len(provider.journal()) == before


def test_what_is_plain_passes(server: str) -> None:
    assert ask(server, b"GET /v1/models?limit=1").startswith(b"HTTP/1.1 200 ")
    assert ask(server, b"GET /healthz").startswith(b"HTTP/1.1 200 ")
