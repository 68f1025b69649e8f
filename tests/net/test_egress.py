"""From settings to transport."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from gateway.net.egress import origin, tls, transport
from gateway.net.pool import Pool
from gateway.settings.schema import BackendSettings


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://api.openai.com/v1", ("https", "api.openai.com", 443)),
        ("http://127.0.0.1:8000", ("http", "127.0.0.1", 8000)),
        ("http://[::1]:8000/v1", ("http", "::1", 8000)),
        ("HTTP://Up.Test/", ("http", "up.test", 80)),
    ],
)
def test_the_origin_of_a_base_url(url: str, expected: tuple[str, str, int]) -> None:
    assert origin(url) == expected


@pytest.mark.parametrize("url", ["", "api.openai.com", "ftp://x/", "file:///etc/passwd", "http://", "//x"])
def test_what_is_no_base_url_says_how_one_looks(url: str) -> None:
    with pytest.raises(ValueError, match="must look like https://"):
        origin(url)


def test_a_password_in_a_base_url_is_refused_and_not_repeated() -> None:
    with pytest.raises(ValueError, match="api_key") as caught:
        origin("https://user:canary@api.openai.com/v1")
    assert "canary" not in str(caught.value)


def test_a_plain_backend_gets_a_pool_and_no_httpx() -> None:
    assert isinstance(transport(BackendSettings("up", "openai", "https://up.test/v1")), Pool)
    code = (
        "import sys; from gateway.net.egress import transport; "
        "from gateway.settings.schema import BackendSettings as B; "
        "transport(B('up', 'openai', 'https://up.test')); print('httpx' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_tls_contexts_verify_and_are_built_once() -> None:
    assert tls() is tls()
    assert tls().check_hostname


def test_a_bad_ca_file_is_named(tmp_path: Path) -> None:
    bad = tmp_path / "ca.pem"
    with pytest.raises(ValueError, match=r"ca\.pem' can't be read"):
        tls(str(bad))
    bad.write_text("nothing")
    with pytest.raises(ValueError, match=r"ca\.pem' is not a PEM file"):
        tls(str(bad))
