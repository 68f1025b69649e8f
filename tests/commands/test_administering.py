"""keys, tenants, limits, config: on the ledger alone and through a gateway that runs, in the same words."""

from __future__ import annotations

import contextlib
import io
import json
import os
import pwd
import re
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.cli import main
from gateway.core.principal import KeyEntry, digest
from gateway.core.records import KeptRevision
from gateway.stores.sqlite import SqliteLedger
from tests.e2e.gateway import Gateway
from tests.e2e.running import until
from tests.test_cli import Said

LITERAL = "sk-literal-canary-0123456789"
CONFIG = f"""
[backends.e]
kind = "echo"

[tenants.filed]
models = ["gpt-*"]

[[keys]]
name = "f"
key = "{LITERAL}"

[[limits]]
name = "per-key"
scope = "key"
requests = 5
per = "1m"

[[limits]]
name = "money"
scope = ["tenant", "model"]
usd = 2.5
per = "calendar month"
"""
MORE = CONFIG.replace("requests = 5", "requests = 7")
FAULTY = "[servr]\n"
SECRET = re.compile(r"sk-ps-[A-Za-z0-9_-]{43}")


class Place:
    """A configuration and whoever has it: its commands, and all they ever said."""

    def __init__(self, directory: Path, gateway: Gateway | None = None) -> None:
        self.directory = directory
        self.gateway = gateway
        self.path = gateway.path if gateway else directory / "gateway.toml"
        self.data = self.path.parent / "data"
        self.all: list[str] = []
        if gateway is None:
            self.path.write_text(CONFIG)
        self.first = self.path.read_text()

    def draft(self, config: str) -> str:
        """A file to apply: as the gateway's own, with another rest."""
        head = self.first.removesuffix(CONFIG) if self.gateway else ""
        file = self.directory / "draft"
        file.write_text(head + config if config != FAULTY else config)
        return str(file)

    def __call__(self, *words: str) -> Said:
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                status = main([*words, "-c", str(self.path)])
            except SystemExit as left:
                status = int(left.code or 0)
        said = Said(status, out.getvalue(), err.getvalue())
        self.all += [said.out, said.err]
        return said

    def done(self, *words: str) -> Said:
        said = self(*words)
        assert (said.status, said.err) == (0, ""), said
        return said


@contextlib.contextmanager
def placed(mode: str, directory: Path) -> Iterator[Place]:
    with pytest.MonkeyPatch.context() as patch, contextlib.ExitStack() as stack:
        for name in list(os.environ):
            if name.endswith("_API_KEY") or name.startswith(("PENSTOCK_", "OPENAI_")):
                patch.delenv(name)
        gateway = stack.enter_context(Gateway(directory / "gw", CONFIG)) if mode == "running" else None
        yield Place(directory, gateway)


MODES = ["offline", "running"]


@pytest.fixture(params=MODES, scope="module")
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """Shared by tests that use names of their own and leave the file alone."""
    with placed(request.param, tmp_path_factory.mktemp(request.param)) as found:
        yield found


@pytest.fixture(params=MODES)
def own(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    """For tests that change the file."""
    with placed(request.param, tmp_path) as found:
        yield found


@pytest.fixture
def offline(tmp_path: Path) -> Iterator[Place]:
    with placed("offline", tmp_path) as found:
        yield found


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Place]:
    with placed("running", tmp_path) as found:
        yield found


# -- keys


def test_a_key_has_what_it_was_given(place: Place) -> None:
    words = ("--tenant", "acme", "--roles", "caller,viewer", "--networks", "10.0.0.0/8", "--models", "gpt-*")
    said = place.done("keys", "add", "given", *words)
    secret = said.out.splitlines()[0]
    assert SECRET.fullmatch(secret)
    shown = place.done("keys", "show", "given", "--json").json
    assert (shown["tenant"], shown["roles"], shown["state"]) == ("acme", ["caller", "viewer"], "active")
    assert (shown["networks"], shown["models"], shown["from"]) == (["10.0.0.0/8"], ["gpt-*"], "ledger")
    assert shown == place.done("keys", "show", shown["id"], "--json").json
    told = place.done("keys", "show", "given").out
    assert re.search(r"^networks +10\.0\.0\.0/8$", told, re.M) and "tags" not in told
    assert [key["name"] for key in place.done("keys", "list", "--tenant", "acme", "--json").json] == ["given"]
    assert place.done("keys", "list", "--state", "revoked").out == "There are no such keys.\n"


