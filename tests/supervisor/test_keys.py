"""What is printed with the first key can be pasted as it is."""

from __future__ import annotations

import ast
import shlex

from gateway.core.route import ModelRule, Target
from gateway.settings.schema import Settings
from gateway.supervisor.keys import welcome

SECRET = "sk-penstock-abc"


def parts(text):
    lines = text.splitlines()
    start = next(n for n, line in enumerate(lines) if line.startswith("  curl"))
    curl = shlex.split("\n".join(lines[start : start + 3]))
    return curl, "\n".join(line.strip() for line in lines[start + 4 :])


def test_the_curl_line_and_the_snippet_use_the_real_address_and_key():
    curl, code = parts(welcome(SECRET, "http://127.0.0.1:8080", Settings()))
    assert "http://127.0.0.1:8080/v1/chat/completions" in curl
    assert f"Authorization: Bearer {SECRET}" in curl
    assert '"model": "gpt-4o-mini"' in curl[-1]
    ast.parse(code)
    assert 'base_url="http://127.0.0.1:8080/v1"' in code and SECRET in code


def test_a_configured_model_is_used_and_a_unix_socket_is_dialled():
    settings = Settings(models=(ModelRule("gpt-*", (Target("x"),)), ModelRule("house", (Target("x"),))))
    curl, code = parts(welcome(SECRET, "unix:/run/p.sock", settings))
    assert curl[1:4] == ["--unix-socket", "/run/p.sock", "http://localhost/v1/chat/completions"]
    assert '"model": "house"' in curl[-1]
    ast.parse(code)
    assert 'uds="/run/p.sock"' in code
