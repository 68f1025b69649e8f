"""Files of a configuration put in place, each whole or not at all, and back again."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable, Mapping
from pathlib import Path


class Rewrite:
    """Texts to be put in place of files, and files to be set aside under a hidden name beside their own.

    Owner and mode stay. Paths are absolute.
    """

    def __init__(self, files: Mapping[str, str], gone: Iterable[str] = ()) -> None:
        self._files = {Path(name).resolve(): text.encode() for name, text in files.items()}
        self._gone = [Path(name) for name in gone]
        self._before: dict[Path, bytes | None] = {}
        self._aside: list[tuple[Path, Path]] = []  # a file, and where it is now

    @property
    def aside(self) -> list[str]:
        """Where the files are that were set aside."""
        return [str(hidden) for _, hidden in self._aside]

    def do(self) -> None:
        """All drafts are written before the first takes its place. Raises `OSError`; then nothing is changed,
        unless the disk fails between two renames.
        """
        self._before = {path: path.read_bytes() if path.exists() else None for path in self._files}
        _put(self._files)
        try:
            for path in self._gone:
                hidden = path.with_name(f".{path.name}.aside-{secrets.token_hex(4)}")
                path.rename(hidden)
                self._aside.append((path, hidden))
        except OSError:
            self.undo()
            raise

    def undo(self) -> None:
        """As it was before. Raises `OSError`."""
        _put({path: data for path, data in self._before.items() if data is not None})
        for path, data in self._before.items():
            if data is None:
                path.unlink(missing_ok=True)
        while self._aside:
            path, hidden = self._aside.pop()
            hidden.rename(path)


def _put(files: Mapping[Path, bytes]) -> None:
    drafts: list[tuple[Path, Path]] = []
    try:
        for path, data in files.items():
            draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
            drafts.append((draft, path))
            _write(draft, data, path)
        for draft, path in drafts:
            draft.replace(path)
    finally:
        for draft, _ in drafts:
            draft.unlink(missing_ok=True)


def _write(draft: Path, data: bytes, like: Path) -> None:
    found = like.stat() if like.exists() else None
    if found is not None and not os.access(like, os.W_OK):
        raise PermissionError(13, "not writable", str(like))
    fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(fd, "wb") as file:
        file.write(data)
        file.flush()
        if found is not None:
            os.fchmod(fd, found.st_mode & 0o7777)
            if (found.st_uid, found.st_gid) != (os.geteuid(), os.getegid()):
                os.fchown(fd, found.st_uid, found.st_gid)
        os.fsync(fd)
