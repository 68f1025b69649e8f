from __future__ import annotations

import os
from pathlib import Path

from gateway.settings.load import load
from gateway.settings.watch import fingerprint


def test_a_changed_a_replaced_and_a_removed_file_show(tmp_path: Path) -> None:
    file = tmp_path / "a [1].toml"
    file.write_text("one")
    seen = [fingerprint([str(file)])]
    assert fingerprint([str(file)]) == seen[0]
    file.write_text("other")
    seen.append(fingerprint([str(file)]))
    (tmp_path / "new").write_text("third")
    os.utime(tmp_path / "new", ns=(file.stat().st_atime_ns, file.stat().st_mtime_ns))
    (tmp_path / "new").rename(file)
    seen.append(fingerprint([str(file)]))
    file.unlink()
    seen.append(fingerprint([str(file)]))
    assert len(set(seen)) == 4


def test_a_swapped_link_shows(tmp_path: Path) -> None:
    """Kubernetes updates mounted secrets by swapping a link."""
    for name in ("one", "two"):
        (tmp_path / name).write_text("same size")
    link = tmp_path / "current"
    link.symlink_to("one")
    before = fingerprint([str(link)])
    link.unlink()
    link.symlink_to("two")
    assert fingerprint([str(link)]) != before


def test_a_new_file_under_an_included_pattern_shows(tmp_path: Path) -> None:
    (tmp_path / "parts").mkdir()
    path = tmp_path / "gateway.toml"
    path.write_text('include = ["parts/*.toml"]')
    sources = load(path, {}).sources
    before = fingerprint(sources)
    (tmp_path / "parts" / "new.toml").write_text("")
    assert fingerprint(sources) != before


def test_a_rotated_secret_file_shows_and_is_a_new_revision(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("sk-1")
    path = tmp_path / "gateway.toml"
    path.write_text('[backends.a]\nkind = "openai"\nbase_url = "http://a.example"\napi_key = "file:key"')
    settings = load(path, {})
    before = fingerprint(settings.sources)
    (tmp_path / "key").write_text("sk-22")
    assert fingerprint(settings.sources) != before
    assert load(path, {}).revision != settings.revision


def test_sources_that_make_no_sense_are_missing_files() -> None:
    assert fingerprint(["\0", "/nowhere/at/all", "**["])[0][1:] == (0, 0, 0)
