"""What is kept and shown of a configuration's text: no literal secret, however it is written."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from gateway.control import history
from gateway.settings.load import load
from gateway.settings.schema import Settings

HEAD = """
[backends.a]
kind     = "openai"
base_url = "https://host/v1"
"""


def loaded(path: Path, text: str) -> Settings:
    file = path / "gateway.toml"
    file.write_text(text)
    return load(file, {})


WRITTEN = {
    "plain": 'api_key = "ps-canary-1234"',
    "escaped": 'api_key = "ps-\\u0063anary-1234"',
    "several lines": 'api_key = """ps-\\\n   canary-1234"""',
    "with quotes": r'''api_key = "ps-\"canary\\1234"''',
    "with quotes escaped": r'''api_key = "ps-\"\u0063anary\\1234"''',
    "literal string": r"""api_key = 'ps-canary\1234'""",
    "beside a comment": 'api_key = "ps-canary-1234" # not "ps-canary-1234"',
    "in a header": 'headers = { "x-\\u0061pi-key" = "ps-\\u0063anary" }',
    "in a list": 'api_key = ["ps-canary-1", "ps-\\u0063anary-2"]',
}


@pytest.mark.parametrize("how", WRITTEN)
def test_a_literal_secret_is_not_shown_and_comes_back(tmp_path: Path, how: str) -> None:
    text = HEAD + WRITTEN[how] + "\n"
    settings = loaded(tmp_path, text)
    shown = history.masked({"f": text}, settings)
    assert "canary" not in shown["f"] and "anary" not in shown["f"] and "***secret:" in shown["f"]
    back = history.filled(shown, settings)["f"]
    assert tomllib.loads(back) == tomllib.loads(text)


def test_comments_lose_what_looks_like_a_secret(tmp_path: Path) -> None:
    text = HEAD + (
        '# api_key = "ps-canary-1234"\n# token="canary"\n# was sk-proj-canarycanarycanarycanary\n'
        '# api_key = "env:NAME", "don\'t"\napi_key = "ps-another-1234" # "it\'s # fine"\n'
    )
    shown = history.masked({"f": text}, loaded(tmp_path, text))["f"]
    assert "canary" not in shown
    assert '# api_key = "env:NAME", "don\'t"\n' in shown and '# "it\'s # fine"\n' in shown


def test_a_text_without_secrets_stays_as_it_is(tmp_path: Path) -> None:
    text = HEAD + 'description = """a\\"b\n\'c""" # "\n'.replace("description", "api_version")
    text += "[tenants.x]\ndescription = '''a \"\"\" b\n# no comment'''\n"
    assert history.masked({"f": text}, Settings(revision="r"))["f"] == text


def test_options_of_plugins_that_hold_credentials_are_masked_and_warned_of(tmp_path: Path) -> None:
    text = (
        HEAD
        + """
[[plugins]]
use     = "plugins.webhook:Webhook"
url     = "https://host/hook?token=canary"
secret  = "whsec-canary-1234"
kinds   = ["limit.*"]
headers = { authorization = "Bearer canary", author = "somebody else", x-token = "canary-12" }
"""
    )
    settings = loaded(tmp_path, text)
    shown = history.masked({"f": text}, settings)["f"]
    assert "canary" not in shown and "somebody else" in shown and "limit.*" in shown
    assert sum("a literal secret" in warning for warning in settings.warnings) == 4
    assert dict(settings.plugins[0][1])["secret"] == "whsec-canary-1234"
