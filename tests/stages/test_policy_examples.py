"""The policies of config/policies/ and of docs/policies.md do what they say."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.cli import main
from gateway.settings.load import load
from tests.stages.policed import BACKENDS, NOON, Policed, function, strict

ROOT = Path(__file__).parents[2]
READY = sorted((ROOT / "config" / "policies").glob("*.toml"))
PAGE = (ROOT / "docs" / "policies.md").read_text()
CHAT = {"messages": [{"role": "user", "content": "Hello"}]}
DENIED, REQUIRED = "policy_denied", "policy_requirement"
FORMAT = {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "object"}}}
EU = """
[backends.eu-one]
kind = "echo"
[backends.us-one]
kind = "echo"
[models."*"]
targets = [ { backend = "us-one" } ]
fallback = [ { backend = "eu-one" } ]
[models.us-only]
targets = [ { backend = "us-one" } ]
"""


def ready(name: str, around: str = BACKENDS) -> Policed:
    return Policed((ROOT / "config" / "policies" / f"{name}.toml").read_text(), around)


def blocks(language: str) -> Iterator[str]:
    for found in re.finditer(rf"^```{language}\n(.*?)^```", PAGE, re.M | re.S):
        yield found[1]


def block(word: str) -> str:
    (found,) = [text for text in blocks("toml") if word in text]
    return found


# -- ready-made ones


def test_every_ready_made_policy_is_exercised_here_and_told_of_in_the_docs() -> None:
    source = Path(__file__).read_text()
    assert READY and all(f'ready("{file.stem}"' in source for file in READY)
    assert all(file.read_text().startswith("# ") for file in READY)


def test_all_of_them_can_be_taken_in_at_once(tmp_path: Path) -> None:
    folder = tmp_path / "policies"
    folder.mkdir()
    for file in READY:
        (folder / file.name).write_text(file.read_text())
    config = tmp_path / "gateway.toml"
    config.write_text('include = ["policies/*.toml"]\n' + EU)
    assert len(load(config, {}).policies) >= len(READY)


def test_a_tenant_keeps_to_its_models() -> None:
    policed = ready("model-allow-list")
    assert policed.verdict({**CHAT, "model": "gpt-4o-mini"}, tenant="acme") == ""
    assert policed.verdict({**CHAT, "model": "gpt-5"}, tenant="acme") == DENIED
    assert policed.verdict({"input_file_id": "f"}, "/batches", tenant="acme") == DENIED
    assert policed.verdict({**CHAT, "model": "gpt-5"}, tenant="other") == ""


def test_a_named_workflow_runs_with_low_risk_settings() -> None:
    policed = ready("low-risk-workflow")
    for how in ({"tags": "workflow:claims"}, {"headers": [(b"x-penstock-session", b"claims-17")]}):
        call = policed.call({**CHAT, "temperature": 1.4, "max_tokens": 90_000, "n": 4}, **how)
        assert policed.judge(call) == "" and call.document is not None
        assert {name: call.document[name] for name in ("temperature", "max_tokens", "n", "seed")} == {
            "temperature": 0.2,
            "max_tokens": 2000,
            "n": 1,
            "seed": 7,
        }
    call = policed.call(CHAT)
    assert policed.judge(call) == "" and call.document == {"model": "m", **CHAT}


def test_automations_ask_for_structured_answers() -> None:
    policed = ready("structured-automation")
    full = {**CHAT, "response_format": FORMAT, "max_tokens": 100, "user": "u"}
    assert policed.verdict(full, roles=("automation",)) == ""
    for name in ("response_format", "max_tokens", "user"):
        left = {key: value for key, value in full.items() if key != name}
        assert policed.verdict(left, roles=("automation",)) == REQUIRED
    assert policed.verdict(CHAT) == ""
    assert policed.verdict({"input_file_id": "f"}, "/batches", roles=("automation",)) == REQUIRED


def test_tools_are_constrained_by_one_line() -> None:
    policed = ready("constrained-tools")
    call = policed.call({**CHAT, "tools": [strict("a")]})
    assert policed.judge(call) == "" and call.document is not None
    assert call.document["parallel_tool_calls"] is False
    assert policed.verdict({**CHAT, "tools": [function("a")]}) == REQUIRED
    assert policed.verdict({**CHAT, "tools": [{"type": "web_search"}]}) == REQUIRED


def test_tools_that_run_commands_are_refused_and_web_search_is_taken_out() -> None:
    policed = ready("no-shell")
    assert policed.verdict({**CHAT, "tools": [function("bash")]}, team="research") == DENIED
    for team, kept in (("research", 2), ("sales", 1)):
        call = policed.call({**CHAT, "tools": [function("web_search"), function("a")]}, team=team)
        assert policed.judge(call) == "" and call.document is not None
        assert len(call.document["tools"]) == kept


def test_confidential_data_stays_in_the_eu() -> None:
    policed = ready("data-residency", EU)
    call = policed.call(CHAT, tags="class:confidential")
    assert policed.judge(call) == "" and call.plan is not None
    assert [target.backend for target in call.plan.targets] == ["eu-one"]
    assert policed.verdict({**CHAT, "model": "us-only"}, tags="class:restricted") == DENIED
    assert policed.verdict({**CHAT, "model": "us-only"}) == ""


def test_dear_calls_need_approval_and_nights_need_the_office() -> None:
    policed = ready("office-hours")
    dear = {**CHAT, "model": "priced", "max_tokens": 6000}
    assert policed.verdict(dear) == DENIED and policed.verdict(dear, roles=("dear-calls",)) == ""
    assert policed.verdict(dear, tags="dear-calls") == DENIED
    cheap = {**CHAT, "model": "priced", "max_tokens": 60}
    night = NOON + 11 * 3600
    assert policed.verdict(cheap, roles=("person",)) == ""
    assert policed.verdict(cheap, roles=("person",), at=night) == DENIED
    assert policed.verdict(cheap, roles=("person",), at=night, client="10.1.2.3") == ""


def test_nothing_is_allowed_that_is_not_named() -> None:
    policed = ready("deny-by-default")
    assert policed.verdict(CHAT) == ""
    assert policed.verdict({"input": "x"}, "/embeddings") == DENIED
    assert policed.verdict({"input": "x"}, "/embeddings", team="search") == ""
    assert policed.verdict({"input_file_id": "f"}, "/batches") == DENIED


# -- the page


def test_the_first_example_does_what_the_page_says() -> None:
    policed = Policed(block("tools-need-approval"))
    tools = {**CHAT, "tools": [function("a")]}
    assert policed.verdict(tools, tenant="acme") == DENIED
    assert policed.verdict(tools, tenant="acme", roles=("caller", "tools")) == ""
    assert (
        policed.verdict(tools, tenant="acme", tags="tools", headers=[(b"x-penstock-session", b"tools")])
        == DENIED
    )
    assert policed.verdict(tools, tenant="other") == ""
    call = policed.call({**CHAT, "temperature": 1}, tags="workflow:claims")
    assert policed.judge(call) == "" and call.document is not None and call.document["temperature"] == 0.2
    call = policed.call(CHAT, roles=("automation",))
    assert policed.judge(call) == "" and call.reasons == {"policy_shadow": "automation-is-structured"}


def test_the_example_about_backends_keeps_data_where_it_must_stay() -> None:
    policed = Policed(block("eu-azure"), "")
    call = policed.call({**CHAT, "model": "gpt-4o"}, tags="class:restricted")
    assert policed.judge(call) == "" and call.plan is not None
    assert [target.backend for target in call.plan.targets] == ["eu-azure"]


def commands() -> list[str]:
    return [line.strip().partition("#")[0] for line in PAGE.splitlines() if line.startswith("    penstock ")]


@pytest.mark.parametrize("command", commands())
def test_a_command_of_the_page_runs(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    key = '[[keys]]\nname = "ci"\nhash = "sha256:' + "0" * 64 + '"\n'
    (tmp_path / "gateway.toml").write_text(block("tools-need-approval") + key + EU)
    (tmp_path / "request.json").write_text(json.dumps({"model": "m", **CHAT, "temperature": 1}))
    words = shlex.split(command)[1:]
    assert main(words) == 0
    assert "request.json" in words or "claims-low-risk" in capsys.readouterr().out
    assert main([*words, "--json"]) == 0
    text = capsys.readouterr().out
    told = json.loads(text[text.index("{") :])
    if "--tags" in words:
        shown: Any = json.loads(next(text for text in blocks("json") if '"sets"' in text))
        assert shown in told["policies"]


def test_the_attributes_and_members_of_the_page_are_those_that_there_are() -> None:
    from gateway.settings.conditions import WHEN
    from gateway.settings.effects import REQUIRE, SET

    def first_cells(title: str) -> set[str]:
        part = PAGE.split(title)[1]
        rows = re.findall(r"^\| (`.+?) \|", part[: part.index("\n\n", part.index("|---"))], re.M)
        return {name.split(" ")[0] for row in rows for name in re.findall(r"`([^`]+)`", row)}

    cells = first_cells("## Conditions")
    assert cells | {"key"} == set(WHEN.fields)
    assert first_cells("**`require`**") - {"=", "true", "{"} == set(REQUIRE.fields)
    assert first_cells("**`set`**") == set(SET.fields)