def test_a_rotated_key_has_a_new_secret_and_says_until_when_the_old_one_works(place: Place) -> None:
    first = place.done("keys", "add", "turned").out.splitlines()[0]
    lines = place.done("keys", "rotate", "turned", "--overlap", "2h").out.splitlines()
    until = place.done("keys", "show", "turned", "--json").json["previous_until"]
    assert SECRET.fullmatch(lines[0]) and lines[0] != first
    assert lines[-1] == f"The one before works until {until}."
    lines = place.done("keys", "rotate", "turned", "--overlap", "0s").out.splitlines()
    assert lines[-1] == "The one before does not work any more."
    made = place.done("keys", "rotate", "turned", "--json").json
    assert SECRET.fullmatch(made["key"]) and made["previous_until"] is not None and "version" not in made


def test_more_keys_than_a_page_are_all_listed(offline: Place) -> None:
    offline.done("keys", "add", "first")
    with closing(SqliteLedger(offline.data / "ledger.sqlite")) as ledger:
        ledger.open()
        for n in range(1000):
            ledger.add_key(KeyEntry(f"key_{n:04}", f"k{n}", digest(b"%d" % n), origin="ledger"))
    names = [key["name"] for key in offline.done("keys", "list", "--json").json]
    assert sorted(names) == sorted({"f", "first", *(f"k{n}" for n in range(1000))})


# -- tenants


def test_a_tenant_is_made_changed_and_removed(place: Place) -> None:
    place.done("tenants", "add", "globex", "--models", "gpt-*, o3", "--description", "Globex")
    place.done("tenants", "set", "globex", "--team", "search", "--models", "gpt-4o-mini", "--tags", "x")
    place.done("tenants", "set", "globex", "--team", "search", "--tags", "")
    place.done("tenants", "set", "globex", "--user", "bot", "--disable")
    changed = place.done("tenants", "set", "globex", "--description", "", "--disable", "--json").json
    assert (changed["models"], changed["description"], changed["disabled"]) == (["gpt-*", "o3"], "", True)
    assert changed["teams"]["search"]["models"] == ["gpt-4o-mini"] and not changed["teams"]["search"]["tags"]
    assert changed["users"]["bot"]["disabled"] is True
    assert changed == place.done("tenants", "show", "globex", "--json").json
    told = place.done("tenants", "show", "globex").out
    assert re.search(r"^teams\.search\.models +gpt-4o-mini$", told, re.M)
    assert re.search(
        r"^globex +ledger +disabled +gpt-\*,o3 +search +bot", place.done("tenants", "list").out, re.M
    )
    place.done("tenants", "set", "globex", "--enable")
    place.done("tenants", "remove", "globex", "--user", "bot")
    left = place.done("tenants", "show", "globex", "--json").json
    assert (left["users"], sorted(left["teams"]), left["disabled"]) == ({}, ["search"], False)
    assert place.done("tenants", "remove", "globex", "--json").json == {"removed": "globex"}
    assert [tenant["name"] for tenant in place.done("tenants", "list", "--json").json] == ["filed"]


def test_what_has_no_option_comes_as_a_document(place: Place) -> None:
    file = place.directory / "tenant.json"
    file.write_text(json.dumps({"capture": {"sample": 0.5, "keep": "1d"}, "users": {"ann": {"tags": ["x"]}}}))
    made = place.done("tenants", "add", "kept", "--document", str(file), "--tags", "y", "--json").json
    assert made["capture"]["sample"] == 0.5 and made["capture"]["keep"] == "1d" and made["tags"] == ["y"]
    file.write_text('{"capture": null}')
    left = place.done("tenants", "set", "kept", "--document", str(file), "--json").json
    assert left["capture"]["sample"] == 0 and left["users"]["ann"]["tags"] == ["x"]
    place.done("tenants", "remove", "kept")


# -- limits


def test_limits_are_listed_as_they_are_written(place: Place) -> None:
    listed = place.done("limits", "list", "--json").json
    assert [(limit["id"], limit["amount"], limit["unit"]) for limit in listed] == [
        ("money", 2.5, "usd"),
        ("per-key", 5, "requests"),
    ]
    said = place.done("limits", "list").out
    assert re.search(r"^money +tenant\+model +\* +2\.5 +usd +calendar month +enforce", said, re.M)


