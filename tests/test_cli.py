"""The command line as people type it: what comes out, and the exit status."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import jsonschema
import pytest

from gateway.cli import main
from gateway.core.principal import digest
from gateway.stores.sqlite import SqliteLedger

ROOT = Path(__file__).parent.parent


class Said(NamedTuple):
    """What a command printed, and its exit status."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Run = Callable[..., Said]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs penstock in an empty directory, with no provider key in the environment."""
    monkeypatch.chdir(tmp_path)
    for name in list(os.environ):
        if name.endswith("_API_KEY") or name.startswith(("PENSTOCK_", "OPENAI_")):
            monkeypatch.delenv(name)

    def go(*words: str) -> Said:
        try:
            status = main(words)
        except SystemExit as left:
            status = int(left.code or 0)
        return Said(status, *capsys.readouterr())

    return go


def write(text: str, name: str = "gateway.toml") -> None:
    Path(name).write_text(text)


CONFIG = """
[[keys]]
name = "ci"
key = "env:CI_KEY"
tenant = "acme"

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
"""


# -- help and usage


@pytest.mark.parametrize(
    "words", [[], ["frob"], ["keys"], ["keys", "frob"], ["check", "--frob"], ["keys", "add"]]
)
def test_wrong_usage_is_status_2_and_says_what_is_right(run: Run, words: list[str]) -> None:
    said = run(*words)
    assert said.status == 2 and "usage: penstock" in said.err and said.out == ""


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["serve"],
        ["check"],
        ["explain"],
        ["keys"],
        *(["keys", a] for a in ("add", "list", "revoke")),
        ["usage"],
    ],
)
def test_every_command_has_help(run: Run, words: list[str]) -> None:
    said = run(*words, "--help")
    assert said.status == 0 and "Exit status: 0 done" in said.out


def test_the_module_is_the_command(tmp_path: Path) -> None:
    def penstock(*words: str) -> subprocess.CompletedProcess[str]:
        environ = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-m", "gateway", *words]
        return subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True, check=False)

    assert penstock("--version").stdout.startswith("penstock ")
    assert penstock("check").returncode == 0
    (tmp_path / "gateway.toml").write_text("[servr]\n")
    said = penstock("check")
    assert (said.returncode, said.stderr) == (1, "")
    assert said.stdout.startswith('gateway.toml:1:2  servr  unknown key; did you mean "server"?')


# -- check


def test_check_accepts_the_zero_configuration_and_a_valid_file(run: Run) -> None:
    assert run("check").out.startswith("no file: valid, revision ")
    write("[server]\nworkers = 2\n")
    assert run("check").out.startswith("gateway.toml: valid, revision ")


def test_check_tells_every_fault_and_is_status_1(run: Run) -> None:
    write("[servr]\n[auth]\nmode = 'opn'\n", "other.toml")
    said = run("check", "-c", "other.toml")
    assert said.status == 1 and len(said.out.splitlines()) == 3
    assert all(re.match(r"other\.toml:\d+:\d+  \S+ ", line) for line in said.out.splitlines()[:2])
    assert said.out.splitlines()[-1] == "2 faults"


def test_check_tells_of_a_plugin_that_can_not_be_had_where_it_stands(run: Run) -> None:
    write(
        '[[plugins]]\nuse = "plugins.example:Example"\n[[plugins]]\nuse = "plugins.nothing:Nothing"\n'
        '[[plugins]]\nuse = "json:JSONDecoder"\n[server]\nlistn = "x"\n'
    )
    said = run("check")
    assert said.status == 1 and said.out.endswith("3 faults\n")
    assert re.search(
        r"toml:4:7 +plugins\[1\]\.use +'plugins\.nothing:Nothing': the module .* imported", said.out
    )
    assert re.search(
        r"toml:6:7 +plugins\[2\]\.use +'json:JSONDecoder' is neither a Stage nor a Listen", said.out
    )


def test_check_speaks_json(run: Run) -> None:
    write("[auth]\nmode = 'opn'\n")
    said = run("check", "--json")
    (fault,) = said.json["faults"]
    assert said.status == 1 and said.json["valid"] is False
    assert (fault["file"], fault["line"], fault["column"], fault["path"]) == (
        "gateway.toml",
        2,
        8,
        "auth.mode",
    )
    write("")
    assert run("check", "--json").json["valid"] is True


def test_check_warns_about_a_literal_secret_without_showing_it(run: Run) -> None:
    write('[[keys]]\nname = "a"\nkey = "sk-canary"\n')
    said = run("check")
    assert said.status == 0 and "a literal secret" in said.err and "canary" not in said.out + said.err


