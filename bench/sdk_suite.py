"""The OpenAI SDK's own API tests, aimed at a mock directly and through the gateway; every test lost is named.

    python -m bench.sdk_suite --suite openai-python --steady node_modules/.bin/steady --pytest venv/bin/pytest

See tests/e2e/sdk_suite.md for what it needs. Exits with 1 where the gateway loses a test.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import xml.etree.ElementTree as ElementTree
from contextlib import ExitStack
from pathlib import Path

from bench.process import Server, free_port

ROOT = Path(__file__).resolve().parent.parent
KEY, ADMIN_KEY = "My API Key", "My Admin API Key"  # the keys the SDK's tests bring
SPECIFICATION = "api_reference/openapi.transformed.yml"
TESTS = "tests/api_resources"
CONFIG = """
[server]
listen = "127.0.0.1:{port}"
admin = "127.0.0.1:{admin}"
data_dir = "data"

[[keys]]
name = "sdk"
key = "env:SDK_KEY"

[[keys]]
name = "sdk-admin"
key = "env:SDK_ADMIN_KEY"

[backends.mock]
kind = "openai"
base_url = "http://127.0.0.1:{mock}"
api_key = "env:SDK_KEY"

[models."*"]
targets = [ {{ backend = "mock" }} ]
"""


def mock(given: argparse.Namespace, directory: Path) -> Server:
    """The mock that the SDK's own checks use, on the specification beside its tests."""
    port = free_port()
    brackets = [
        f"--validator-{part}-{kind}-format=brackets"
        for part in ("query", "form")
        for kind in ("array", "object")
    ]
    command = [str(given.steady.absolute()), "--host", "127.0.0.1", "-p", str(port), *brackets]
    server = Server("mock", [*command, SPECIFICATION], port, cwd=given.suite, log=directory / "mock.log")
    until = time.monotonic() + 60
    while time.monotonic() < until:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/models", timeout=2).close()
            return server
        except urllib.error.HTTPError:
            return server
        except OSError:
            time.sleep(0.1)
    server.stop()
    raise RuntimeError(f"the mock did not start: {server.tail()}")


def gateway(mock_port: int, directory: Path) -> Server:
    """The gateway in front of the mock, with the keys the tests bring."""
    port, admin = free_port(), free_port()
    config = directory / "gateway.toml"
    config.write_text(CONFIG.format(port=port, admin=admin, mock=mock_port))
    keys = {"SDK_KEY": KEY, "SDK_ADMIN_KEY": ADMIN_KEY}
    command = [sys.executable, "-m", "gateway", "serve", "-c", str(config)]
    server = Server("gateway", command, port, cwd=ROOT, env=keys, log=directory / "gateway.log")
    server.wait_ready(f"http://127.0.0.1:{admin}/readyz")
    return server


def run(given: argparse.Namespace, port: int, report: Path) -> dict[str, str]:
    """Run the tests against a port: outcome by test."""
    command = [str(given.pytest.absolute()), "-n", "0", "-p", "no:benchmark", "-p", "no:cacheprovider"]
    command += ["-W", "ignore", "-q", f"--junitxml={report}", TESTS]
    source = {"PYTHONPATH": str((given.suite / "src").absolute())}
    env = {**os.environ, **source, "TEST_API_BASE_URL": f"http://127.0.0.1:{port}"}
    subprocess.run(command, cwd=given.suite, env=env, check=False, stdout=subprocess.DEVNULL)
    return outcomes(report)


def outcomes(report: Path) -> dict[str, str]:
    """Outcome by test, from a JUnit report: passed, skipped, or what went wrong."""
    found = {}
    for case in ElementTree.parse(report).iter("testcase"):
        wrong = [part for part in case if part.tag in ("failure", "error")]
        skipped = case.find("skipped") is not None
        name = f"{case.get('classname')}::{case.get('name')}"
        found[name] = (wrong[0].get("message") or "failed") if wrong else "skipped" if skipped else "passed"
    return found


def count(found: dict[str, str]) -> str:
    """A one-line summary."""
    passed = sum(outcome == "passed" for outcome in found.values())
    skipped = sum(outcome == "skipped" for outcome in found.values())
    return f"{passed} passed, {skipped} skipped, {len(found) - passed - skipped} failed"


def main() -> int:
    """Run both, compare."""
    parser = argparse.ArgumentParser(prog="python -m bench.sdk_suite", description=__doc__)
    parser.add_argument("--suite", type=Path, required=True, help="a checkout of openai/openai-python")
    parser.add_argument("--steady", type=Path, required=True, help="the mock's command")
    parser.add_argument("--pytest", type=Path, required=True, help="a pytest that can run the suite")
    given = parser.parse_args()
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        behind = stack.enter_context(mock(given, directory))
        direct = run(given, behind.port, directory / "direct.xml")
        before = stack.enter_context(gateway(behind.port, directory))
        through = run(given, before.port, directory / "through.xml")
    print(f"directly:            {count(direct)}\nthrough the gateway: {count(through)}")
    lost = [name for name, outcome in direct.items() if outcome == "passed" != through.get(name)]
    for name in lost:
        print(f"lost: {name}\n      {through.get(name, 'not run').splitlines()[0][:300]}")
    return int(bool(lost) or not direct)


if __name__ == "__main__":
    sys.exit(main())