def test_a_limit_is_raised_for_a_while_and_the_raise_ended(place: Place) -> None:
    made = place.done(
        "limits", "raise", "money", "--by", "1.5", "--for", "2h", "--value", "filed/*", "--json"
    ).json
    assert (made["rule"], made["by"], made["value"]) == ("money", 1.5, "filed/*")
    other = place.done("limits", "raise", "per-key", "--by", "10", "--until", "2999-01-01", "--reason", "why")
    assert "per-key is raised by 10 until 2999-01-01T00:00:00Z: raise_" in other.out
    assert made["id"] in place.done("limits", "raises").out
    assert place.done("limits", "show", "money", "--json").json["raises"] == [made]
    assert (
        "2.5 usd per calendar month (UTC) for each tenant+model" in place.done("limits", "show", "money").out
    )
    for each in place.done("limits", "raises", "--json").json:
        place.done("limits", "unraise", each["id"])
    assert place.done("limits", "raises").out == "No limit is raised.\n"


def test_a_raise_takes_the_name_of_a_key_and_refuses_one_that_nobody_has(place: Place) -> None:
    listed = {key["name"]: key["id"] for key in place.done("keys", "list", "--json").json}
    raising = ("limits", "raise", "per-key", "--by", "1", "--for", "1h", "--json", "--value")
    made = place.done(*raising, "f").json
    assert made["value"] == listed["f"]
    place.done("limits", "unraise", made["id"])
    said = place(*raising, "nobody")
    assert said.status == 2 and "--value: there is no key of that name or id" in said.out
    assert place.done("limits", "raises").out == "No limit is raised.\n"


def test_what_was_used_of_a_limit_is_shown_while_the_gateway_runs_and_after(running: Place) -> None:
    assert running.gateway is not None
    document = {"model": "gpt-4o", "messages": [{"role": "user", "content": "x"}]}
    assert running.gateway.post(document, key=LITERAL)[0] == 200
    assert "Nothing counts" in running.done("limits", "show", "money").out
    shown = running.done("limits", "show", "per-key", "--json").json["buckets"]
    assert [(bucket["amount"], bucket["used"] + bucket["leased"] + bucket["left"]) for bucket in shown] == [
        (5, 5)
    ]
    running.gateway.stop()
    (after,) = running.done("limits", "show", "per-key", "--json").json["buckets"]
    assert (after["amount"], after["used"], after["left"]) == (5, 1, 4) and after["value"] == shown[0][
        "value"
    ]
    assert re.search(r"^key_\w+ +5 +1 +0 +4 ", running.done("limits", "show", "per-key").out, re.M)


# -- the configuration


def test_a_configuration_is_applied_compared_and_taken_back(own: Place) -> None:
    own.path.chmod(0o640)
    assert own("config", "validate", own.draft(MORE)).out.endswith("draft: valid\n")
    assert own.path.read_text() == own.first
    said = own.done("config", "apply", own.draft(MORE), "--note", "more", "--json").json
    assert "requests = 7" in own.path.read_text() and own.path.stat().st_mode & 0o777 == 0o640
    assert said["revision"] == own.done("config", "show", "--json").json["revision"]
    listed = own.done("config", "history", "--json").json
    assert [(each["revision"], each["note"]) for each in listed[:1]] == [(said["revision"], "more")]
    assert len(listed) == 2
    diff = own.done("config", "diff").out
    assert "-requests = 5\n+requests = 7" in diff and LITERAL not in diff
    first, second = str(listed[1]["n"]), str(listed[0]["n"])
    assert own.done("config", "diff", first, second).out == diff
    assert "+requests = 5" in own.done("config", "diff", second, first).out
    assert "requests = 5" in own.done("config", "show", first).out
    own.done("config", "rollback", "--note", "back")
    assert own.path.read_text() == own.first and len(own.done("config", "history", "--json").json) == 3
    own.done("config", "rollback", said["revision"])
    assert "requests = 7" in own.path.read_text()
    assert len(own.done("config", "history", "--limit", "1", "--json").json) == 1


def test_what_another_replica_serves_from_elsewhere_is_not_the_revision_before(own: Place) -> None:
    own.done("config", "apply", own.draft(MORE))
    diff = own.done("config", "diff").out
    other = KeptRevision("elsewhere", 1 + int(time.time() * 1000), {}, {"/elsewhere/gateway.toml": CONFIG})
    with closing(SqliteLedger(own.data / "ledger.sqlite")) as ledger:
        ledger.open()
        ledger.keep_revision(other)
    assert own.done("config", "history", "--json").json[0]["revision"] == "elsewhere"
    assert "-requests = 5\n+requests = 7" in diff
    assert own.done("config", "diff").out == diff


