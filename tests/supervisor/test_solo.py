"""The gateway in one process: booked, limited and resumed like the appliance."""

from __future__ import annotations

import asyncio
import contextlib
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


def test_providers_keys_are_renewed_from_files_and_commands_and_nothing_else_is(tmp_path, caplog):
    """As in the appliance: no restart and no failed call."""
    seen = []

    async def provider(reader, writer):
        with contextlib.suppress(asyncio.IncompleteReadError):
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = int(re.search(rb"content-length: (\d+)", head.lower())[1])
                await reader.readexactly(length)
                seen.append(re.search(rb"(?i)authorization: bearer (\S+)", head)[1].decode())
                writer.write(
                    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}"
                )
        writer.close()

    def put(name, text):
        fresh = tmp_path / f"{name}.new"
        fresh.write_text(text)
        fresh.chmod(0o700)
        fresh.replace(tmp_path / name)

    async def scenario():
        server = await asyncio.start_server(provider, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        backend = 'kind = "openai"\nbase_url = "{}"\napi_key = "{}"\n'
        put("given", "sk-file-1")
        put("command", "#!/bin/sh\necho sk-exec-1\n")
        config = f"""
[secrets]
refresh = "1s"
[observe]
calls = "off"
[auth]
mode = "open"
[backends.file]
{backend.format(url, "file:given")}
[backends.exec]
{backend.format(url, "exec:./command")}
[models."file"]
targets = [{{ backend = "file" }}]
[models."exec"]
targets = [{{ backend = "exec" }}]
"""
        put("gateway.toml", config)

        async with solo(str(tmp_path / "gateway.toml")) as (live, bounds), client(live, bounds) as caller:

            async def until(*wanted):
                missing = set(wanted)
                while missing:
                    for model in ("file", "exec"):
                        answer = await caller.post("/chat/completions", json={**CHAT, "model": model})
                        assert answer.status_code == 200
                    missing -= set(seen)

            async with asyncio.timeout(60):
                await until("sk-file-1", "sk-exec-1")
                put("given", "sk-file-2")
                put("command", "#!/bin/sh\necho sk-exec-2\n")
                await until("sk-file-2", "sk-exec-2")
                put("gateway.toml", config.replace('[models."exec"]', '[models."other"]'))
                put("given", "sk-file-3")
                await until("sk-file-3")
        server.close()

    asyncio.run(scenario())
    assert "takes effect at the next start" in caplog.text
    assert "sk-" not in caplog.text


def test_credentials_with_which_nothing_can_be_made_leave_those_before_in_use(tmp_path, monkeypatch, caplog):
    """A plugin may fail when it is made anew."""
    (tmp_path / "brittle.py").write_text(
        "from gateway.core.ports import Stage\n"
        "class Brittle(Stage):\n"
        "    made = 0\n"
        "    def __init__(self, options, parts):\n"
        "        Brittle.made += 1\n"
        "        if Brittle.made == 2:\n"
        "            raise RuntimeError('not twice')\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "given").write_text("sk-file-1")
    backend = '[backends.up]\nkind = "openai"\nbase_url = "http://127.0.0.1:9/v1"\napi_key = "file:given"\n'
    plugin = '[[plugins]]\nuse = "brittle:Brittle"\n'
    (tmp_path / "gateway.toml").write_text(f'{CONFIG}\n{backend}\n{plugin}[secrets]\nrefresh = "1s"\n')

    async def scenario():
        async with solo(str(tmp_path / "gateway.toml")) as (live, bounds), client(live, bounds) as caller:
            (tmp_path / "given").write_text("sk-file-22")
            async with asyncio.timeout(60):
                while "can't be taken" not in caplog.text:
                    await asyncio.sleep(0)
            assert (await caller.post("/chat/completions", json=CHAT)).status_code == 200

    asyncio.run(scenario())
    assert "not twice" in caplog.text
