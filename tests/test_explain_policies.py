"""`penstock explain` and policies: which one meets a request, what it would do, and what then happens."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gateway.cli import main

CONFIG = """
[access]
default = "deny"

[[keys]]
name = "ci"
key = "env:CI_KEY"
tenant = "acme"
tags = ["workflow:claims"]

[backends.one]
kind = "echo"
[backends.two]
kind = "echo"

[models."*"]
targets = [ { backend = "one" } ]
fallback = [ { backend = "two" } ]

[[policies]]
name = "acme-may"
when = { tenant = "acme" }
allow = true

[[policies]]
name = "no-shell"
when = { tools = "shell*" }
deny = "No shell here."

[[policies]]
name = "low-risk"
when = { tags = "workflow:claims" }
set = { temperature = { at_most = 0.2 }, tools = { remove = "web*" } }

[[policies]]
name = "bounded"
when = { team = "search" }
require = { max_tokens = true }

[[policies]]
name = "soon"
when = { client = "10.0.0.0/8" }
deny = "Not from there."
mode = "shadow"

[[policies]]
name = "not-at-one"
when = { backend = "one", classification = "restricted" }
deny = "Not at one."

[[policies]]
name = "weekend"
when = { time = { days = "sat-sun" }, header = { x-site = "plant*" } }
deny = "Not on weekends."
"""


class Explained:
    """Runs `penstock explain` on a request with the configuration above."""

    def __init__(self, directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.directory, self.capsys = directory, capsys

    def text(self, *words: str) -> str:
        main(["explain", *words])
        said = self.capsys.readouterr()
        return said.out + said.err

    def request(self, document: Any, *words: str) -> tuple[int, Any]:
        (self.directory / "request.json").write_text(json.dumps({"model": "m", "messages": [], **document}))
        status = main(["explain", "--json", "request.json", *words])
        return status, json.loads(self.capsys.readouterr().out)


@pytest.fixture
def explained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Explained:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CI_KEY", "sk-canary-ci")
    (tmp_path / "gateway.toml").write_text(CONFIG)
    return Explained(tmp_path, capsys)


def tool(name: str) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name}}


def named(told: Any) -> list[str]:
    return [entry["policy"] for entry in told["policies"]]


def test_policies_are_listed_with_what_they_look_at(explained: Explained) -> None:
    told = explained.text()
    assert "no-shell" in told and "client" in told and "shadow" in told
    listed = json.loads(explained.text("--json"))
    assert listed["access"]["default"] == "deny"
    assert {"name": "soon", "effect": "deny", "mode": "shadow", "looks_at": ["client"]} in listed["policies"]
    assert [stage["name"] for stage in listed["stages"]].index("policy") > 0


def test_the_stage_is_not_shown_where_no_policy_needs_it(explained: Explained) -> None:
    (explained.directory / "gateway.toml").write_text("")
    assert "policy" not in [stage["name"] for stage in json.loads(explained.text("--json"))["stages"]]


def test_each_policy_that_meets_a_request_is_named_with_what_it_does(explained: Explained) -> None:
    document = {"temperature": 1, "tools": [tool("web_search"), tool("a")]}
    status, told = explained.request(document, "--key", "ci")
    assert status == 0 and named(told) == ["acme-may", "low-risk"]
    assert told["policies"][1] == {
        "policy": "low-risk", "effect": "set", "mode": "enforce", "holds": True,
        "sets": {"temperature": 0.2, "tools": ["a"]},
    }  # fmt: skip
    assert told["set"] == {"temperature": 0.2, "tools": ["a"]}
    assert "temperature = 0.2" in explained.text("request.json", "--key", "ci")


def test_a_denial_says_where_and_why(explained: Explained) -> None:
    status, told = explained.request({"tools": [tool("shell")]}, "--key", "ci")
    assert status == 1 and told["stage"] == "policy" and told["refused"]["code"] == "policy_denied"
    assert "no-shell" in told["refused"]["message"] and "no-shell" in named(told)
    assert "refused by policy" in explained.text("request.json", "--key", "ci")


def test_what_nothing_allows_is_refused_by_the_default(explained: Explained) -> None:
    status, told = explained.request({})
    assert status == 1 and named(told) == [] and told["refused"]["code"] == "policy_denied"
    assert explained.request({}, "--tenant", "acme")[0] == 0


def test_a_requirement_says_what_is_missing_and_when_it_is_met(explained: Explained) -> None:
    status, told = explained.request({}, "--key", "ci", "--team", "search")
    assert status == 1 and told["refused"]["code"] == "policy_requirement"
    assert (
        "max_tokens" in next(entry for entry in told["policies"] if entry["policy"] == "bounded")["missing"]
    )
    status, told = explained.request({"max_tokens": 5}, "--key", "ci", "--team", "search")
    assert status == 0
    assert next(entry for entry in told["policies"] if entry["policy"] == "bounded")["missing"] is None


def test_a_policy_in_shadow_is_named_and_refuses_nothing(explained: Explained) -> None:
    status, told = explained.request({}, "--key", "ci", "--client", "10.1.2.3")
    assert status == 0
    assert next(entry for entry in told["policies"] if entry["policy"] == "soon")["mode"] == "shadow"
    assert "would, but for its mode" in explained.text("request.json", "--key", "ci", "--client", "10.1.2.3")


def test_a_denial_towards_one_backend_shows_which_and_what_is_left(explained: Explained) -> None:
    status, told = explained.request({}, "--key", "ci", "--tags", "class:restricted")
    entry = next(entry for entry in told["policies"] if entry["policy"] == "not-at-one")
    assert status == 0 and entry["backends"] == ["one"]
    assert [target["backend"] for target in told["plans"][0]["targets"]] == ["two"]


def test_time_and_headers_can_be_supposed(explained: Explained) -> None:
    words = ["--key", "ci", "--header", "x-site: plant-7"]
    assert explained.request({}, *words, "--at", "2026-03-07")[0] == 1
    assert explained.request({}, *words, "--at", "2026-03-09")[0] == 0
    assert explained.request({}, "--key", "ci", "--at", "2026-03-07")[0] == 0


def test_a_condition_that_can_not_be_told_says_so(explained: Explained) -> None:
    status, told = explained.request({"input_file_id": "f"}, "--key", "ci", "--endpoint", "batches")
    assert status == 1
    assert next(entry for entry in told["policies"] if entry["policy"] == "no-shell")["holds"] is None


def test_suppositions_need_a_request_and_have_to_make_sense(explained: Explained) -> None:
    assert "needs a request" in explained.text("--tags", "a")
    (explained.directory / "request.json").write_text("{}")
    assert main(["explain", "request.json", "--header", "nonsense"]) == 2
    assert main(["explain", "request.json", "--at", "yesterday"]) == 2
