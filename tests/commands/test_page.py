"""docs/admin.md: its commands work one after the other, as they stand there."""

from __future__ import annotations

import re
from pathlib import Path

from tests.test_audit_page import executed
from tests.test_cli import Run, run, write

__all__ = ["run"]

PAGE = (Path(__file__).parents[2] / "docs" / "admin.md").read_text()
CONFIG = (
    '[backends.e]\nkind = "echo"\n[[limits]]\nname = "per-key"\nscope = "key"\nrequests = 60\nper = "1m"\n'
)


def test_the_commands_work_one_after_the_other(run: Run) -> None:
    (text,) = re.findall(r"^<!-- command line -->\n```bash\n(.*?)^```", PAGE, re.M | re.S)
    write(CONFIG)
    write(CONFIG.replace("60", "90"), "draft.toml")
    said = executed(run, text)
    assert len(said) == text.count("penstock ") == 20
    made, rotated, listed, *_ = said
    assert (
        made.startswith("sk-ps-") and rotated.startswith("sk-ps-") and "The one before works until" in rotated
    )
    assert "acme" in listed and "+requests = 90" in said[-3]
    assert "requests = 60" in said[-1] and Path("gateway.toml").read_text() == CONFIG
