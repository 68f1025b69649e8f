"""Files put in place whole or not at all, and back."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from gateway.control.rewrite import Rewrite


def contents(directory: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in directory.iterdir() if path.is_file()}


def test_files_are_replaced_made_and_set_aside_and_all_of_it_goes_back(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text("a")
    (tmp_path / "c.toml").write_text("c")
    before = contents(tmp_path)
    fresh = Rewrite(
        {str(tmp_path / "a.toml"): "A", str(tmp_path / "b.toml"): "é"}, [str(tmp_path / "c.toml")]
    )
    fresh.do()
    (aside,) = map(Path, fresh.aside)
    assert contents(tmp_path) == {"a.toml": "A", "b.toml": "é", aside.name: "c"}
    assert aside.name.startswith(".c.toml.") and aside.suffix != ".toml"
    fresh.undo()
    assert contents(tmp_path) == before


def test_mode_and_links_stay(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    real, link = tmp_path / "real" / "a.toml", tmp_path / "a.toml"
    real.write_text("a")
    real.chmod(0o640)
    link.symlink_to(real)
    Rewrite({str(link): "A"}).do()
    assert link.is_symlink() and real.read_text() == "A"
    assert stat.S_IMODE(real.stat().st_mode) == 0o640


def test_whoever_may_not_write_one_changes_none(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text("a")
    (tmp_path / "file").write_text("no directory")
    with pytest.raises(OSError, match="file"):
        Rewrite({str(tmp_path / "a.toml"): "A", str(tmp_path / "file" / "b.toml"): "B"}).do()
    assert contents(tmp_path) == {"a.toml": "a", "file": "no directory"}


def test_what_can_not_be_set_aside_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text("a")
    with pytest.raises(OSError, match="gone"):
        Rewrite({str(tmp_path / "a.toml"): "A"}, [str(tmp_path / "gone.toml")]).do()
    assert contents(tmp_path) == {"a.toml": "a"}


def test_a_file_that_is_not_to_be_written_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.toml").write_text("a")
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # as it is for all but root
    with pytest.raises(PermissionError):
        Rewrite({str(tmp_path / "a.toml"): "A"}).do()
    assert contents(tmp_path) == {"a.toml": "a"}
