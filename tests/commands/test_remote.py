"""The admin API over HTTP as commands use it: sockets, broken connections, answers that are none."""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.commands.client import Told
from gateway.commands.output import Refused
from gateway.commands.remote import Remote
from gateway.link import lock
from gateway.settings.load import load
from gateway.settings.schema import Settings

Answer = Callable[[int, bytes], bytes | None]


def answer(status: int, document: object) -> bytes:
    body = json.dumps(document).encode()
    head = f"HTTP/1.1 {status} X\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
    return head.encode() + body


@contextmanager
def serving(listening: socket.socket, say: Answer) -> Iterator[list[bytes]]:
    """Takes connections one by one: `say` gets the number and the request; None breaks the connection."""
    heard: list[bytes] = []

    def work() -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            with connection:
                heard.append(_request(connection))
                said = say(len(heard), heard[-1])
                if said is not None:
                    connection.sendall(said)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield heard
    finally:
        listening.shutdown(socket.SHUT_RDWR)
        listening.close()
        thread.join()


def _request(connection: socket.socket) -> bytes:
    data = b""
    while b"\r\n\r\n" not in data:
        piece = connection.recv(65536)
        if not piece:
            return data
        data += piece
    head, _, body = data.partition(b"\r\n\r\n")
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            while len(body) < int(line.split(b":")[1]):
                body += connection.recv(65536)
    return head + b"\r\n\r\n" + body


def at(admin: str, directory: Path) -> Settings:
    settings = load(None, {}, resolve=False)
    return replace(settings, server=replace(settings.server, admin=admin, data_dir=str(directory)))


@pytest.fixture
def gateway(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Answer], Remote]]:
    monkeypatch.setenv("PENSTOCK_ADMIN_TOKEN", "psa-canary-0123456789")
    with ExitStack() as stack:

        def start(say: Answer) -> Remote:
            listening = socket.create_server(("127.0.0.1", 0))
            heard = stack.enter_context(serving(listening, say))
            remote = Remote(at(f"127.0.0.1:{listening.getsockname()[1]}", tmp_path))
            remote.heard = heard  # type: ignore[attr-defined]
            return remote

        yield start


def heard(remote: Remote) -> list[bytes]:
    found: list[bytes] = remote.heard  # type: ignore[attr-defined]
    return found


def header(request: bytes, name: bytes) -> bytes:
    lines = [line for line in request.split(b"\r\n") if line.lower().startswith(name + b": ")]
    return lines[0].partition(b": ")[2] if lines else b""


def test_a_unix_socket_is_asked_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "admin.token").write_text("psa-of-the-file\n")
    monkeypatch.delenv("PENSTOCK_ADMIN_TOKEN", raising=False)
    path = tmp_path / "admin.sock"
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(path))
    listening.listen()
    with serving(listening, lambda n, request: answer(200, {"status": "ok"})) as requests:
        remote = Remote(at(f"unix:{path}", tmp_path))
        assert remote.there()
        assert remote.ask("GET", "keys", "a b%", query={"after": "x&y"}) == {"status": "ok"}
    assert header(requests[0], b"authorization") == b""
    assert requests[1].startswith(b"GET /admin/v1/keys/a%20b%25?after=x%26y HTTP/1.1")
    assert header(requests[1], b"authorization") == b"Bearer psa-of-the-file"
    assert not remote.there()


def test_what_is_written_names_the_version_that_was_read(gateway: Callable[[Answer], Remote]) -> None:
    remote = gateway(lambda n, request: answer(200, {}))
    remote.ask("PATCH", "tenants", "acme", body={"disabled": True}, version=3)
    assert header(heard(remote)[0], b"if-match") == b'"v3"' and heard(remote)[0].endswith(
        b'{"disabled": true}'
    )


def test_a_broken_connection_is_asked_again_under_the_same_idempotency_key(
    gateway: Callable[[Answer], Remote],
) -> None:
    remote = gateway(lambda n, request: None if n == 1 else answer(201, {"key": "k"}))
    assert remote.ask("POST", "keys", body={"name": "a"}) == {"key": "k"}
    first, second = heard(remote)
    assert header(first, b"idempotency-key") == header(second, b"idempotency-key") != b""
    assert first == second


def test_one_that_stays_broken_is_told(gateway: Callable[[Answer], Remote]) -> None:
    remote = gateway(lambda n, request: None)
    with pytest.raises(Refused, match=r"did not answer.*look whether it has been done"):
        remote.ask("POST", "keys", body={"name": "a"})
    assert len(heard(remote)) == 2


@pytest.mark.parametrize(
    "said",
    [
        answer(200, [1]),
        answer(404, {"error": "no"}),
        answer(502, "bad gateway"),
        answer(200, {})[:-2] + b"{]",
        b"HTTP/1.1 200 X\r\ncontent-length: 0\r\n\r\n",
    ],
    ids=["a list", "an error of another shape", "a text", "no JSON", "nothing"],
)
def test_what_is_not_the_admin_api_is_told_so(gateway: Callable[[Answer], Remote], said: bytes) -> None:
    remote = gateway(lambda n, request: said)
    with pytest.raises(Refused, match="is not the admin API of this version"):
        remote.ask("GET", "keys")


def test_a_refusal_comes_with_its_code(gateway: Callable[[Answer], Remote]) -> None:
    error = {"message": "There is no key 'x'.", "code": "caller_not_found", "param": None}
    remote = gateway(lambda n, request: answer(404, {"error": error}))
    with pytest.raises(Told, match=r"^there is no key 'x'$") as told:
        remote.ask("GET", "keys", "x")
    assert told.value.code == "caller_not_found"


def test_a_token_that_can_not_be_sent_is_not(
    gateway: Callable[[Answer], Remote], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    remote = gateway(lambda n, request: answer(200, {}))
    for token in ("psa-\u00fc", "psa-a\r\nx: y"):
        monkeypatch.setenv("PENSTOCK_ADMIN_TOKEN", token)
        with pytest.raises(Refused, match="printable ASCII"):
            remote.ask("GET", "keys")
    monkeypatch.delenv("PENSTOCK_ADMIN_TOKEN")
    (tmp_path / "admin.token").write_text("psa-a\r\nx: y")
    with pytest.raises(Refused, match="printable ASCII"):
        remote.ask("GET", "keys")
    assert heard(remote) == []


def test_a_lock_is_held_while_somebody_has_it(tmp_path: Path) -> None:
    file = tmp_path / "supervisor.lock"
    assert not lock.held(file) and not file.exists()
    with ExitStack() as stack:
        fd = lock.hold(file)
        assert fd is not None
        stack.callback(os.close, fd)
        assert lock.held(file)
    assert not lock.held(file)
    again = lock.hold(file)
    assert again is not None
    os.close(again)
