"""Files of a configuration put in place, each whole or not at all."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from pathlib import Path


def rewrite(files: Mapping[str, str]) -> None:
    """Replace files by these texts, keeping owner and mode. All drafts are written before the first takes its
    place. Raises `OSError`; then nothing is changed, unless the disk fails between two renames.
    """
    drafts: list[tuple[Path, Path]] = []
    try:
        for name, text in files.items():
            path = Path(name).resolve()
            draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
            drafts.append((draft, path))
            _write(draft, text, path)
        for draft, path in drafts:
            draft.replace(path)
    finally:
        for draft, _ in drafts:
            draft.unlink(missing_ok=True)


def _write(draft: Path, text: str, like: Path) -> None:
    found = like.stat() if like.exists() else None
    if found is not None and not os.access(like, os.W_OK):
        raise PermissionError(13, "not writable", str(like))
    fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        os.write(fd, text.encode())
        os.fsync(fd)
        if found is not None:
            os.fchmod(fd, found.st_mode & 0o7777)
            if (found.st_uid, found.st_gid) != (os.geteuid(), os.getegid()):
                os.fchown(fd, found.st_uid, found.st_gid)
    finally:
        os.close(fd)
