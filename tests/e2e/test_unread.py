"""A client that stops reading a long answer: its call ends all the same, under any server."""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.e2e.gateway import BACKUP_KEY, KEY, PROVIDER_KEY, Gateway, standard
from tests.e2e.provider import Provider
from tests.e2e.raw import Conversation, request
from tests.e2e.running import Running, free_ports, until
from tests.e2e.test_processes import refuses

LIMIT = '\n[[limits]]\nscope = "key"\nconcurrent = 1\n'
SIZE = 80 << 20  # more than all buffers between provider and client can grow to


@pytest.fixture
def content(provider: Provider) -> bytes:
    """A request for a file too large to be held on its way."""
    with openai.OpenAI(base_url=f"{provider.url}/v1", api_key=PROVIDER_KEY) as client:
        file = client.files.create(file=("large.bin", b"x" * SIZE), purpose="batch")
    lines = [f"GET /v1/files/{file.id}/content HTTP/1.1", "Host: x", f"Authorization: Bearer {KEY}", "", ""]
    return "\r\n".join(lines).encode()


def ends(url: str, content: bytes, rows: Callable[[], list[dict[str, Any]]]) -> None:
    """What holds under every server."""
    asked = request({"model": "gpt-4o-mini", "messages": []}, KEY, Connection="close")
    with Conversation(url) as unread:
        unread.send(content)
        unread.until(b"200 OK\r\n")
        until("a row", rows)
        [row] = rows()
        assert (row["outcome"], row["code"]) == ("truncated", "upstream_total_timeout")
        with Conversation(url) as other:  # the one slot is free again
            other.send(asked)
            assert other.rest().startswith(b"HTTP/1.1 200 ")


def config(provider: Provider) -> str:
    return standard(provider.url, provider.url).replace('total = "60s"', 'total = "2s"') + LIMIT


def test_a_call_that_nobody_reads_ends_when_its_time_is_over(
    tmp_path: Path, provider: Provider, content: bytes
) -> None:
    with Gateway(tmp_path / "gw", config(provider)) as gateway:
        ends(gateway.url, content, gateway.rows)
        idle = 'penstock_worker_inflight_requests{worker="0"} 0.0'
        until("no call is under way", lambda: idle in gateway.admin("/metrics")[1])


def test_a_call_that_nobody_reads_ends_under_another_server_too(
    tmp_path: Path, provider: Provider, content: bytes
) -> None:
    place = tmp_path / "gateway.toml"
    place.write_text(f'[server]\ndata_dir = "data"\n{config(provider)}')
    [port] = free_ports(1)
    command = [sys.executable, "-m", "uvicorn", "gateway.front.asgi:app", "--port", str(port)]
    env = {"PENSTOCK_CONFIG": str(place), "PROVIDER_KEY": PROVIDER_KEY, "BACKUP_KEY": BACKUP_KEY}

    def rows() -> list[dict[str, Any]]:
        with closing(sqlite3.connect(tmp_path / "data" / "ledger.sqlite", timeout=10)) as connection:
            connection.row_factory = sqlite3.Row
            return [dict(row) for row in connection.execute("SELECT outcome, code FROM calls")]

    with Running(command, tmp_path / "log", {**env, "CALLER_KEY": KEY}) as server:
        until("it listens", lambda: not refuses(port) or not server.alive)
        assert server.alive, server.output()
        ends(f"http://127.0.0.1:{port}", content, rows)