def test_a_faulty_draft_changes_nothing(own: Place) -> None:
    draft = own.draft(FAULTY)
    for action in ("validate", "apply"):
        said = own("config", action, draft)
        assert said.status == 1 and said.out.startswith(
            'gateway.toml:1:2  servr  unknown key; did you mean "server"'
        )
        said = own("config", action, draft, "--json")
        assert said.status == 1 and said.json["faults"][0]["path"] == "servr"
    assert own.path.read_text() == own.first


def test_a_text_with_the_mark_of_a_secret_is_no_draft(own: Place) -> None:
    shown = own.done("config", "show").out
    assert "***secret:" in shown
    file = own.directory / "shown.toml"
    file.write_text(shown)
    for action in ("validate", "apply"):
        said = own("config", action, str(file))
        assert said.status == 1 and "where a literal secret was taken out" in said.err
    assert own.path.read_text() == own.first


def test_without_an_earlier_text_there_is_no_way_back(own: Place) -> None:
    for words in (("diff",), ("rollback",), ("rollback", "nosuch"), ("show", "nosuch")):
        said = own("config", *words)
        assert said.status == 1 and "penstock config history shows them" in said.err
    assert own.path.read_text() == own.first


def test_a_draft_comes_from_stdin_too(offline: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(FAULTY.encode())))
    assert offline("config", "validate", "-").status == 1


# -- what is refused


