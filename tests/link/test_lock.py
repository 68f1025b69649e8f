"""A lock is held for as long as any process holds its descriptor."""

from __future__ import annotations

import os
import subprocess
import sys

from gateway.link.lock import hold


def test_only_one_holder_at_a_time(tmp_path):
    first = hold(tmp_path / "lock")
    assert first is not None
    assert hold(tmp_path / "lock") is None
    os.close(first)
    again = hold(tmp_path / "lock")
    assert again is not None
    os.close(again)


def test_a_child_that_inherited_the_lock_holds_it_until_it_is_killed(tmp_path):
    fd = hold(tmp_path / "lock")
    assert fd is not None
    code = "import sys; print('up', flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=[fd]
    ) as child:
        assert child.stdout is not None and child.stdout.readline() == b"up\n"
        os.close(fd)
        assert hold(tmp_path / "lock") is None
        child.kill()
    freed = hold(tmp_path / "lock")
    assert freed is not None
    os.close(freed)
