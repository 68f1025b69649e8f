"""docs/audit.md: what it shows works as it stands there."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

from gateway.core.audit import digest_of, members, record_of
from gateway.core.refusal import EACH, GROUPS
from tests.test_cli import Run, run

__all__ = ["run"]

PAGE = (Path(__file__).parent.parent / "docs" / "audit.md").read_text()


def block(mark: str) -> str:
    found = re.findall(rf"^<!-- {mark} -->\n```\w+\n(.*?)^```", PAGE, re.M | re.S)
    assert len(found) == 1, mark
    text: str = found[0]
    return text


def executed(run: Run, text: str, noted: str = "") -> list[str]:
    """Run each line's command; what they said."""
    said = []
    for line in text.splitlines():
        words = shlex.split(line.replace("$NOTED", noted), comments=True)
        if not words:
            continue
        assert words.pop(0) == "penstock", line
        into = words[words.index(">") + 1] if ">" in words else ""
        done = run(*(words[: words.index(">")] if into else words))
        assert done.status == 0, (line, done)
        if into:
            Path(into).write_text(done.out)
        said.append(done.out)
    return said


def test_the_commands_work_one_after_the_other(run: Run) -> None:
    listed = executed(run, block("run"))[2]
    assert "key.create" in listed and "key.revoke" in listed
    whole = executed(run, block("expect").splitlines()[0])[0]
    noted = next(line.strip() for line in whole.splitlines() if line.startswith("  "))
    assert "whole" in executed(run, block("expect"), noted)[-1]


def test_the_few_lines_accept_an_export_and_nothing_that_was_touched(run: Run) -> None:
    executed(run, block("run"))
    export = Path("audit.jsonl").read_text()

    def check(text: str) -> int:
        command = [sys.executable, "-c", block("check")]
        return subprocess.run(command, input=text, text=True, capture_output=True, check=False).returncode

    assert check(export) == 0
    assert check(export.replace('"ci"', '"cd"')) == 1
    lines = export.splitlines(keepends=True)
    assert len(lines) >= 3 and check("".join([lines[0], *lines[2:]])) == 1


def test_the_record_that_is_shown_is_one(run: Run) -> None:
    record = record_of(json.loads(block("record")))
    assert list(members(record)) == list(json.loads(block("record")))
    assert record.hash == digest_of(record)


def test_the_numbers_are_those_of_the_code() -> None:
    assert f"the first {EACH} in a minute" in PAGE and f"beyond {GROUPS:,} in one minute" in PAGE
