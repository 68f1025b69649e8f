"""What holds for the whole suite: where nobody looks (CI), a skipped test is a failed one."""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, settings

# What runs inside the tests runs as Python, so that they can look into it. Gateways that they start run as
# anywhere: compiled. PENSTOCK_COMPILED=yes: what runs inside too.
chosen = os.environ.get("PENSTOCK_COMPILED", "")
os.environ["PENSTOCK_COMPILED"] = chosen or "no"
import gateway  # noqa: E402, F401

os.environ["PENSTOCK_COMPILED"] = chosen

# Nothing in the suite judges speed: machines are shared, and a fresh clone first builds hypothesis' tables.
settings.register_profile("penstock", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("penstock")


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Turn a green session with skips red when CI=true."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    skipped = reporter.stats.get("skipped", []) if reporter else []
    if os.environ.get("CI") == "true" and skipped and session.exitstatus == pytest.ExitCode.OK:
        reporter.write_line(f"CI=true: {len(skipped)} skipped test(s) count as failed", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
