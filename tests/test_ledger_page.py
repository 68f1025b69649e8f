"""docs/ledger.md: what it shows works as it stands there."""

from __future__ import annotations

import re
import shlex
import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

from gateway.cli import _parser
from gateway.commands.export import ALIASES
from gateway.core.keep import Keep
from gateway.core.record import FIELDS
from gateway.settings.load import load
from gateway.stores.base.usage import ALIASES as NAMES
from gateway.stores.base.usage import GROUPS
from tests.test_cli import Run, fill, record, run

__all__ = ["run"]

PAGE = (Path(__file__).parent.parent / "docs" / "ledger.md").read_text()


def block(mark: str) -> str:
    (found,) = re.findall(rf"^<!-- {mark} -->\n```\w+\n(.*?)^```", PAGE, re.M | re.S)
    return str(found)


def november(number: int, **more: object) -> dict[str, object]:
    ts = int(datetime(2026, 11, 1, 10, tzinfo=UTC).timestamp() * 1000)
    named = {"target": "gpt-4o", "backend": "openai", "tenant": "acme", "team": "search"}
    return record(number, ts=ts, **{**named, **more})


def test_every_command_of_the_first_examples_answers(run: Run) -> None:
    fill(november(1, tags=["nightly"]))
    for line in block("run").splitlines():
        words = shlex.split(line, comments=True)
        said = run(*words[1:])
        assert said.status == 0 and ("gpt-4o" in said.out or "ci" in said.out or "search" in said.out), line


def test_the_comparison_says_what_the_page_shows(run: Run) -> None:
    fill(november(1), november(2), november(3, backend="elsewhere"))
    Path("export.csv").write_text(block("export"))
    (line,) = block("reconcile").splitlines()
    said = run(*shlex.split(line)[1:])
    assert (said.status, said.out) == (1, block("drift"))


def test_the_query_reads_the_view(run: Run) -> None:
    fill(november(1), november(2))
    with closing(sqlite3.connect("data/ledger.sqlite")) as db:
        assert db.execute(block("sql")).fetchall() == [("acme", 2, 2.500002)]


def test_the_tables_name_everything_there_is() -> None:
    columns = re.findall(
        r"`(\w+)`", PAGE[PAGE.index("## What a row holds") : PAGE.index("`outcome` is `ok`")]
    )
    assert {*columns} >= {*FIELDS} - {"sealed"} | {"replica"}
    options = PAGE[PAGE.index("| `--by`") : PAGE.index("A call with two tags")]
    by = set(re.findall(r"`(\w+)`", options.splitlines()[0]))
    assert by | set(NAMES.values()) == set(GROUPS) | set(NAMES)
    help_text = _parser().parse_args(["usage"])
    filters = set(re.findall(r"`--(\w+)`", options)) - {"by", "since", "until", "month", "top"}
    assert all(hasattr(help_text, name) for name in filters) and "arm" in filters
    known = PAGE[PAGE.index("| field | columns |") : PAGE.index("`--map")]
    for name, aliases in ALIASES.items():
        if name != "currency":
            row = next(line for line in known.splitlines() if line.startswith(f"| `{name}`"))
            told = set(re.findall(r"`(\w+)`", row))
            assert {each for alias in aliases if len(alias) == 1 for each in alias} <= told, name


def test_what_is_kept_by_default_is_what_the_page_says(tmp_path: Path) -> None:
    (text,) = re.findall(r"^```toml\n(\[state\.keep\]\n.*?)^```", PAGE, re.M | re.S)
    (tmp_path / "gateway.toml").write_text(text)
    assert load(tmp_path / "gateway.toml", {}).state.keep == Keep()
