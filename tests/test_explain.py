"""`penstock explain`: the configuration in words, and what it would do to a request."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from gateway.cli import main
from gateway.core.credential import expired
from gateway.core.records import TENANT, Actor, Change, Deed
from gateway.stores.sqlite import SqliteLedger

CONFIG = """
[[keys]]
name = "ci"
key = "env:CI_KEY"
tenant = "acme"
models = ["gpt-*"]

[[keys]]
name = "old"
key = "env:OLD_KEY"
expires = 2001-01-01

[backends.one]
kind = "openai"
base_url = "http://one.example/v1"
api_key = "env:CI_KEY"

[backends.two]
kind = "echo"

[models."gpt-*"]
targets = [ { backend = "one", weight = 3 }, { backend = "two", model = "small" } ]
fallback = [ { backend = "two", model = "mini" } ]

[models."gpt-4o"]
targets = [ { backend = "one" } ]

[models.other]
targets = [ { backend = "one" } ]

[[limits]]
scope = "tenant"
match = "ac*"
requests = 600
per = "1m"

[[limits]]
scope = ["key", "model"]
usd = 2.5
per = "calendar month"
mode = "shadow"

[[limits]]
scope = "team"
concurrent = 4

[[limits]]
scope = "tenant"
match = "others"
tokens = 1
per = "1d"
"""


class Explained:
    """Runs `penstock explain` in a directory with the configuration above."""

    def __init__(self, directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.directory = directory
        self.capsys = capsys
        (directory / "gateway.toml").write_text(CONFIG)

    def text(self, *words: str) -> str:
        main(["explain", *words])
        said = self.capsys.readouterr()
        return said.out + said.err

    def json(self, *words: str) -> Any:
        main(["explain", "--json", *words])
        return json.loads(self.capsys.readouterr().out)

    def request(self, document: Any, *words: str) -> tuple[int, Any]:
        """Exit status and JSON answer for a request body."""
        body = document if isinstance(document, str) else json.dumps(document)
        (self.directory / "request.json").write_text(body)
        status = main(["explain", "--json", "request.json", *words])
        return status, json.loads(self.capsys.readouterr().out)


@pytest.fixture
def explained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Explained:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CI_KEY", "sk-canary-ci")
    monkeypatch.setenv("OLD_KEY", "sk-canary-old")
    return Explained(tmp_path, capsys)


def chat(model: str, **more: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": "Hello"}], **more}


def test_the_pipeline_is_shown_in_its_order_with_its_verbs(explained: Explained) -> None:
    stages = explained.json()["stages"]
    names = [stage["name"] for stage in stages]
    assert names.index("auth") < names.index("access") < names.index("route") < names.index("limits")
    assert names[-2:] == ["forward", "meter"]
    verbs = {stage["name"]: stage["verbs"] for stage in stages}
    assert verbs["auth"] == ["admit"] and verbs["limits"] == ["admit", "settle"]


def test_a_plugin_stands_before_forward(explained: Explained, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = "from gateway.core.ports import Stage", "class Own(Stage):", "    def admit(self, call): ..."
    source = "\n".join(lines)
    (explained.directory / "own_stage.py").write_text(source)
    monkeypatch.syspath_prepend(explained.directory)
    (explained.directory / "gateway.toml").write_text('[[plugins]]\nuse = "own_stage:Own"\n')
    assert [s["name"] for s in explained.json()["stages"]][-3:] == ["own", "forward", "meter"]
    (explained.directory / "gateway.toml").write_text('[[plugins]]\nuse = "own_stage:Other"\n')
    assert main(["explain"]) == 1
    assert "Other" in explained.text()


def test_everything_is_shown_and_nothing_secret(explained: Explained) -> None:
    told = explained.text()
    for shown in (
        "env:CI_KEY",
        "one x3, two/small x1",
        "600 requests per 1m",
        "2.5 USD per calendar month",
        "32MiB",
    ):
        assert shown in told
    assert "canary" not in told + json.dumps(explained.json())


def test_an_exact_name_wins_over_a_glob(explained: Explained) -> None:
    status, told = explained.request(chat("gpt-4o"), "--key", "ci")
    assert (status, told["rule"], told["reason"]) == (0, "gpt-4o", "exact")


def test_weights_are_shares_and_fallbacks_follow(explained: Explained) -> None:
    _, told = explained.request(chat("gpt-4o-mini", stream=True))
    assert told["rule"] == "gpt-*" and told["stream"] is True
    assert told["plans"] == [
        {"share": 0.75, "targets": [{"backend": "one", "model": None}, {"backend": "two", "model": "mini"}]},
        {
            "share": 0.25,
            "targets": [{"backend": "two", "model": "small"}, {"backend": "two", "model": "mini"}],
        },
    ]


def test_the_limits_that_apply_to_the_key_are_shown(explained: Explained) -> None:
    _, told = explained.request(chat("gpt-4o", max_tokens=100), "--key", "ci")
    first, second = told["limits"]
    assert (first["scope"], first["value"], first["needs"]) == (["tenant"], "acme", 1)
    assert second["scope"] == ["key", "model"] and 0.001 < second["needs"] < 0.01
    assert told["reserved"]["tokens"] > 100


@pytest.mark.parametrize(
    ("document", "words", "stage", "code"),
    [
        ('{"model": "gpt', [], "body", "caller_bad_request"),
        ("[]", [], "body", "caller_bad_request"),
        (chat("nobody-has-it"), [], "route", "caller_model_not_found"),
        (chat("other"), ["--key", "ci"], "access", "policy_model_denied"),
        (chat("gpt-4o"), ["--key", "old"], "auth", "caller_expired_key"),
    ],
)
def test_a_request_that_would_be_refused_says_where_and_why(
    explained: Explained, document: Any, words: list[str], stage: str, code: str
) -> None:
    status, told = explained.request(document, *words)
    assert status == 1 and told["stage"] == stage and told["refused"]["code"] == code
    assert f"refused by {stage}" in explained.text("request.json", *words)


def test_other_endpoints_can_be_asked_about(explained: Explained) -> None:
    status, told = explained.request({"model": "gpt-4o", "input": "x"}, "--endpoint", "/v1/embeddings")
    assert status == 0 and told["endpoint"] == "embeddings"


@pytest.mark.parametrize("path", ["chat/completions/", "/v1/chat/%63ompletions", "v1/v1/chat/completions"])
def test_another_spelling_of_a_metered_path_is_refused_as_the_gateway_does(
    explained: Explained, path: str
) -> None:
    status, told = explained.request(chat("gpt-4o"), "--endpoint", path)
    assert status == 1 and told["refused"]["code"] == "caller_bad_request"
    assert "/v1/chat/completions" in told["refused"]["message"]


def test_a_path_is_taken_as_the_gateway_would_take_it(explained: Explained) -> None:
    query = explained.request(chat("gpt-4o"), "--endpoint", "chat/completions?api-version=1")[1]
    assert query["endpoint"] == "chat/completions"


@pytest.mark.parametrize(
    "words", [("--endpoint", "../x"), ("--header", "a b: c"), ("--header", "host: x"), ("--endpoint", "a b")]
)
def test_a_head_that_the_gateway_would_refuse_is_refused(
    explained: Explained, words: tuple[str, str]
) -> None:
    status, told = explained.request(chat("gpt-4o"), *words)
    assert (status, told["stage"], told["refused"]["status"]) == (1, "head", 400)


def test_a_supposed_content_type_stands_in_place_of_the_usual_one(explained: Explained) -> None:
    form = b'--B\r\nContent-Disposition: form-data; name="model"\r\n\r\nother\r\n--B--\r\n'
    (explained.directory / "request.json").write_bytes(form)
    words = (
        "--endpoint",
        "audio/transcriptions",
        "--header",
        "content-type: multipart/form-data; boundary=B",
    )
    assert explained.json("request.json", *words)["model"] == "other"


def test_expiry_is_looked_at_as_of_the_supposed_time(explained: Explained) -> None:
    told = explained.request(chat("gpt-4o"), "--key", "old", "--at", "1999-01-01")[1]
    assert "refused" not in told
    assert explained.request(chat("gpt-4o"), "--key", "old")[1]["refused"]["message"] == expired().message


def test_a_client_that_is_no_address_is_wrong_usage(explained: Explained) -> None:
    (explained.directory / "request.json").write_text("{}")
    assert "is no IP address" in explained.text("request.json", "--client", "10.0.0")


def test_plugins_that_are_not_asked_are_named(explained: Explained) -> None:
    plugins = '[[plugins]]\nuse = "plugins.example:Example"\n[[plugins]]\nuse = "plugins.webhook:Webhook"\n'
    (explained.directory / "gateway.toml").write_text(CONFIG + plugins)
    assert explained.request(chat("gpt-4o"))[1]["not_asked"] == ["plugins.example:Example"]
    assert "not asked" in explained.text("request.json")


def test_a_missing_file_or_key_is_refused(explained: Explained) -> None:
    assert "no such file" in explained.text("nowhere.json")
    (explained.directory / "request.json").write_text("{}")
    assert "no key named nobody" in explained.text("request.json", "--key", "nobody")
    assert "--key needs a request" in explained.text("--key", "ci")


TENANTS = """
[tenants.acme]
models = ["gpt-4o"]
networks = ["10.0.0.0/8"]

