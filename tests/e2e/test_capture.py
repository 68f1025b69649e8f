"""Texts of calls: kept for a tenant that wants it, redacted; of nobody else, anywhere."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.gateway import Gateway, digest
from tests.e2e.provider import Provider
from tests.e2e.running import until

KEPT, SILENT = "sk-penstock-kept-0000", "sk-penstock-silent-0000"
SECRET = "sk-proj-canarycanarycanary1234"


def config(provider: Provider) -> str:
    return f"""
[[keys]]
name = "kept"
hash = "{digest(KEPT)}"
tenant = "open"

[[keys]]
name = "silent"
hash = "{digest(SILENT)}"
tenant = "quiet"

[tenants.open.capture]
sample = 1.0
most = "2KiB"
keep = "1h"

[tenants.quiet]

[backends.main]
kind = "openai"
base_url = "{provider.url}/v1"
api_key = "env:PROVIDER_KEY"
"""


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory, provider: Provider) -> Iterator[Gateway]:
    with Gateway(tmp_path_factory.mktemp("capture"), config(provider)) as gateway:
        yield gateway


def ask(gateway: Gateway, said: str, key: str = KEPT, model: str = "gpt-4o", **more: Any) -> str:
    document = {
        "model": model,
        "messages": [{"role": "system", "content": "be brief"}, {"role": "user", "content": said}],
        **more,
    }
    status, headers, _ = gateway.post(document, key=key)
    assert status == 200
    return headers["x-request-id"]


def kept(gateway: Gateway, id: str) -> dict[str, Any]:
    gateway.row(id)  # it is booked, and captures are written before that
    found: dict[str, Any] = json.loads(gateway.command("captures", "show", id, "--json"))
    return found


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("model", ["gpt-4o", "fault;no_usage"])
def test_prompt_and_answer_are_kept_redacted(own: Gateway, stream: bool, model: str) -> None:
    said = f"my key is {SECRET}, write to ann@example.com"
    found = kept(own, ask(own, said, stream=stream, model=model))
    assert found["prompt"] == "[system] be brief\n[user] my key is [secret], write to [email]"
    assert found["response"]
    assert found["tenant"] == "open" and found["key_name"] == "kept" and found["model"] == model
    assert found["redactions"]["secret"] >= 1 and found["redactions"]["email"] >= 1
    assert found["until_ms"] == found["ts_ms"] + 3_600_000
    until("it is counted", lambda: 'penstock_captures_total{outcome="kept"}' in own.admin("/metrics")[1])


def test_the_whole_answer_of_a_stream_is_kept(own: Gateway) -> None:
    plain = kept(own, ask(own, "the same"))
    streamed = kept(own, ask(own, "the same", stream=True))
    assert streamed["response"] == plain["response"]


def test_long_texts_are_cut(own: Gateway) -> None:
    found = kept(own, ask(own, "long " * 4000))
    assert len(found["prompt"].encode()) == 2048


def test_nothing_of_another_tenant_is_kept_or_written_anywhere(own: Gateway) -> None:
    mark = "canary-of-a-silent-tenant-5cd1"
    for model in ("gpt-4o", "fault;no_usage"):
        for stream in (False, True):
            id = ask(own, mark, key=SILENT, model=model, stream=stream)
            assert "no texts were kept" in own.command("captures", "show", id, "--json", check=False)
            own.row(id)
    assert not found_in(own, mark)


def test_what_is_redacted_never_reaches_a_disk(own: Gateway) -> None:
    id = ask(own, f"{SECRET} and a mark-4711-b")
    kept(own, id)
    assert not found_in(own, SECRET)
    assert {path.name.partition("-")[0] for path in found_in(own, "mark-4711-b")} <= {
        "ledger.sqlite",
        "ledger.sqlite-wal",
        "ledger.sqlite".partition("-")[0],
    }
    assert "mark-4711-b" not in own.output()


def found_in(gateway: Gateway, mark: str) -> list[Path]:
    return [
        path for path in gateway.directory.rglob("*") if path.is_file() and mark.encode() in path.read_bytes()
    ]


def test_captures_can_be_listed_exported_and_forgotten(own: Gateway) -> None:
    id = ask(own, "to be listed")
    kept(own, id)
    listed = json.loads(own.command("captures", "list", "--json", "--limit", "1", "--tenant", "open"))
    assert [each["id"] for each in listed] == [id]
    assert id in own.command("captures", "list")
    assert "[user] to be listed" in own.command("captures", "show", id)
    lines = own.command("captures", "export").splitlines()
    assert json.loads(lines[0])["id"] == id
    assert "removed" in own.command("captures", "forget", "open")
    assert own.command("captures", "export") == ""
    assert "captures.forget" in own.command("audit", "list")


def test_captures_are_made_with_the_next_revision_and_end_with_it(tmp_path: Path, provider: Provider) -> None:
    with Gateway(tmp_path / "gw", config(provider)) as gateway:
        kept(gateway, ask(gateway, "one"))
        before = gateway.post({"model": "gpt-4o", "messages": []}, key=KEPT)[1]["x-penstock-revision"]
        gateway.write(config(provider).replace("sample = 1.0", "sample = 0.0"))

        def revision() -> str:
            return gateway.post({"model": "gpt-4o", "messages": []}, key=KEPT)[1]["x-penstock-revision"]

        until("the new revision serves", lambda: revision() != before)

        def silent() -> bool:
            id = ask(gateway, "two")
            gateway.row(id)
            return "no texts" in gateway.command("captures", "show", id, "--json", check=False)

        until("nothing is kept any more", silent)
