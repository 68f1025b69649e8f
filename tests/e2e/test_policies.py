"""Policies on a running gateway: refusals, what is forwarded, what the books and the metrics say."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.e2e.gateway import Gateway, digest
from tests.e2e.provider import Provider
from tests.e2e.running import until

BOT = "sk-penstock-automation-0000"
CONFIG = """
[[keys]]
name = "person"
key = "env:CALLER_KEY"
tenant = "acme"

[[keys]]
name = "bot"
hash = "{bot}"
roles = ["automation"]

[backends.main]
kind = "openai"
base_url = "{main}/v1"
api_key = "env:PROVIDER_KEY"

[backends.far]
kind = "openai"
base_url = "{far}/v1"
api_key = "env:BACKUP_KEY"

[models."*"]
targets = [ {{ backend = "main" }} ]

[models.far-first]
targets = [ {{ backend = "far", model = "gpt-4o-mini" }} ]
fallback = [ {{ backend = "main", model = "gpt-4o-mini" }} ]

[[policies]]
name = "no-shell"
when = {{ tools = "shell*" }}
deny = "No shell here."

[[policies]]
name = "low-risk"
when = {{ tags = "workflow:claims" }}
set = {{ temperature = {{ at_most = 0.2 }}, max_tokens = {{ at_most = 50 }}, seed = 7 }}

[[policies]]
name = "structured"
when = {{ roles = "automation" }}
require = {{ response_format = "json_schema" }}

[[policies]]
name = "confidential"
when = {{ classification = {{ above = "internal" }}, backend = "far" }}
deny = "Not far."

[[policies]]
name = "soon"
when = {{ stream = true }}
deny = "No streams."
mode = "shadow"
{more}
"""


@pytest.fixture(scope="module")
def policed(
    tmp_path_factory: pytest.TempPathFactory, provider: Provider, backup: Provider
) -> Iterator[Gateway]:
    config = CONFIG.format(bot=digest(BOT), main=provider.url, far=backup.url, more="")
    with Gateway(tmp_path_factory.mktemp("policed"), config, workers=2) as running:
        yield running


def chat(**more: Any) -> dict[str, Any]:
    return {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Hello"}], **more}


def tool(name: str) -> dict[str, Any]:
    return {
        "type": "function",
        "function": {"name": name, "parameters": {"type": "object", "properties": {}}},
    }


def forwarded(provider: Provider, mark: str) -> list[Any]:
    """The bodies that came to the provider from calls with this mark."""
    return [seen.json() for seen in provider.marked(mark)]


def test_a_denial_is_403_names_its_policy_and_stands_in_the_ledger(
    policed: Gateway, provider: Provider
) -> None:
    with pytest.raises(openai.PermissionDeniedError) as caught:
        policed.client().chat.completions.create(**chat(tools=[tool("shell_run")], user="denied-1"))
    assert caught.value.code == "policy_denied" and "no-shell" in caught.value.message
    assert caught.value.response.headers["x-penstock-reason"] == "policy_denied"
    row = policed.row(caught.value.response.headers["x-request-id"])
    assert (row["outcome"], row["code"], row["status"]) == ("refused", "policy_denied", 403)
    assert json.loads(row["reasons"])["policy"] == "no-shell"
    assert forwarded(provider, "denied-1") == []


def test_a_requirement_is_400_and_says_what_is_missing(policed: Gateway) -> None:
    client = policed.client(BOT)
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(**chat())
    assert caught.value.code == "policy_requirement" and caught.value.param == "response_format"
    schema = {"name": "a", "schema": {"type": "object"}}
    form = {"type": "json_schema", "json_schema": schema}
    assert client.chat.completions.create(**chat(response_format=form)).choices


def test_settings_reach_the_provider_and_what_is_held_is_what_is_sent(
    policed: Gateway, provider: Provider
) -> None:
    status, headers, _ = policed.post(
        chat(temperature=1.5, max_tokens=4000, user="set-1"), x_penstock_tags="workflow:claims"
    )
    assert status == 200
    (sent,) = forwarded(provider, "set-1")
    assert (sent["temperature"], sent["max_tokens"], sent["seed"]) == (0.2, 50, 7)
    row = policed.row(headers["x-request-id"])
    assert json.loads(row["reasons"])["policy"] == "low-risk" and row["hold_tokens"] < 200


def test_a_call_that_no_policy_concerns_goes_on_byte_for_byte(policed: Gateway, provider: Provider) -> None:
    body = b'{ "model" : "gpt-4o-mini", "user":"bytes-1", "n":1,"messages":[{"role":"user","content":"x"}]}'
    assert policed.post(body)[0] == 200
    assert provider.only("bytes-1").body == body


def test_confidential_data_does_not_go_where_it_must_not(
    policed: Gateway, provider: Provider, backup: Provider
) -> None:
    document = chat(model="far-first", user="far-1")
    assert policed.post(document)[0] == 200
    status, headers, _ = policed.post(
        chat(model="far-first", user="near-1"), x_penstock_tags="class:restricted"
    )
    assert status == 200 and headers["x-penstock-reason"] == "policy"
    assert headers["x-penstock-target"].startswith("main/")
    assert len(forwarded(backup, "far-1")) == 1 and forwarded(backup, "near-1") == []
    assert len(forwarded(provider, "near-1")) == 1


def test_a_policy_in_shadow_is_counted_and_lets_the_stream_pass(policed: Gateway) -> None:
    stream = policed.client().chat.completions.create(**chat(stream=True))
    assert list(stream)

    def counted() -> bool:
        text = policed.admin("/metrics")[1]
        found = re.search(
            r'penstock_policy_decisions_total\{decision="shadow_deny",policy="soon"\} (\S+)', text
        )
        return found is not None and float(found[1]) >= 1

    until("the decision is counted", counted)


def test_members_that_could_be_read_in_two_ways_are_refused(policed: Gateway, provider: Provider) -> None:
    shell = b'[{"type":"function","function":{"name":"shell"}}]'
    for tools in (
        b'"tools":%b,"tools":[]' % shell,
        b'"tools":[],"t\\u006fols":%b' % shell,
        b'"Tools":%b' % shell,
    ):
        body = b'{"model":"gpt-4o-mini","user":"twice-1","messages":[],%b}' % tools
        status, _, answer = policed.post(body)
        assert status == 400 and json.loads(answer)["error"]["code"] == "caller_bad_request"
    assert forwarded(provider, "twice-1") == []


def test_batches_and_unknown_paths_do_not_go_round_a_policy(policed: Gateway) -> None:
    for path in ("/v1/batches", "/v1/threads/runs"):
        status, _, answer = policed.post(chat(input_file_id="f"), path=path)
        assert status == 403 and json.loads(answer)["error"]["code"] == "policy_denied", path
    status, _, answer = policed.post(chat(), path="/v1/chat/completions/")
    assert status == 400 and b"/v1/chat/completions" in answer


def test_a_policy_that_is_added_holds_from_the_next_revision_on(
    tmp_path: Path, provider: Provider, backup: Provider
) -> None:
    def config(more: str) -> str:
        return CONFIG.format(bot=digest(BOT), main=provider.url, far=backup.url, more=more)

    with Gateway(tmp_path / "gw", config("")) as gateway:
        assert gateway.post(chat())[0] == 200
        gateway.write(config('[[policies]]\nname = "closed"\ndeny = "Closed."\n'))
        until("the policy holds", lambda: gateway.post(chat())[0] == 403)
        gateway.write(config('[[policies]]\nname = "closed"\ndeny = 5\n'))
        until("the fault is told", lambda: "policies" in gateway.output())
        assert gateway.post(chat())[0] == 403
