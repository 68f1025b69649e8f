"""The configuration over time: good ones are taken, bad ones are reported and change nothing."""

from __future__ import annotations

import pytest

from gateway.settings.faults import ConfigError
from gateway.supervisor.revisions import Revisions

GOOD = """
[server]
listen = "127.0.0.1:8081"
[backends.echo]
kind = "echo"
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "gateway.toml"
    path.write_text(GOOD)
    return path


def test_nothing_changes_as_long_as_the_file_does_not(file):
    revisions = Revisions(file, {})
    assert not revisions.changed()
    assert revisions.reload() is None


def test_a_changed_file_gives_a_new_revision(file):
    revisions = Revisions(file, {})
    file.write_text(GOOD + '[models."m"]\ntargets = [{ backend = "echo" }]\n')
    assert revisions.changed()
    fresh = revisions.reload()
    assert fresh is not None and fresh.revision != revisions.current.revision
    assert [rule.name for rule in fresh.models] == ["m"]
    assert not revisions.changed()
    revisions.accept(fresh)
    assert revisions.current is fresh


def test_a_faulty_file_keeps_the_old_revision_and_says_why_until_it_is_mended(file):
    revisions = Revisions(file, {})
    before = revisions.current
    file.write_text(GOOD.replace("listen", "lisen"))
    assert revisions.changed() and revisions.reload() is None
    assert revisions.current is before
    assert "lisen" in revisions.fault and "gateway.toml:3" in revisions.fault
    assert revisions.told == ""  # until log and metrics say so: `Turnover`
    assert not revisions.changed()
    file.write_text(GOOD + "# mended\n")
    assert revisions.changed()
    assert revisions.reload() is None  # the same settings as before
    assert revisions.fault == ""


def test_a_faulty_included_file_is_watched_before_it_was_ever_good(file, tmp_path):
    revisions = Revisions(file, {})
    more = tmp_path / "more.toml"
    more.write_text("[servr]\n")
    file.write_text('include = ["more.toml"]\n' + GOOD)
    assert revisions.changed() and revisions.reload() is None
    assert "servr" in revisions.fault
    more.write_text('[models."m"]\ntargets = [{ backend = "echo" }]\n')
    assert revisions.changed()
    assert revisions.reload() is not None


def test_what_a_running_process_cannot_change_stays_and_is_said(file, caplog):
    revisions = Revisions(file, {})
    file.write_text(GOOD.replace("8081", "8082"))
    fresh = revisions.reload()
    assert fresh is not None and fresh.server.listen == "127.0.0.1:8081"
    assert "server.listen has changed" in caplog.text


def test_a_faulty_first_configuration_is_an_error(file):
    file.write_text("nonsense")
    with pytest.raises(ConfigError):
        Revisions(file, {})
