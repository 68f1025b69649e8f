"""Starting, dying, draining: what happens to the calls under way."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.e2e.gateway import KEY, PROVIDER_KEY, Gateway, standard
from tests.e2e.provider import Provider
from tests.e2e.raw import Conversation, request
from tests.e2e.running import Running, free_ports, until


@contextmanager
def running(directory: Path, provider: Provider, **options: Any) -> Iterator[Gateway]:
    with Gateway(directory / "gw", standard(provider.url, provider.url), **options) as gateway:
        yield gateway


def slow(tokens: int) -> dict[str, Any]:
    return {"model": f"fault;interval=0.02;tokens={tokens}", "messages": [], "stream": True}


def open_streams(gateway: Gateway, tokens: int, count: int) -> list[Conversation]:
    talks = [Conversation(gateway.url, 60) for _ in range(count)]
    for talk in talks:
        talk.send(request(slow(tokens), KEY))
        talk.until(b"data: ", 2)
    return talks


def refuses(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return True
    return False


def test_a_killed_worker_is_replaced_and_the_other_streams_go_on(tmp_path: Path, provider: Provider) -> None:
    with running(tmp_path, provider, workers=2) as gateway:
        talks = open_streams(gateway, 100, 10)
        victim = gateway.worker_pids()[0]
        os.kill(victim, signal.SIGKILL)
        answers = [talk.rest_of_stream() for talk in talks]
        finished = sum(answer.endswith(b"data: [DONE]\n\n") for answer in answers)
        cut = sum(not answer.endswith(b"data: [DONE]\n\n") for answer in answers)
        assert finished + cut == 10
        until("two workers", lambda: gateway.ready() and len(gateway.worker_pids()) == 2)
        assert victim not in gateway.worker_pids()
        for _ in range(10):
            assert gateway.post({"model": "gpt-4o-mini", "messages": []})[0] == 200
        for talk in talks:
            talk.leave()


def test_sigterm_lets_streams_finish_and_takes_no_new_ones(tmp_path: Path, provider: Provider) -> None:
    with running(tmp_path, provider, workers=2) as gateway:
        talks = open_streams(gateway, 60, 6)
        gateway.signal(signal.SIGTERM)
        until("it is not ready any more", lambda: not gateway.ready())
        until("no new connections", lambda: refuses(gateway.port))
        for talk in talks:
            answer = talk.rest_of_stream()
            assert answer.endswith(b"data: [DONE]\n\n")
            assert answer.count(b"data: ") >= 60
            talk.leave()
        assert gateway.wait() == 0
        assert len([row for row in gateway.rows() if row["outcome"] == "ok"]) == 6


def test_when_the_drain_time_is_over_each_stream_gets_an_error_event(
    tmp_path: Path, provider: Provider
) -> None:
    bounds = '[server.bounds]\ndrain = "500ms"'
    with running(tmp_path, provider, workers=1, server=bounds) as gateway:
        talks = open_streams(gateway, 5000, 3)
        gateway.signal(signal.SIGTERM)
        for talk in talks:
            answer = talk.rest()
            assert b'"code":"gateway_' in answer.rstrip().split(b"data: ")[-1].replace(b'": ', b'":')
            talk.leave()
        assert gateway.wait() == 0
        assert [row["outcome"] for row in gateway.rows()] == ["truncated"] * 3


def test_when_the_drain_time_is_over_a_request_that_is_not_whole_gets_an_answer(
    tmp_path: Path, provider: Provider
) -> None:
    with running(tmp_path, provider, workers=1, server='[server.bounds]\ndrain = "500ms"') as gateway:
        whole = request({"model": "m", "messages": [{"role": "user", "content": "hi"}]}, KEY)
        with Conversation(gateway.url) as talk:
            talk.send(whole + whole[:-9])  # in one piece: with the first answer, half of the next is there
            talk.until(b"HTTP/1.1 200 ")
            gateway.signal(signal.SIGTERM)
            answer = talk.rest()
        assert b"HTTP/1.1 503 " in answer and b'"gateway_draining"' in answer
        assert gateway.wait() == 0


def test_a_second_sigterm_ends_at_once(tmp_path: Path, provider: Provider) -> None:
    with running(tmp_path, provider, workers=1) as gateway:
        [talk] = open_streams(gateway, 5_000, 1)
        gateway.signal(signal.SIGTERM)
        until("it drains", lambda: not gateway.ready())
        gateway.signal(signal.SIGTERM)
        assert gateway.wait(25) == 1  # and in less than the drain time
        talk.leave()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_idle_gateway_stops_cleanly(tmp_path: Path, provider: Provider, number: signal.Signals) -> None:
    with running(tmp_path, provider, workers=2) as gateway:
        workers = gateway.worker_pids()
        gateway.signal(number)
        assert gateway.wait() == 0
        assert not any(Path(f"/proc/{pid}").exists() for pid in workers)
        assert "Traceback" not in gateway.output()


def test_workers_end_when_their_supervisor_is_killed(tmp_path: Path, provider: Provider) -> None:
    with running(tmp_path, provider, workers=2) as gateway:
        workers = gateway.worker_pids()
        assert len(workers) == 2
        gateway.signal(signal.SIGKILL)
        gateway.wait()
        until("the workers end", lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers))


def test_a_thousand_streams_are_open_at_once_on_one_worker(tmp_path: Path, provider: Provider) -> None:
    async def scenario(gateway: Gateway) -> list[bytes]:
        arrived = 0
        everyone = asyncio.Event()

        async def one() -> bytes:
            nonlocal arrived
            reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
            document = {"model": "fault;interval=1;tokens=60", "messages": [], "stream": True}
            writer.write(request(document, KEY, Connection="close"))
            seen = await reader.readuntil(b"data: ")
            arrived += 1
            if arrived == 1000:
                everyone.set()
            await everyone.wait()
            writer.transport.abort()
            return seen

        return await asyncio.gather(*(one() for _ in range(1000)))

    with running(tmp_path, provider, workers=1) as gateway:
        answers = asyncio.run(scenario(gateway))
        assert all(answer.startswith(b"HTTP/1.1 200") for answer in answers)
        until("all are let go", lambda: len(gateway.rows()) == 1000)
        assert gateway.post({"model": "gpt-4o-mini", "messages": []})[0] == 200


def test_with_no_file_and_no_keys_the_echo_backend_answers(tmp_path: Path) -> None:
    config = '[auth]\nmode = "keys"\n'
    with Gateway(tmp_path / "gw", config) as gateway:
        said = gateway.output()
        assert "curl" in said and "OpenAI(" in said
        key = next(
            word for word in said.replace('"', " ").replace("'", " ").split() if word.startswith("sk-")
        )
        with gateway.client(key) as client:
            pieces = list(
                client.chat.completions.create(
                    model="anything",
                    messages=[{"role": "user", "content": "hello echo"}],
                    stream=True,
                    stream_options={"include_usage": True},
                )
            )
        assert "hello echo" in "".join(
            piece.choices[0].delta.content or "" for piece in pieces if piece.choices
        )
        assert pieces[-1].usage and pieces[-1].usage.total_tokens > 0
        for path in (tmp_path / "gw" / "data").rglob("*"):
            assert not path.is_file() or key.encode() not in path.read_bytes()


def test_it_listens_on_a_unix_socket_too(tmp_path: Path, provider: Provider) -> None:
    path = tmp_path / "s"
    with Gateway(tmp_path / "gw", standard(provider.url, provider.url), listen=f"unix:{path}") as gateway:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(path))
            connection.sendall(request({"model": "gpt-4o-mini", "messages": []}, KEY, Connection="close"))
            assert connection.recv(65536).startswith(b"HTTP/1.1 200")
        until("a row", gateway.rows)


def test_the_same_pipeline_runs_under_any_asgi_server(tmp_path: Path, provider: Provider) -> None:
    config = tmp_path / "gateway.toml"
    config.write_text(f'[server]\ndata_dir = "data"\n{standard(provider.url, provider.url)}')
    [port] = free_ports(1)
    command = [sys.executable, "-m", "uvicorn", "gateway.front.asgi:app", "--port", str(port)]
    env = {"PENSTOCK_CONFIG": str(config), "PROVIDER_KEY": PROVIDER_KEY, "BACKUP_KEY": "b", "CALLER_KEY": KEY}
    with Running(command, tmp_path / "asgi.log", env) as server:
        until("it listens", lambda: not refuses(port) or not server.alive)
        with openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key=KEY, max_retries=0) as client:
            messages: list[Any] = [{"role": "user", "content": "asgi-mark"}]
            whole = client.chat.completions.create(model="renamed", messages=messages)
            pieces = client.chat.completions.create(model="renamed", messages=messages, stream=True)
            said = "".join(piece.choices[0].delta.content or "" for piece in pieces if piece.choices)
            assert said == whole.choices[0].message.content
            with pytest.raises(openai.AuthenticationError):
                client.with_options(api_key="sk-wrong").models.list()
        assert {one.model for one in provider.marked("asgi-mark")} == {"gpt-4o-mini"}
