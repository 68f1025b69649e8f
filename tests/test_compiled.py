"""The hot path as machine code: used where it was made from what stands there, and by nobody else."""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from gateway import compiled
from gateway.commands.compile import NotCompiled, alone

WHERE = "import gateway, gateway.pipeline as p; print(gateway.uncompiled, '|', p.__file__)"


def asked(tmp_path: Path, **environ: str) -> tuple[str, str]:
    """Why a fresh process does not use it, and where it has the pipeline from."""
    said = subprocess.run(
        [sys.executable, "-c", WHERE],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(compiled.source("gateway.compiled").parent.parent), **environ},
        capture_output=True,
        text=True,
        check=True,
    )
    why, _, file = said.stdout.strip().partition("|")
    return why.strip(), file.strip()


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder as `penstock compile` leaves it, and a package whose sources it was made from."""
    package = compiled.source("gateway.compiled").parent
    shutil.copytree(package, tmp_path / "gateway", ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(compiled, "_PACKAGE", tmp_path / "gateway")
    place = tmp_path / "penstock_compiled"
    place.mkdir()
    monkeypatch.setattr(compiled, "folder", lambda: place)
    monkeypatch.setenv("PENSTOCK_COMPILED", "")
    (place / f"{compiled.LIBRARY}__mypyc{compiled.EXTENSION_SUFFIXES[0]}").touch()
    compiled.write_manifest(place)
    return place


def test_every_hot_module_is_one_of_ours() -> None:
    assert [name for name in compiled.HOT if not compiled.source(name).is_file()] == []
    assert len(set(compiled.HOT)) == len(compiled.HOT)


def test_what_the_suite_starts_is_compiled_and_what_runs_inside_it_is_not(tmp_path: Path) -> None:
    if os.environ.get("PENSTOCK_COMPILED"):
        pytest.skip("somebody chose otherwise")
    why, file = asked(tmp_path)
    assert why == ""
    assert file.endswith(compiled.EXTENSION_SUFFIXES[0])
    import gateway.pipeline

    assert str(gateway.pipeline.__file__).endswith(".py")


def test_it_can_be_left_aside(tmp_path: Path) -> None:
    why, file = asked(tmp_path, PENSTOCK_COMPILED="no")
    assert why == "PENSTOCK_COMPILED=no"
    assert file.endswith("pipeline.py")


def test_a_source_that_changes_while_it_is_compiled_is_known_as_it_was(made: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(tmp_path / "gateway", copy / "gateway")
    source = compiled.source("gateway.pipeline")
    source.write_bytes(source.read_bytes() + b"\n")
    compiled.write_manifest(made, copy)
    assert compiled.reason() == "gateway.pipeline has changed since it was compiled"


def test_what_it_was_made_from_is_as_good_as_it(made: Path) -> None:
    assert compiled.reason() == ""


@pytest.mark.parametrize("name", ["gateway.pipeline", "gateway.core.limit", "gateway.compiled"])
def test_a_source_that_has_changed_since_puts_it_out_of_use(made: Path, name: str) -> None:
    source = compiled.source(name)
    source.write_bytes(source.read_bytes() + b"\n")
    assert compiled.reason() == f"{name} has changed since it was compiled"


def test_without_it_python_runs(made: Path) -> None:
    shutil.rmtree(made)
    assert compiled.reason() == "it has not been compiled"


def test_another_interpreter_does_not_touch_it(made: Path) -> None:
    (made / f"{compiled.LIBRARY}__mypyc{compiled.EXTENSION_SUFFIXES[0]}").unlink()
    assert compiled.reason() == "it was compiled for another interpreter"


@pytest.mark.parametrize("manifest", [b"", b"[]", b"{", b"\xff"])
def test_a_manifest_that_makes_no_sense_is_told_and_python_runs(made: Path, manifest: bytes) -> None:
    (made / "manifest.json").write_bytes(manifest)
    assert compiled.reason().startswith("what was compiled can't be read")


def test_constants_of_modules_that_are_not_compiled_belong_to_what_it_was_made_from(made: Path) -> None:
    known = json.loads((made / "manifest.json").read_bytes())
    assert {*compiled.HOT, "gateway.core.limit", "gateway.core.route"} <= set(known)


def test_without_a_c_compiler_the_command_says_so_and_nothing_changes(tmp_path: Path) -> None:
    before = sorted(compiled.folder().rglob("*")) if compiled.folder().exists() else []
    said = subprocess.run(
        [sys.executable, "-m", "gateway", "compile", "--force"],
        env={**os.environ, "CC": str(tmp_path / "nowhere")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert said.returncode == 1
    assert "not compiled, Penstock works without; there is no" in said.stderr
    assert "apt install gcc" in said.stderr
    assert (sorted(compiled.folder().rglob("*")) if compiled.folder().exists() else []) == before


def test_of_two_who_compile_at_once_one_waits(tmp_path: Path) -> None:
    order, near = [], threading.Event()

    def other() -> None:
        near.set()
        with alone(tmp_path / "library"):
            order.append("the other")

    waiting = threading.Thread(target=other)
    with alone(tmp_path / "library"):
        waiting.start()
        near.wait()
        order.append("the first")
    waiting.join()
    assert order == ["the first", "the other"]


def test_where_nothing_can_be_written_that_is_said(tmp_path: Path) -> None:
    with pytest.raises(NotCompiled, match="can't be written"), alone(tmp_path / "missing" / "library"):
        pass


def test_no_hot_function_gives_errors_of_two_types_one_name() -> None:
    """The compiler takes the first one's type for both, and says so only when the second comes."""
    wrong = []
    for name in compiled.HOT:
        for function in ast.walk(ast.parse(compiled.source(name).read_bytes())):
            if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            caught = [
                each for each in ast.walk(function) if isinstance(each, ast.ExceptHandler) and each.name
            ]
            types = {(each.name, ast.unparse(each.type)) for each in caught if each.type is not None}
            if len({each for each, _ in types}) < len(types):
                wrong.append(f"{name}:{function.lineno} {function.name}")
    assert wrong == []


