"""The documentation tells the truth where that can be checked: codes, series, configurations, links."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.observe import series
from gateway.observe.series import Series
from gateway.settings.load import load

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")], key=str)
CODE = re.compile(r"(caller|policy|upstream|gateway)_[a-z_]+")
SIDES = ("caller_", "policy_", "upstream_", "gateway_")
OUTCOMES = {"upstream_error", "policy_shadow"}  # an outcome and a reason that look like codes


def codes_in_source() -> Iterator[str]:
    """Every string constant that is a code, and those that a function f(x) makes as f"caller_{x}"."""
    for path in [*(ROOT / "gateway").rglob("*.py"), ROOT / "plugins" / "opa.py"]:
        tree = ast.parse(path.read_text())
        makers = {node.name: made for node in ast.walk(tree) if (made := prefix(node))}
        for node in ast.walk(tree):
            match node:
                case ast.Constant(value=str() as text) if CODE.fullmatch(text):
                    yield text
                case ast.Call(func=ast.Name(id=name), args=[ast.Constant(value=rest), *_]) if name in makers:
                    yield makers[name] + rest


def prefix(node: ast.AST) -> str:
    """Of a function that makes codes: "caller_", "policy_", …; else ""."""
    if isinstance(node, ast.FunctionDef):
        for inner in ast.walk(node):
            match inner:
                case ast.JoinedStr(values=[ast.Constant(value=text), ast.FormattedValue()]) if text in SIDES:
                    return str(text)
    return ""


def test_every_error_code_is_documented_and_no_other() -> None:
    documented = re.findall(r"^\| `(\w+)` \|", (ROOT / "docs" / "errors.md").read_text(), re.M)
    assert len(documented) == len(set(documented))
    assert set(documented) == set(codes_in_source()) - OUTCOMES


def test_every_series_is_documented_with_its_labels_and_no_other() -> None:
    suffix = {"counter": "_total", "info": "_info"}
    declared = [item for item in vars(series).values() if isinstance(item, Series)]
    declared += [*series.WORKER_GAUGES.values(), *series.WORKER_COUNTERS.values()]
    declared += series.OWN_COUNTERS.values()
    expected = {
        f"{item.name}{suffix.get(item.kind, '')}" + (f"{{{', '.join(item.labels)}}}" if item.labels else "")
        for item in declared
    }
    page = (ROOT / "docs" / "metrics.md").read_text()
    assert set(re.findall(r"^\| `(penstock_[^`]+)` \|", page, re.M)) == expected


def test_every_header_of_our_own_is_documented_and_no_other() -> None:
    page = (ROOT / "docs" / "calls.md").read_text()
    sent, answered = page.split("## Headers of an answer")
    ours = re.compile(r"x-penstock-[a-z-]*[a-z]")
    rows = {
        part: set(ours.findall("".join(re.findall(r"^\| (.+?) \|", part, re.M)))) for part in (sent, answered)
    }
    source = (ROOT / "gateway" / "front" / "head.py").read_text()
    assert rows[answered] == set(re.findall(r"(x-penstock-[a-z-]+): ", source))
    source = (ROOT / "gateway" / "stages" / "access.py").read_text()
    assert rows[sent] == set(re.findall(r'b"(x-penstock-[a-z-]+)"', source))


def configurations() -> list[tuple[str, str]]:
    return [
        (f"{page.name}-{number}", text)
        for page in PAGES
        for number, text in enumerate(re.findall(r"^```toml\n(.*?)^```", page.read_text(), re.M | re.S))
    ]


@pytest.mark.parametrize("text", [text for _, text in configurations()], ids=[n for n, _ in configurations()])
def test_every_configuration_that_is_shown_is_valid(text: str, tmp_path: Path) -> None:
    file = tmp_path / "gateway.toml"
    file.write_text(text)
    environ = {name: f"{name:x<32}" for name in re.findall(r"env:(\w+)", text)}
    for name in re.findall(r"exec:\./(\w+)", text):  # the page itself shows what such a command says
        (tmp_path / name).write_text("#!/bin/sh\necho secret\n")
        (tmp_path / name).chmod(0o700)
    load(file, environ)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_to_something(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)]+)\)", page.read_text()):
        file, _, anchor = target.partition("#")
        place = page.parent / file if file else page
        assert place.exists(), target
        if anchor:
            titles = re.findall(r"^#+ (.+)$", place.read_text(), re.M)
            assert anchor in {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


def test_the_plugin_that_the_readme_shows_is_the_one_that_exists() -> None:
    (shown,) = re.findall(r"^```python\n(from typing.*?)^```", (ROOT / "README.md").read_text(), re.M | re.S)
    template = (ROOT / "plugins" / "example.py").read_text()
    assert template.endswith(shown)
    assert shown.count("\n") <= 20
