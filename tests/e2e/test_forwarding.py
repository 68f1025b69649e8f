"""What arrives at the provider: the caller's bytes, the provider's key, nothing of ours."""

from __future__ import annotations

import hashlib
import json
import socket
from typing import Any

import pytest

from tests.e2e.gateway import BACKUP_KEY, KEY, PROVIDER_KEY, Gateway
from tests.e2e.provider import Provider

HOP_BY_HOP = {"keep-alive", "proxy-connection", "proxy-authorization", "te", "trailer", "upgrade", "x-hop"}


def chat(mark: str, **more: Any) -> dict[str, Any]:
    return {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": mark}], **more}


def test_the_body_arrives_byte_for_byte(gateway: Gateway, provider: Provider) -> None:
    body = (
        b'{ "model" :"gpt-4o-mini",\n\t"messages":[{"role":"user","content":"byte-mark \\u00fc \xc3\xbc"}],'
        b' "unknown_field": {"deep":[1.0, 1e5, -0, 12345678901234567890]},  "seed":null }\r\n '
    )
    assert gateway.post(body)[0] == 200
    assert provider.only("byte-mark").body == body


def test_a_stream_that_asks_for_usage_itself_arrives_byte_for_byte(
    gateway: Gateway, provider: Provider
) -> None:
    body = json.dumps(chat("own-usage-mark", stream=True, stream_options={"include_usage": True})).encode()
    assert gateway.post(body)[0] == 200
    assert provider.only("own-usage-mark").body == body


def test_a_stream_that_does_not_ask_gets_only_the_option_added(gateway: Gateway, provider: Provider) -> None:
    document = chat("added-usage-mark", stream=True, extra=[1, {"a": None}])
    assert gateway.post(document)[0] == 200
    assert provider.only("added-usage-mark").json() == {
        **document,
        "stream_options": {"include_usage": True},
    }


def test_the_provider_sees_its_own_key_and_never_the_callers(gateway: Gateway, provider: Provider) -> None:
    assert gateway.post(chat("key-mark"), x_api_key=KEY, api_key=KEY)[0] == 200
    arrived = provider.only("key-mark")
    assert arrived.header("authorization") == f"Bearer {PROVIDER_KEY}"
    assert KEY not in json.dumps(arrived.document)


def test_the_key_may_come_as_x_api_key(gateway: Gateway, provider: Provider) -> None:
    body = json.dumps(chat("x-api-key-mark")).encode()
    headers = {"content-type": "application/json", "x-api-key": KEY}
    assert gateway.request("POST", "/v1/chat/completions", body, headers)[0] == 200
    assert KEY not in json.dumps(provider.only("x-api-key-mark").document)


def test_hop_by_hop_headers_and_ours_stay_here(gateway: Gateway, provider: Provider) -> None:
    body = json.dumps(chat("hop-mark")).encode()
    request = (
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: gateway.example\r\nAuthorization: Bearer %s\r\n"
        b"Connection: keep-alive, X-Hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\nTE: trailers\r\n"
        b"Proxy-Connection: keep-alive\r\nProxy-Authorization: Basic eA==\r\nUpgrade: h2c\r\n"
        b"X-Penstock-Session: s1\r\nX-Penstock-Tags: a,b\r\nX-Kept: yes\r\nOpenAI-Beta: assistants=v2\r\n"
        b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (KEY.encode(), len(body), body)
    )
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=10) as connection:
        connection.sendall(request)
        assert connection.recv(65536).startswith(b"HTTP/1.1 200")
    arrived = provider.only("hop-mark")
    names = {name for name, _ in arrived.headers}
    assert not names & HOP_BY_HOP
    assert not any(name.startswith("x-penstock") for name in names)
    assert arrived.header("x-kept") == "yes"
    assert arrived.header("openai-beta") == "assistants=v2"
    assert arrived.header("host") == provider.address
    assert arrived.header("content-length") == str(len(body))