def test_no_hot_coroutine_waits_while_it_handles_an_error() -> None:
    """While it waits, a compiled one does not keep which error it handles: `raise` may raise another's."""
    wrong = []
    for name in compiled.HOT:
        for each in ast.walk(ast.parse(compiled.source(name).read_bytes())):
            if isinstance(each, ast.Try):
                for late in (*each.handlers, *each.finalbody):
                    wrong += [f"{name}:{at.lineno}" for at in ast.walk(late) if isinstance(at, ast.Await)]
    assert wrong == []


def test_a_request_is_explained_as_it_is_in_python(tmp_path: Path) -> None:
    (tmp_path / "gateway.toml").write_text(
        """
[auth]
mode = "open"
[backends.main]
kind = "echo"
[models."*"]
targets = [{ backend = "main" }]
[[policies]]
name = "cool"
set = { temperature = { at_most = 0.5 } }
[[limits]]
scope = "key"
tokens = 1000
per = "1h"
"""
    )
    (tmp_path / "request.json").write_text('{"model": "m", "messages": [], "temperature": 1.5}')
    said = {
        chosen: subprocess.run(
            [sys.executable, "-m", "gateway", "explain", "request.json"],
            cwd=tmp_path,
            env={
                **os.environ,
                "PYTHONPATH": str(compiled.source("gateway.compiled").parent.parent),
                "PENSTOCK_COMPILED": chosen,
            },
            capture_output=True,
            text=True,
            check=False,
        )
        for chosen in ("", "no")
    }
    assert said[""].returncode == 0, said[""].stdout + said[""].stderr
    assert said[""].stdout == said["no"].stdout
    assert "cool" in said[""].stdout