[tenants.acme.teams.search]
disabled = true
"""


def test_what_tenant_and_team_say_holds_for_the_forecast_too(explained: Explained) -> None:
    (explained.directory / "gateway.toml").write_text(CONFIG + TENANTS)
    here = ("--key", "ci", "--client", "10.1.2.3")
    assert explained.request(chat("gpt-4o"), *here)[0] == 0
    for model, words, code in (
        ("gpt-5", here, "policy_model_denied"),
        ("gpt-4o", (*here, "--team", "search"), "policy_disabled"),
        ("gpt-4o", ("--key", "ci", "--client", "192.0.2.1"), "policy_address_not_allowed"),
        ("gpt-4o", ("--tenant", "acme", "--client", "192.0.2.1"), "policy_address_not_allowed"),
    ):
        status, told = explained.request(chat(model), *words)
        assert (status, told["stage"], told["refused"]["code"]) == (1, "access", code)


def test_a_tenant_of_the_ledger_is_known_to_the_forecast(explained: Explained) -> None:
    with closing(SqliteLedger(explained.directory / "data" / "ledger.sqlite")) as ledger:
        (explained.directory / "data").mkdir()
        ledger.open()
        deed = Deed(Actor("cli"), "tenant.create", "tenant/made")
        ledger.change(Change(TENANT, "made", {"name": "made", "disabled": True}, deed))
    status, told = explained.request(chat("gpt-4o"), "--tenant", "made")
    assert (status, told["refused"]["code"]) == (1, "policy_disabled")