REFUSED = [
    (("keys", "add", "f"), 1, "has a key named f already"),
    (("keys", "add", "taken"), 1, "'taken' exists already: choose another name"),
    (("keys", "add", "n", "--networks", "here"), 2, '--networks: "here" is not an address range'),
    (("keys", "add", "n", "--roles", "a|b"), 2, "--roles: "),
    (("keys", "show", "nobody"), 1, "no key named nobody; penstock keys list"),
    (("keys", "show", "a/b"), 2, "NAME: "),
    (("keys", "rotate", "nobody"), 1, "no key named nobody"),
    (("keys", "rotate", "f"), 1, "gateway.toml: change it there"),
    (("keys", "rotate", "taken", "--overlap", "soon"), 2, '--overlap: "soon" is not a duration'),
    (("keys", "revoke", "f"), 1, "gateway.toml: remove it there"),
    (("tenants", "add", "there"), 1, "the tenant 'there' exists already"),
    (("tenants", "add", "filed"), 1, "gateway.toml: change it there"),
    (("tenants", "add", "a/b"), 2, "NAME: "),
    (("tenants", "set", "filed", "--tags", "x"), 1, "gateway.toml: change it there"),
    (("tenants", "remove", "filed"), 1, "gateway.toml: change it there"),
    (("tenants", "set", "nobody", "--tags", "x"), 1, "no tenant named nobody"),
    (("tenants", "set", "there"), 2, "name what is to be changed"),
    (("tenants", "set", "there", "--tags", "a|b"), 2, "--tags: "),
    (("tenants", "set", "there", "--team", "a", "--user", "b", "--tags", "x"), 2, "one at a time"),
    (("tenants", "remove", "there", "--team", "none"), 1, "says nothing of the team none"),
    (("tenants", "show", "nobody"), 1, "no tenant named nobody"),
    (("tenants", "set", "there", "--document", "nowhere.json"), 1, "nowhere.json can't be read"),
    (("limits", "show", "nosuch"), 1, "no limit nosuch; penstock limits list"),
    (("limits", "raise", "nosuch", "--by", "1", "--for", "2h"), 1, "no limit nosuch"),
    (("limits", "raise", "per-key", "--by", "1.5", "--for", "2h"), 2, "--by: must be a whole number"),
    (("limits", "raise", "per-key", "--by", "1", "--for", "soon"), 2, '--for: "soon" is not a duration'),
    (("limits", "raise", "per-key", "--by", "1", "--until", "2001-01-01"), 2, "--until: lies in the past"),
    (("limits", "raise", "per-key", "--by", "1"), 2, "--for --until"),
    (("limits", "unraise", "nosuch"), 1, "no raise nosuch; penstock limits raises"),
    (("config", "apply", "nowhere.toml"), 1, "nowhere.toml can't be read"),
    (("config", "diff", "nosuch"), 1, "no revision nosuch"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("words", "status", "told"), REFUSED, ids=lambda v: " ".join(v) if type(v) is tuple else ""
)
def test_what_can_not_be_done_is_refused_with_a_reason(
    place: Place, words: tuple[str, ...], status: int, told: str
) -> None:
    for need in (("keys", "add", "taken"), ("tenants", "add", "there")):
        place(*need)
    said = place(*words)
    assert (said.status, said.out) == (status, "") and told in said.err
    if "usage:" not in said.err:
        assert place(*words, "--json").json["error"] in said.err


@pytest.mark.parametrize(
    ("group", "actions"),
    [
        ("keys", "add list show rotate revoke"),
        ("tenants", "add list show set remove"),
        ("limits", "list show raise raises unraise"),
        ("config", "show validate apply history diff rollback"),
    ],
)
def test_every_action_has_help(offline: Place, group: str, actions: str) -> None:
    assert offline(group).status == 2
    for action in actions.split():
        said = offline(group, action, "--help")
        assert said.status == 0 and "Exit status: 0 done" in said.out and "--json" in said.out


# -- both ways are one


def script(place: Place) -> list[Said]:
    """Everything once."""
    words: list[tuple[str, ...]] = [
        ("keys", "add", "ci", "--tenant", "acme", "--expires", "2999-01-01"),
        ("keys", "rotate", "ci"),
        ("keys", "list"),
        ("keys", "list", "--json"),
        ("keys", "show", "ci"),
        ("keys", "show", "f", "--json"),
        ("keys", "revoke", "ci"),
        ("keys", "revoke", "ci"),
        ("tenants", "add", "acme", "--models", "gpt-*"),
        ("tenants", "set", "acme", "--user", "bot", "--tags", "x"),
        ("tenants", "list"),
        ("tenants", "show", "acme"),
        ("tenants", "show", "acme", "--json"),
        ("tenants", "show", "filed", "--json"),
        ("tenants", "remove", "acme"),
        ("limits", "list"),
        ("limits", "raise", "per-key", "--by", "10", "--until", "2999-01-01"),
        ("limits", "raises"),
        ("limits", "show", "per-key"),
        ("limits", "show", "per-key", "--json"),
        ("config", "show"),
        ("config", "validate", place.draft(MORE)),
        ("config", "apply", place.draft(MORE), "--note", "why"),
        ("config", "diff"),
        ("config", "history"),
        ("config", "rollback"),
        ("config", "show", "1", "--json"),
        *(words for words, _, _ in REFUSED),
    ]
    return [place(*each) for each in words]


def test_both_ways_say_the_same(tmp_path: Path) -> None:
    told = {}
    for mode in MODES:
        (tmp_path / mode).mkdir()
        with placed(mode, tmp_path / mode) as place:
            said = script(place)
            head = place.first.removesuffix(CONFIG) if place.gateway else ""
            told[mode] = [
                (each.status, alike(each.out, place, head), alike(each.err, place, head)) for each in said
            ]
    assert told["offline"] == told["running"]


def alike(text: str, place: Place, head: str) -> str:
    """Without what differs by nature: secrets, ids, times, places and who."""
    for found, instead in (
        (head, ""), (json.dumps(head)[1:-1], ""), (str(place.path), "FILE"), (str(place.directory), "HERE"),
    ):  # fmt: skip
        text = text.replace(found, instead) if found else text
    who = pwd.getpwuid(os.getuid()).pw_name
    patterns = (
        (SECRET.pattern, "SECRET"), (r"\b(key|raise)_[0-9a-f]{16}\b", r"\1_ID"),
        (r"(2\d{3}-[\d-]+T[\d:]+Z)", "TIME"),
        (r"\b[0-9a-f]{12}\b", "REVISION"), (rf"\b({re.escape(who)}|admin token)\b( *)", "WHO "),
        (r'"(id|kind)": "(uid:\d+|admin|cli|token)"', r'"\1": "WHO"'), (r"@@ .* @@", "@@"),
        (r"draft:\d+|gateway\.toml:\d+:\d+", "LINE"),
    )  # fmt: skip
    for pattern, instead in patterns:
        text = re.sub(pattern, instead, text)
    return text


def test_a_secret_is_printed_once_and_nothing_else_that_is_secret_ever(own: Place) -> None:
    script(own)
    said = "".join(own.all)
    secrets = SECRET.findall(said)
    assert len(secrets) >= 3 and len(set(secrets)) == len(secrets)
    token = own.data / "admin.token"
    assert LITERAL not in said and token.exists() == (own.gateway is not None)
    assert own.gateway is None or token.read_text().strip() not in said


def commands() -> st.SearchStrategy[tuple[str, ...]]:
    name = st.sampled_from(["a", "b", "f", LITERAL])
    key = st.tuples(st.just("keys"), st.sampled_from(["add", "show", "rotate", "revoke"]), name)
    listed = st.sampled_from([("keys", "list"), ("config", "show"), ("config", "history"), ("audit", "list")])
    return st.tuples(st.one_of(key, listed), st.sampled_from([(), ("--json",)])).map(
        lambda each: each[0] + each[1]
    )


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(words=st.lists(commands(), min_size=1, max_size=8))
def test_whatever_is_asked_a_secret_is_shown_once(
    tmp_path_factory: pytest.TempPathFactory, words: list[tuple[str, ...]]
) -> None:
    with placed("offline", tmp_path_factory.mktemp("any")) as place:
        for each in words:
            place(*each)
        found = SECRET.findall("".join(place.all))
        assert len(set(found)) == len(found)
        made = [each for each in words if each[1] in ("add", "rotate")]
        assert len(found) <= len(made)
        if not any(LITERAL in each for each in words):
            assert LITERAL not in "".join(place.all)


# -- who


def actors(place: Place) -> list[dict[str, Any]]:
    records = place.done("audit", "list", "--json").json
    return [record["actor"] for record in records if record["action"] == "key.create"]


def test_the_audit_names_the_user_of_the_machine_or_the_token(place: Place) -> None:
    place.done("keys", "add", "audited")
    actor = actors(place)[0]
    who = pwd.getpwuid(os.getuid()).pw_name
    expected = ("token", "admin token") if place.gateway else ("cli", who)
    assert (actor["kind"], actor["name"]) == expected


def test_a_key_with_a_role_can_be_the_token_and_does_no_more_than_it_may(
    running: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "operating"
    secret = running.done("keys", "add", name, "--roles", "caller,operator").out.splitlines()[0]
    monkeypatch.setenv("PENSTOCK_ADMIN_TOKEN", secret)
    made = running.done("keys", "add", "theirs", "--json").json
    assert made["made_by"] == name
    said = running("tenants", "add", "theirs")
    assert said.status == 1 and "tenants.write needs the role admin" in said.err
    said = running("keys", "add", "grab", "--roles", "admin")
    assert said.status == 1 and "roles would go beyond your own" in said.err


def test_a_wrong_token_is_told_with_where_it_came_from(
    running: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PENSTOCK_ADMIN_TOKEN", "psa-wrong-token-canary")
    said = running("keys", "list")
    assert said.status == 1 and "does not know the admin token from PENSTOCK_ADMIN_TOKEN" in said.err
    assert "canary" not in said.err
    monkeypatch.delenv("PENSTOCK_ADMIN_TOKEN")
    token = running.data / "admin.token"
    token.write_text("psa-another-token")
    said = running("keys", "add", "x")
    assert said.status == 1 and f"from {token}; set PENSTOCK_ADMIN_TOKEN" in said.err
    token.unlink()
    said = running("keys", "add", "x", "--json")
    assert said.status == 1 and "its admin token is not known here" in said.json["error"]


def test_a_gateway_that_was_started_with_another_address_is_found(running: Place) -> None:
    """And not the one that listens where the file says."""
    other = running.path.with_name("other.toml")
    with Gateway(running.directory / "second", CONFIG) as second:
        taken = re.search(r'admin = "[^"]+"', second.path.read_text())
        assert taken is not None
        other.write_text(re.sub(r'admin = "[^"]+"', taken[0], running.path.read_text()))
        running.path = other
        made = running.done("keys", "add", "found", "--json").json
        running.done("keys", "revoke", made["id"])
        assert second.post({"model": "gpt-4o", "messages": []}, key=made["key"])[0] == 401
    assert (running.data / "admin.address").exists()
    assert running.gateway is not None
    running.gateway.stop(30)
    assert not (running.data / "admin.address").exists()


def test_a_gateway_that_does_not_answer_is_told_and_the_ledger_used(running: Place) -> None:
    other = running.path.with_name("other.toml")
    text = re.sub(r'admin = "[^"]+"', 'admin = "127.0.0.1:9"', running.path.read_text())
    other.write_text(text)
    running.path = other
    (running.data / "admin.address").unlink()
    said = running("keys", "add", "late", "--json")
    assert said.status == 0 and "no gateway answers at 127.0.0.1:9" in said.err
    assert running.gateway is not None
    document = {"model": "gpt-4o", "messages": [{"role": "user", "content": "x"}]}
    post, secret = running.gateway.post, said.json["key"]
    until("it is known", lambda: post(document, key=secret)[0] == 200)
