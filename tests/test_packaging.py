"""What a stranger gets: the make targets, the locks, the image, the wheel."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LOCKS = ("requirements.lock", "requirements-dev.lock", "requirements-compile.lock")


def requirements(lock: str) -> dict[str, list[str]]:
    """Pinned "name==version" → its hashes."""
    text = re.sub(r"\\\n\s*", " ", (ROOT / lock).read_text())
    lines = [line.split() for line in text.splitlines() if line and not line.lstrip().startswith("#")]
    return {line[0]: [part for part in line[1:] if part.startswith("--hash=")] for line in lines}


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile's instructions, continued lines joined, comments left out."""
    lines = [line for line in (ROOT / "Dockerfile").read_text().splitlines() if not line.startswith("#")]
    text = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    return [tuple(line.split(" ", 1)) for line in text.splitlines() if line]  # type: ignore[misc]


def last_stage() -> list[tuple[str, str]]:
    whole = instructions()
    start = max(at for at, (word, _) in enumerate(whole) if word == "FROM")
    return whole[start:]


@pytest.mark.parametrize("lock", LOCKS)
def test_every_locked_package_has_one_version_and_its_hashes(lock: str) -> None:
    for pinned, hashes in requirements(lock).items():
        assert re.fullmatch(r"[a-z0-9-]+==[0-9][\w.]*", pinned), pinned
        assert hashes and all(re.fullmatch(r"--hash=sha256:[0-9a-f]{64}", item) for item in hashes), pinned


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_names_no_index_and_no_folder(lock: str) -> None:
    assert not re.search(r"^\s*--(index|extra-index|find-links|trusted)", (ROOT / lock).read_text(), re.M)


def test_the_locks_hold_what_the_project_asks_for() -> None:
    document = tomllib.loads((ROOT / "pyproject.toml").read_text())
    project, build = document["project"], document["build-system"]["requires"]

    def names(items: list[str]) -> set[str]:
        return {re.split(r"[\[<>=!~ ]", item)[0] for item in items}

    core, dev, compiler = ({pinned.split("==")[0] for pinned in requirements(lock)} for lock in LOCKS)
    assert names(project["dependencies"]) | names(build) <= core
    assert core | names(project["optional-dependencies"]["dev"]) <= dev
    assert compiler | core >= names(project["optional-dependencies"]["compile"])
    assert set(requirements(LOCKS[2])) <= set(requirements(LOCKS[1])), "the locks disagree: make lock"
    assert set(requirements(LOCKS[0])) <= set(requirements(LOCKS[1])), "the locks disagree: make lock"


def test_the_gateway_is_installed_without_what_only_tests_need() -> None:
    core = {pinned.split("==")[0] for pinned in requirements(LOCKS[0])}
    assert not core & {"pytest", "openai", "mypy", "numpy", "matplotlib", "pydantic"}


def test_make_help_lists_every_target_with_one_line() -> None:
    text = (ROOT / "Makefile").read_text()
    phony = re.search(r"^\.PHONY: (.*)$", text, re.M)
    shown = subprocess.run(
        ["make", "--no-print-directory", "help"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    listed = re.findall(r"^make (\w+) +\S", shown.stdout, re.M)
    assert phony is not None
    assert listed == phony[1].split()


def test_the_image_runs_as_a_numeric_user_that_is_not_root() -> None:
    users = [argument for word, argument in last_stage() if word == "USER"]
    assert len(users) == 1
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", users[0])


def test_the_image_is_built_in_stages_from_hashed_packages_without_a_shell() -> None:
    whole = instructions()
    assert len([word for word, _ in whole if word == "FROM"]) == 2
    for word, argument in whole:
        if word in ("RUN", "ENTRYPOINT", "CMD", "VOLUME"):
            assert isinstance(json.loads(argument), list), f"{word}: write the exec form"
    installs = [json.loads(argument) for word, argument in whole if word == "RUN" and '"install"' in argument]
    assert all("--require-hashes" in install or "--no-deps" in install for install in installs)
    assert "latest" not in " ".join(argument for word, argument in whole if word == "FROM")


def test_the_image_tells_its_health_without_a_shell_or_curl() -> None:
    (check,) = [argument for word, argument in last_stage() if word == "HEALTHCHECK"]
    command = json.loads(check.split(" CMD ", 1)[1].strip())
    assert command[0].endswith("/python")
    compile(command[2], "healthcheck", "exec")
    assert "/healthz" in command[2]


def test_the_image_writes_only_to_its_volume() -> None:
    stage = last_stage()
    (volumes,) = [json.loads(argument) for word, argument in stage if word == "VOLUME"]
    config = tomllib.loads((ROOT / "config" / "container.toml").read_text())
    assert [config["server"]["data_dir"]] == volumes
    assert any(word == "ENV" and "PYTHONDONTWRITEBYTECODE=1" in argument for word, argument in stage)


def test_commands_in_the_image_find_the_configuration_that_it_serves() -> None:
    stage = last_stage()
    (command,) = [json.loads(argument) for word, argument in stage if word == "CMD"]
    served = Path(command[-1])
    assert served.name == "gateway.toml"
    assert [argument for word, argument in stage if word == "WORKDIR"][-1] == str(served.parent)
    (made,) = [argument.split()[-1] for word, argument in stage if "container.toml" in argument]
    assert made == str(served)
    (entry,) = [json.loads(argument) for word, argument in stage if word == "ENTRYPOINT"]
    assert any(f"PATH={Path(entry[0]).parent}:" in argument for word, argument in stage if word == "ENV")


def test_what_the_image_copies_is_sent_to_the_builder() -> None:
    rules = (ROOT / ".dockerignore").read_text().splitlines()
    assert "*" in rules
    for word, argument in instructions():
        if word == "COPY" and not argument.startswith("--from"):
            for source in argument.split()[:-1]:
                assert (ROOT / source).exists()
                assert f"!{source.split('/')[0]}" in rules, source


def test_the_wheel_holds_the_package_and_its_prices_and_nothing_that_runs_by_itself(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    for name in ("gateway", "config", "plugins"):
        shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree / name)
    build = "import sys; from setuptools.build_meta import build_wheel; print(build_wheel(sys.argv[1]))"
    subprocess.run(
        [sys.executable, "-W", "ignore", "-c", build, str(tmp_path)],
        cwd=tree,
        capture_output=True,
        check=True,
    )
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    shipped = (("gateway", "*.py"), ("plugins", "*.py"), ("config", "*.toml"))
    expected = {
        path.relative_to(tree).as_posix() for name, kind in shipped for path in (tree / name).rglob(kind)
    }
    assert "config/prices.toml" in expected and "plugins/opa.py" in expected
    assert expected <= set(names)
    assert not [name for name in names if name.endswith(".pth") or name.startswith(("tests/", "bench/"))]
