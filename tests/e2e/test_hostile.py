"""Callers that mean harm: nothing breaks, nothing leaks, the provider sees nothing of it."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.gateway import BACKUP_KEY, KEY, PROVIDER_KEY, Gateway, standard
from tests.e2e.provider import Provider
from tests.e2e.raw import Conversation, request
from tests.e2e.running import until

DOCUMENT: dict[str, Any] = {"model": "gpt-4o-mini", "messages": []}
MiB = 1 << 20


@pytest.mark.parametrize(
    "bearer",
    [
        b"' OR '1'='1",
        b'" OR ""="',
        b"'; DROP TABLE calls; --",
        b"%00%27%20OR%201=1",
        b"../../etc/passwd",
        b"\xff\xfe\xfd",
        "schlüssel-🔑".encode(),
        b"x" * 30000,
        b"%s%s%s%n",
        b"",
        b"   ",
        b"sk-penstock-" + b"0" * 52,
        KEY.encode()[:-1],
        KEY.encode() + b"x",
        KEY.encode().upper(),
    ],
)
def test_a_hostile_key_is_a_plain_refusal(gateway: Gateway, provider: Provider, bearer: bytes) -> None:
    before = len(provider.journal())
    body = json.dumps(DOCUMENT).encode()
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer "
    with Conversation(gateway.url) as talk:
        talk.send(head + bearer + b"\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        answer = talk.rest()
    assert answer[9:12] in (b"401", b"400", b"431")
    document = json.loads(answer.partition(b"\r\n\r\n")[2])
    assert set(document["error"]) == {"message", "type", "param", "code", "request_id"}
    assert not any(word in answer.lower() for word in (b"sql", b"traceback", b"unicode"))
    assert len(provider.journal()) == before


@pytest.mark.parametrize("declared", [True, False])
def test_a_body_of_100_megabytes_is_refused_and_memory_stays_bounded(
    gateway: Gateway, declared: bool
) -> None:
    size = 100 * MiB
    framing = b"Content-Length: %d" % size if declared else b"Transfer-Encoding: chunked"
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\n" % KEY.encode()
    piece = b"x" * MiB
    with Conversation(gateway.url) as talk:
        talk.send(head + framing + b"\r\n\r\n")
        try:
            for _ in range(size // MiB):
                talk.send(piece if declared else b"%x\r\n%s\r\n" % (len(piece), piece))
        except OSError:
            pass  # it was refused before the end
        assert talk.rest()[9:12] in (b"413", b"")
    assert gateway.memory() < 400 * MiB


def test_a_compressed_bomb_is_never_unpacked(gateway: Gateway) -> None:
    blank = gzip.compress(b" " * (16 * MiB)) * 64  # members follow each other: a gigabyte in a megabyte
    bomb = gzip.compress(b'{"model":"gpt-4o-mini","messages":[') + blank + gzip.compress(b"]}")
    status, _, _ = gateway.post(bomb, content_encoding="gzip")
    assert status in (400, 413, 415)
    assert gateway.memory() < 400 * MiB


@pytest.mark.parametrize(
    "body",
    [
        b'{"model":"gpt-4o-mini","messages":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"model":"gpt-4o-mini","x":' + b'{"a":' * 100_000 + b"1" + b"}" * 100_001,
        b'{"model":"gpt-4o-mini","messages":[],"x":"\\ud800"}',
        b'{"model":["gpt-4o-mini"],"messages":[]}',
        b'{"model":{"a":1},"messages":[]}',
        b'{"model":17,"messages":[]}',
        b'{"messages":[]}',
        b'{"model":"","messages":[]}',
        b'{"model":"gpt-4o-mini","stream":"yes","messages":[]}',
        b'{"model":"gpt-4o-mini\\r\\nX-Evil: 1","messages":[]}',
        b'{"model":"' + b"m" * 100_000 + b'","messages":[]}',
    ],
)
def test_an_odd_body_is_answered_without_a_server_error(gateway: Gateway, body: bytes) -> None:
    status, headers, answer = gateway.post(body)
    assert status < 500
    assert "x-evil" not in headers
    if status != 200:
        assert set(json.loads(answer)["error"]) >= {"message", "type", "param", "code"}


def test_of_two_models_the_one_that_was_authorised_is_the_one_that_is_used(
    gateway: Gateway, provider: Provider
) -> None:
    body = (
        b'{"model":"gpt-4o-mini","messages":[{"role":"user","content":"two-models-mark"}],"model":"o4-mini"}'
    )
    status, _, _ = gateway.post(body)
    assert status in (200, 400)
    if status == 200:
        assert provider.only("two-models-mark").json()["model"] == "o4-mini"


def test_requests_are_never_smuggled(gateway: Gateway, provider: Provider) -> None:
    before = len(provider.journal())
    inner = (
        b"GET /v1/models?smuggled-mark HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\n\r\n" % KEY.encode()
    )
    start = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\n" % KEY.encode()
    for framing in (
        b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n",
        b"Content-Length: 0\r\nContent-Length: 50\r\n\r\n",
        b"Content-Length: 0, 50\r\n\r\n",
        b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
        b"Transfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n",
        b"Content-Length: +0\r\n\r\n",
        b"X: a\r\n b\r\nContent-Length: 0\r\n\r\n",
        b"X: a\nContent-Length: 0\r\n\r\n",
        b"X: a\x00b\r\nContent-Length: 0\r\n\r\n",
    ):
        with Conversation(gateway.url) as talk:
            talk.send(start + framing + inner)
            answer = talk.rest()
        assert answer[9:12] in (b"400", b"501"), framing
        assert answer.count(b"\r\nx-request-id:") == 1, framing
    assert provider.marked("smuggled-mark") == []
    assert len(provider.journal()) == before
    assert provider.malformed() == []


def test_no_secret_is_ever_put_out(tmp_path: Path, provider: Provider, backup: Provider) -> None:
    """Drive every error path, then look for the canaries in answers, logs, metrics and files."""
    log = tmp_path / "calls.log"
    config = standard(provider.url, backup.url) + f'\n[observe]\ncalls = "{log}"\nlevel = "debug"\n'
    seen: list[str] = []
    with Gateway(tmp_path / "gw", config) as gateway:
        models = [
            "gpt-4o-mini", "lost", "saved", "fault;status=401", "fault;status=500", "fault;garbage",
            "fault;close_first", "fault;die_after=2", "fault;stall_after=1", "fault;bad_length=-5",
        ]  # fmt: skip
        for model in models:
            for stream in (False, True):
                answer = gateway.post({**DOCUMENT, "model": model, "stream": stream})
                seen.append(repr(answer))
        for headers in ({"x-api-key": KEY + "x"}, {"cookie": KEY}, {"x-mock-fault": KEY}):
            seen.append(repr(gateway.request("POST", f"/v1/chat/completions?key={KEY}", b"{}", headers)))
        seen.append(repr(gateway.request("GET", "/v1/models", None, {"authorization": f"Bearer {KEY}"})))
        for path in ("/", "/metrics", "/readyz", "/healthz"):
            seen.append(gateway.admin(path)[1])
        seen += [
            gateway.command(*command) for command in (["explain"], ["usage", "--json"], ["keys", "list"])
        ]
        until("the calls are logged", lambda: log.exists() and len(log.read_text().splitlines()) >= 20)
        gateway.process.terminate()
        gateway.wait()
        seen.append(gateway.output())
    files = [path for path in tmp_path.rglob("*") if path.is_file() and path.name != "provider.log"]
    seen += [path.read_bytes().decode("latin-1") for path in files]
    for secret in (KEY, PROVIDER_KEY, BACKUP_KEY):
        assert [text[:300] for text in seen if secret in text] == []


def test_a_header_we_emit_cannot_be_split(gateway: Gateway) -> None:
    with Conversation(gateway.url) as talk:
        model = "gpt-4o-mini\r\nset-cookie: evil=1"
        talk.send(request({**DOCUMENT, "model": model}, KEY, Connection="close", X_Request_Id="a%0d%0ab"))
        answer = talk.rest()
    assert b"\r\nset-cookie" not in answer.lower()