def test_check_prints_the_schema(run: Run) -> None:
    said = run("check", "--schema")
    jsonschema.Draft202012Validator.check_schema(said.json)
    assert said.status == 0 and "server" in said.json["properties"]


def test_a_missing_file_is_refused(run: Run) -> None:
    for words in (["check"], ["explain"], ["keys", "list"], ["usage"]):
        said = run(*words, "-c", "nowhere.toml")
        assert said.status == 1 and "no such file" in said.out + said.err


# -- serve


@pytest.mark.parametrize(
    "words",
    [["--listen", "8080"], ["--admin", "here"], ["--workers", "0"], ["--workers", "many"]],
    ids=" ".join,
)
def test_serve_refuses_options_that_make_no_sense(run: Run, words: list[str]) -> None:
    said = run("serve", *words)
    assert said.status == 2 and words[0] in said.err


def test_serve_refuses_a_faulty_configuration(run: Run) -> None:
    write("[servr]\n")
    said = run("serve")
    assert said.status == 1 and "gateway.toml:1:2" in said.err
    said = run("serve", "--json")
    assert said.status == 1 and said.json["faults"][0]["path"] == "servr"


# -- keys


def test_a_key_is_made_listed_and_revoked(run: Run) -> None:
    said = run("keys", "add", "ci", "--tenant", "acme", "--models", "gpt-*, o3", "--expires", "2999-01-01")
    secret = said.out.splitlines()[0]
    assert said.status == 0 and re.fullmatch(r"sk-ps-[A-Za-z0-9_-]{43}", secret)
    (entry,) = ledger_keys()
    assert entry.digest == digest(secret.encode()) and entry.origin == "ledger"
    assert (entry.name, entry.tenant, entry.models) == ("ci", "acme", ("gpt-*", "o3"))
    listed = run("keys", "list")
    assert secret not in listed.out and re.search(r"ci +key_\w+ +active +ledger +acme", listed.out)
    assert run("keys", "revoke", "ci").status == 0
    assert "revoked" in run("keys", "list").out and ledger_keys()[0].revoked


def ledger_keys() -> list[Any]:
    ledger = SqliteLedger(Path("data/ledger.sqlite"))
    ledger.open()
    try:
        return ledger.keys()
    finally:
        ledger.close()


def test_keys_speak_json(run: Run) -> None:
    made = run("keys", "add", "a", "--json", "--expires", "30d", "--tags", "x,y").json
    assert made["key"].startswith("sk-ps-") and made["tags"] == ["x", "y"]
    left = datetime.fromisoformat(made["expires"]) - datetime.now(UTC)
    assert timedelta(days=29) < left <= timedelta(days=30)
    (listed,) = run("keys", "list", "--json").json
    assert listed == {name: value for name, value in made.items() if name != "key"}
    assert run("keys", "revoke", listed["id"], "--json").json == {"revoked": listed["id"]}


def test_only_the_digest_of_a_key_is_kept(run: Run) -> None:
    secret = run("keys", "add", "a").out.split()[0]
    files = [file for file in Path("data").rglob("*") if file.is_file()]
    assert files and not any(secret.encode() in file.read_bytes() for file in files)


