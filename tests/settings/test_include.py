from __future__ import annotations

from pathlib import Path

import pytest

from gateway.settings.faults import ConfigError
from gateway.settings.load import load


def write(directory: Path, files: dict[str, str]) -> Path:
    """Write files; gives the path of gateway.toml."""
    for name, text in files.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_text(text)
    return directory / "gateway.toml"


BACKEND = '[backends.{0}]\nkind = "openai"\nbase_url = "http://{0}.example/v1"\n'


def test_tables_merge_and_arrays_of_tables_are_joined(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        {
            "gateway.toml": 'include = ["more/*.toml"]\n[[keys]]\nname = "a"\nkey = "env:A"\n'
            + BACKEND.format("x"),
            "more/1.toml": '[[keys]]\nname = "b"\nkey = "file:b.key"\n' + BACKEND.format("y"),
            "more/2.toml": "[server.bounds]\nbody = '1MiB'\n[server]\nworkers = 2\n",
            "more/b.key": "sk-b",
        },
    )
    settings = load(path, {"A": "sk-a"})
    assert [key.name for key in settings.keys] == ["a", "b"]
    assert list(settings.backends) == ["x", "y"]
    assert (settings.server.workers, settings.server.bounds.body) == (2, 1 << 20)
    assert {Path(source).name for source in settings.sources} >= {"1.toml", "2.toml", "*.toml", "b.key"}


def test_files_may_be_included_by_several_others(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        {
            "gateway.toml": 'include = ["a.toml", "b.toml"]',
            "a.toml": 'include = ["shared.toml"]',
            "b.toml": 'include = ["shared.toml"]',
            "shared.toml": "[server]\nworkers = 3",
        },
    )
    assert load(path, {}).server.workers == 3


def test_a_key_set_in_two_included_files_names_both(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        {
            "gateway.toml": 'include = ["a.toml", "b.toml"]',
            "a.toml": "\n[server]\nworkers = 2",
            "b.toml": "[server]\nworkers = 3",
        },
    )
    with pytest.raises(ConfigError) as refused:
        load(path, {})
    (fault,) = refused.value.faults
    assert fault.file.endswith("b.toml") and fault.path == "server.workers" and "a.toml:3" in fault.message


def test_a_name_used_in_two_files_names_both(tmp_path: Path) -> None:
    key = '[[keys]]\nname = "a"\nkey = "env:{}"\n'
    path = write(
        tmp_path, {"gateway.toml": 'include = ["b.toml"]\n' + key.format("A"), "b.toml": key.format("B")}
    )
    with pytest.raises(ConfigError) as refused:
        load(path, {"A": "sk-a", "B": "sk-b"})
    (fault,) = refused.value.faults
    assert fault.path == "keys[0].name" and "gateway.toml:3" in fault.message


def test_an_empty_directory_of_parts_is_fine(tmp_path: Path) -> None:
    path = write(tmp_path, {"gateway.toml": 'include = ["parts/*.toml"]', "parts/README": "nothing yet"})
    assert str(tmp_path / "parts" / "*.toml") in load(path, {}).sources


def test_patterns_may_be_absolute_deep_and_odd(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a [1]",
        {
            "gateway.toml": "",
            "../deep/er/x.toml": "[server]\nworkers = 2",
            "y[.toml": "[auth]\nmode = 'open'",
        },
    )
    path.write_text(f'include = ["{tmp_path}/deep/**/*.toml", "[y]*.toml"]')
    settings = load(path, {})
    assert settings.server.workers == 2 and settings.auth.mode == "open"


def test_faults_are_sorted_by_file_then_line(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        {"gateway.toml": "include = ['b.toml']\n[auth]\nmod = 1\n[servr]\n", "b.toml": "x = 1\ny = 2\n"},
    )
    with pytest.raises(ConfigError) as refused:
        load(path, {})
    assert [(Path(f.file).name, f.line) for f in refused.value.faults] == [
        ("gateway.toml", 3),
        ("gateway.toml", 4),
        ("b.toml", 1),
        ("b.toml", 2),
    ]


def test_what_could_not_be_read_raises_no_false_alarm(tmp_path: Path) -> None:
    """The backend stands in the file that is missing: its absence is not a second fault."""
    path = write(
        tmp_path, {"gateway.toml": 'include = ["b.toml"]\n[models.x]\ntargets = [{ backend = "b" }]\n'}
    )
    with pytest.raises(ConfigError) as refused:
        load(path, {})
    (fault,) = refused.value.faults
    assert fault.path == "include[0]"
