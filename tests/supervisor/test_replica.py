"""A replica keeps its name."""

from __future__ import annotations

import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from gateway.supervisor.replica import replica_id


def test_a_name_is_made_once_and_stays(tmp_path: Path) -> None:
    first = replica_id(tmp_path / "data")
    assert first and replica_id(tmp_path / "data") == first != replica_id(tmp_path / "other")
    assert stat.S_IMODE((tmp_path / "data" / "replica").stat().st_mode) == 0o600
    assert [file.name for file in (tmp_path / "data").iterdir()] == ["replica"]


def test_several_who_make_it_at_once_agree(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(replica_id, [tmp_path] * 32))) == 1


def test_something_else_in_the_file_says_what_would_be_right(tmp_path: Path) -> None:
    (tmp_path / "replica").write_text("two words")
    with pytest.raises(ValueError, match="must hold a name of letters"):
        replica_id(tmp_path)
