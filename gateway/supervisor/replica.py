"""Which replica this is: a name that stays with its data directory."""

from __future__ import annotations

import os
import re
import secrets
from pathlib import Path

_FILE = "replica"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


def replica_id(data_dir: Path) -> str:
    """The name in `data_dir/replica`; made up and written there the first time. Raises `OSError`.

    A file that holds something else is a `ValueError` that says what would be right.
    """
    file = data_dir / _FILE
    try:
        name = file.read_text("utf-8", "replace").strip()
    except FileNotFoundError:
        return _made(file)
    if not _NAME.fullmatch(name):
        raise ValueError(
            f"{file} must hold a name of letters, digits, dots, - and _, at most 64; or remove it"
        )
    return name


def _made(file: Path) -> str:
    """Of two who make one at once, both take the name that came first."""
    fresh = file.with_name(f"{_FILE}.{os.getpid()}.{secrets.token_hex(4)}")
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        os.write(fd, f"r{secrets.token_hex(6)}\n".encode())
        os.fsync(fd)
    finally:
        os.close(fd)
    try:
        os.link(fresh, file)
    except FileExistsError:
        pass
    finally:
        fresh.unlink()
    return file.read_text().strip()
