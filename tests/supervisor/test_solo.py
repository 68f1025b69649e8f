"""The gateway in one process: booked, limited and resumed like the appliance."""

from __future__ import annotations

import asyncio
import re
import sqlite3
from contextlib import closing

import httpx
import pytest

from gateway.front import asgi
from gateway.supervisor.listen import StartError
from gateway.supervisor.solo import solo

CONFIG = """
[observe]
calls = "off"
[auth]
mode = "open"
[backends.echo]
kind = "echo"
[models."*"]
targets = [{ backend = "echo" }]
[[limits]]
scope = "global"
requests = 3
per = "1h"
"""
CHAT = {"model": "m", "messages": [{"role": "user", "content": "Hello"}]}


def client(live, bounds):
    transport = httpx.ASGITransport(asgi.build(live, bounds))
    return httpx.AsyncClient(transport=transport, base_url="http://gateway/v1")


def outcomes(path):
    with closing(sqlite3.connect(path / "data" / "ledger.sqlite")) as db:
        return [outcome for (outcome,) in db.execute("SELECT outcome FROM calls ORDER BY ts, id")]


def test_calls_are_answered_limited_and_booked_and_the_next_process_remembers(tmp_path):
    (tmp_path / "gateway.toml").write_text(CONFIG)

    async def scenario(count):
        async with solo(str(tmp_path / "gateway.toml")) as (live, bounds), client(live, bounds) as caller:
            return [(await caller.post("/chat/completions", json=CHAT)).status_code for _ in range(count)]

    assert asyncio.run(scenario(2)) == [200, 200]
    assert outcomes(tmp_path) == ["ok", "ok"]
    assert asyncio.run(scenario(2)) == [200, 429]
    assert outcomes(tmp_path) == ["ok", "ok", "ok", "refused"]
    assert not list((tmp_path / "data" / "journal").iterdir())


def test_the_first_key_is_printed_and_opens_the_door(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "GEMINI_API_KEY"):
        monkeypatch.delenv(name, raising=False)

    async def scenario():
        async with solo(None) as (live, bounds), client(live, bounds) as caller:
            shown = re.search(r"shown only now:\s+(\S+)", capsys.readouterr().out)
            assert shown is not None
            headers = {"authorization": f"Bearer {shown[1]}"}
            assert (await caller.post("/chat/completions", json=CHAT)).status_code == 401
            assert (await caller.post("/chat/completions", json=CHAT, headers=headers)).status_code == 200

    asyncio.run(scenario())


def test_a_second_process_on_the_same_data_is_refused(tmp_path):
    (tmp_path / "gateway.toml").write_text(CONFIG)

    async def scenario():
        async with solo(str(tmp_path / "gateway.toml")):
            with pytest.raises(StartError, match="in use by another penstock"):
                async with solo(str(tmp_path / "gateway.toml")):
                    pass

    asyncio.run(scenario())