@pytest.mark.parametrize(
    ("words", "status", "told"),
    [
        (["add", "taken"], 1, "taken"),
        (["add", "ci"], 1, "already"),
        (["add", "a/b"], 2, "NAME"),
        (["add", ""], 2, "NAME"),
        (["add", "n", "--tenant", "a|b"], 2, "--tenant"),
        (["add", "n", "--expires", "soon"], 2, "--expires"),
        (["add", "n", "--expires", "2001-01-01"], 2, "in the past"),
        (["revoke", "nobody"], 1, "no key named nobody"),
        (["revoke", "ci"], 1, "remove it there"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_keys_are_refused_with_a_reason(
    run: Run, monkeypatch: pytest.MonkeyPatch, words: list[str], status: int, told: str
) -> None:
    monkeypatch.setenv("CI_KEY", "sk-canary")
    write(CONFIG)
    assert run("keys", "add", "taken").status == 0
    said = run("keys", *words)
    assert said.status == status and told in said.err and said.out == ""
    assert run("keys", *words, "--json").json["error"]


def test_keys_of_the_file_are_listed_too(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI_KEY", "sk-canary")
    write(CONFIG)
    said = run("keys", "list")
    assert re.search(r"ci +key_\w+ +active +file +acme", said.out) and "canary" not in said.out
    assert not Path("data").exists()


def test_commands_that_need_no_secret_work_without_it(run: Run) -> None:
    """Keys are managed and usage is read in shells that do not hold the providers' keys."""
    write(CONFIG)
    assert run("check").status == 1
    for words in (["keys", "list"], ["keys", "add", "new"], ["usage"], ["explain"]):
        assert run(*words).status == 0


def test_without_keys_the_list_says_how_to_make_one(run: Run) -> None:
    assert "penstock keys add" in run("keys", "list").out
    assert run("keys", "list", "--json").json == []


# -- usage


def record(number: int, **more: Any) -> dict[str, Any]:
    """A settled call, as the journal has it."""
    ts = int(datetime(2026, 1, 2, 10, tzinfo=UTC).timestamp() * 1000)
    call = {
        "id": f"req_{number}",
        "ts": ts,
        "key": "key_1",
        "key_name": "ci",
        "model": "gpt-4o",
        "alias": "gpt-4o",
    }
    sums = {"status": 200, "outcome": "ok", "input": 1000, "output": 500, "cost_micros": 1_250_001}
    return call | sums | more


def fill(*records: dict[str, Any]) -> None:
    Path("data").mkdir()
    ledger = SqliteLedger(Path("data/ledger.sqlite"))
    ledger.open()
    ledger.commit(list(records), {})
    ledger.close()


def test_usage_adds_up_by_the_columns_asked_for(run: Run) -> None:
    fill(record(1), record(2), record(3, key="key_2", key_name="other", cost_micros=1))
    said = run("usage", "--by", "key,model,day")
    assert said.status == 0 and "2.500002" in said.out and "0.000001" in said.out and "2026-01-02" in said.out
    rows = run("usage", "--by", "key", "--json").json
    assert sorted((row["key_name"], row["cost_micros"]) for row in rows) == [("ci", 2_500_002), ("other", 1)]
    assert re.search(r"^ci +2 +2,000 +1,000 ", run("usage").out, re.MULTILINE)


def test_usage_can_be_narrowed_in_time(run: Run) -> None:
    fill(record(1))
    assert "No calls" in run("usage", "--until", "2026-01-02").out
    assert run("usage", "--since", "2026-01-03", "--json").json == []
    assert len(run("usage", "--since", "2026-01-02", "--until", "2026-01-03", "--json").json) == 1


def test_usage_of_a_gateway_that_never_ran_is_nothing(run: Run) -> None:
    said = run("usage")
    assert said.status == 0 and "No calls" in said.out and not Path("data").exists()


@pytest.mark.parametrize(
    "words", [["--by", "colour"], ["--by", ""], ["--by", "key,key"], ["--since", "never"]], ids=" ".join
)
@pytest.mark.parametrize("ran", [False, True], ids=["no ledger yet", "a ledger"])
def test_usage_refuses_what_it_can_not_know(run: Run, words: list[str], ran: bool) -> None:
    if ran:
        fill(record(1))
    said = run("usage", *words)
    assert said.status == 2 and words[0] in said.err and said.out == ""


def test_usage_by_a_column_that_there_is_none_of_says_which_there_are(run: Run) -> None:
    said = run("usage", "--by", "model,colour")
    assert '"colour"' in said.err and "key_name, tenant" in said.err


def test_usage_is_that_of_one_tenant_month_or_tag(run: Run) -> None:
    fill(
        record(1, tenant="acme", tags=["nightly", "batch"]),
        record(2, tenant="acme", model="o3"),
        record(3, tenant="other", key="key_2", key_name="other", cost_micros=9_000_000),
    )
    ask = ("usage", "--json", "--by")
    assert [row["model"] for row in run(*ask, "model", "--tenant", "acme").json] == ["gpt-4o", "o3"]
    assert [row["key_name"] for row in run(*ask, "key", "--key", "ci").json] == ["ci"]
    assert [row["key"] for row in run(*ask, "key", "--key", "key_2").json] == ["key_2"]
    assert [row["calls"] for row in run(*ask, "tenant", "--tag", "nightly").json] == [1]
    assert [(row["tag"], row["calls"]) for row in run(*ask, "tag").json] == [
        ("", 2),
        ("batch", 1),
        ("nightly", 1),
    ]
    assert run(*ask, "key", "--month", "2026-02").json == []
    assert len(run(*ask, "key", "--month", "2026-01").json) == 2
    assert [row["key_name"] for row in run(*ask, "key", "--top", "1").json] == ["other"]
    assert run(*ask, "prompt,arm").json[0]["prompt"] == ""
    for words in (("--month", "soon"), ("--month", "2026-01", "--since", "7d"), ("--by", "key,colour")):
        assert run("usage", *words).status == 2