@pytest.mark.parametrize(
    "field",
    [
        "api_base",
        "base_url",
        "api_key",
        "custom_llm_provider",
        "extra_headers",
        "extra_body",
        "timeout",
        "organization",
    ],
)
def test_no_field_or_header_moves_a_call_or_changes_its_credential(
    gateway: Gateway, provider: Provider, backup: Provider, field: str
) -> None:
    mark = f"ssrf-{field}-mark"
    value: Any = {"Authorization": "Bearer stolen"} if field.startswith("extra") else f"{backup.url}/v1"
    document = chat(mark, **{field: value}, metadata={field: value})
    header = field.replace("_", "-")
    headers = {"x-base-url": f"{backup.url}/v1", header: f"{backup.url}/v1"}
    status, _, _ = gateway.post(document, path=f"/v1/chat/completions?{field}={backup.url}", **headers)
    assert status in (200, 400)
    assert backup.marked(mark) == []
    if status == 200:
        assert provider.only(mark).header("authorization") == f"Bearer {PROVIDER_KEY}"


def test_an_alias_is_renamed_upstream_and_nothing_else_changes(gateway: Gateway, provider: Provider) -> None:
    document = chat("rename-mark", model="renamed", temperature=0.25)
    status, headers, _ = gateway.post(document)
    assert status == 200
    assert provider.only("rename-mark").json() == {**document, "model": "gpt-4o-mini"}
    assert headers["x-penstock-target"] == "main/gpt-4o-mini"


@pytest.mark.parametrize("model", ["saved", "saved-429", "saved-connect", "saved-dies", "saved-garbage"])
@pytest.mark.parametrize("stream", [False, True])
def test_a_failing_target_falls_back_before_the_first_byte(
    gateway: Gateway, backup: Provider, model: str, stream: bool
) -> None:
    mark = f"fallback-{model}-{stream}-mark"
    status, headers, body = gateway.post(chat(mark, model=model, stream=stream))
    assert status == 200
    assert "Grüße".encode() in body
    arrived = backup.only(mark)
    assert arrived.header("authorization") == f"Bearer {BACKUP_KEY}"
    assert arrived.json()["model"] == "gpt-4o-mini"
    row = gateway.row(headers["x-request-id"])
    assert (row["backend"], row["tries"], row["outcome"]) == ("backup", 2, "ok")


def test_a_retry_after_stated_by_one_target_goes_out_with_the_error_of_the_next(gateway: Gateway) -> None:
    status, headers, _ = gateway.post(chat("lost-429-mark", model="lost-429"))
    assert status == 502
    assert int(headers["retry-after"]) in range(1, 3)


def test_after_the_first_byte_nothing_is_tried_again(gateway: Gateway, backup: Provider) -> None:
    status, headers, body = gateway.post(chat("no-glue-mark", model="saved-stream-dies", stream=True))
    assert status == 200
    assert backup.marked("no-glue-mark") == []
    assert b"[DONE]" not in body and b'"code":"upstream_' in body.replace(b'": "', b'":"')
    assert gateway.row(headers["x-request-id"])["outcome"] == "truncated"


def test_large_binary_bodies_go_both_ways_untouched(gateway: Gateway, provider: Provider) -> None:
    data = bytes(range(256)) * 40_000
    headers = {"authorization": f"Bearer {KEY}", "content-type": "application/octet-stream"}
    status, _, body = gateway.request("POST", "/v1/uploads/parts?large-mark", data, headers)
    assert status == 200
    assert json.loads(body)["sha256"] == hashlib.sha256(data).hexdigest()
    arrived = provider.only("large-mark")
    assert arrived.size == len(data) and arrived.sha256 == hashlib.sha256(data).hexdigest()


def test_trace_context_goes_on(gateway: Gateway, provider: Provider) -> None:
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    gateway.post(chat("trace-mark"), traceparent=f"00-{trace}-00f067aa0ba902b7-01")
    assert trace in (provider.only("trace-mark").header("traceparent") or "")


def test_every_answer_says_who_answered_and_why(gateway: Gateway) -> None:
    _, headers, _ = gateway.post(chat("reasons"))
    for name in ("x-request-id", "x-penstock-revision", "x-penstock-target", "x-penstock-reason"):
        assert headers[name]
    assert float(headers["x-penstock-overhead-ms"]) >= 0
