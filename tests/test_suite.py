"""The suite's own rule: where CI=true, a skipped test is a failed one."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SKIPS = "import pytest\ndef test_a(): pass\n@pytest.mark.skip(reason='no')\ndef test_b(): pass\n"


@pytest.mark.parametrize(("ci", "status"), [("true", 1), ("", 0)])
def test_a_skipped_test_fails_the_run_only_in_ci(tmp_path: Path, ci: str, status: int) -> None:
    shutil.copy(Path(__file__).parent / "conftest.py", tmp_path)
    (tmp_path / "test_it.py").write_text(SKIPS)
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-n",
        "1",
        "-p",
        "no:cacheprovider",
        "--rootdir",
        ".",
    ]
    run = subprocess.run(command, cwd=tmp_path, env={**os.environ, "CI": ci}, capture_output=True, text=True)
    assert run.returncode == status, run.stdout
    assert "1 passed, 1 skipped" in run.stdout.splitlines()[-1]
