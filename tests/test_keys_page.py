"""docs/keys.md: what it shows works as it stands there."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

import pytest

from gateway.core.claims import entry
from gateway.core.codec import loads
from gateway.core.errors import PolicyError
from gateway.core.keys import Keys
from gateway.core.principal import KeyEntry, digest
from gateway.settings.load import load
from gateway.settings.schema import Settings
from gateway.stages.access import Access
from gateway.stages.auth import Auth
from tests.stages.given import call, parts
from tests.test_audit_page import executed
from tests.test_cli import Run, run

__all__ = ["run"]

PAGE = (Path(__file__).parent.parent / "docs" / "keys.md").read_text()
SECRETS = {"CI_KEY": "sk-now", "CI_KEY_BEFORE": "sk-before"}


def block(mark: str) -> str:
    found = re.findall(rf"^<!-- {mark} -->\n```\w+\n(.*?)^```", PAGE, re.M | re.S)
    assert len(found) == 1, mark
    text: str = found[0]
    return text


def settings(mark: str, directory: Path) -> Settings:
    file = directory / "gateway.toml"
    file.write_text(block(mark))
    return load(file, SECRETS)


def rows(mark: str) -> list[list[str]]:
    """A table's rows below its head, without the marks of code."""
    (table,) = re.findall(rf"^<!-- {mark} -->\n((?:\|.*\n)+)", PAGE, re.M)
    return [
        [cell.strip().replace("`", "") for cell in line.split("|")[1:-1]] for line in table.splitlines()[2:]
    ]


def test_the_key_is_what_the_page_says(tmp_path: Path) -> None:
    (key,) = settings("keys", tmp_path).keys
    assert key.digest == digest(b"sk-now")
    assert (key.tenant, key.team, key.user, key.tags) == ("acme", "search", "bot", ("nightly",))
    assert key.networks == ("10.0.0.0/8", "2001:db8::/32") and key.expires is not None


def test_the_commands_work_one_after_the_other(run: Run) -> None:
    made, listed, revoked = executed(run, block("run"))
    assert made.startswith("sk-ps-") and "gpt-*" in listed and "revoked" in revoked


def test_both_secrets_of_the_rotated_key_work(tmp_path: Path) -> None:
    given = settings("rotation", tmp_path)
    auth = Auth({}, parts(keys=given.keys))
    for secret in (b"sk-now", b"sk-before"):
        made = call(headers=[(b"authorization", b"Bearer " + secret)])
        auth.admit(made)
        assert made.principal is not None and made.principal.key.name == "ci"


@pytest.mark.parametrize("row", rows("verdicts"), ids=lambda row: "-".join(filter(None, row[:4])))
def test_the_tenants_verdicts_are_those_of_the_table(row: list[str], tmp_path: Path) -> None:
    team, user, model, client, answer = row
    key = KeyEntry("key_1", "k", digest(b"k"), tenant="acme", team=team, user=user)
    made = call(document={"model": model})
    made.client = client
    made.principal = Keys([key], settings("tenants", tmp_path).tenants.values()).find(digest(b"k"))
    if answer == "goes on":
        assert Access({}, parts()).admit(made) is None
        return
    with pytest.raises(PolicyError) as caught:
        Access({}, parts()).admit(made)
    assert answer == f"{caught.value.status} {caught.value.code}"


def test_the_token_is_the_caller_that_the_page_says(tmp_path: Path) -> None:
    rule = settings("jwt", tmp_path).auth.jwt
    assert rule is not None
    claims, said = loads(block("claims").encode()), json.loads(block("caller"))
    caller = entry(rule, claims, time.time() + 60)
    assert {
        name: list(value) if isinstance(value := getattr(caller, name), tuple) else value for name in said
    } == said
    assert re.fullmatch("jwt:[0-9a-f]{16}", caller.id)


def test_the_times_are_those_of_the_settings(tmp_path: Path) -> None:
    rule = settings("jwt", tmp_path).auth.jwt
    assert rule is not None
    assert (rule.leeway, rule.cache, rule.refresh, rule.cooldown) == (10.0, 300.0, 3600.0, 30.0)
