"""The audit beside the running appliance: its upkeep, and its newest hashes noted outside of the ledger."""

from __future__ import annotations

import logging
import os
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from gateway import __version__
from gateway.core.codec import JSONError, canonical, loads
from gateway.core.errors import LedgerError
from gateway.core.records import Actor, Deed, Records
from gateway.supervisor.clerk import InThread

log = logging.getLogger("penstock.audit")

HEAD = "audit.head"  # the file in data_dir
_FILE = Actor("config", name="gateway.toml")
_APPLIANCE = Actor("config", name="penstock serve")
_ABOUT = {"version": __version__}
_TEND = 5.0  # seconds between two looks
_PRUNE = 3600.0  # seconds between two looks at what is too old
_OWED = 1000  # records that wait for the ledger at most


def note_heads(file: Path, heads: Mapping[str, tuple[int, str]]) -> None:
    """Write each chain's newest number and hash, whole or not at all. Raises `OSError`."""
    lines = [canonical({"chain": chain, "n": n, "hash": hash}) for chain, (n, hash) in sorted(heads.items())]
    fresh = file.with_name(f"{file.name}.{os.getpid()}")
    fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        os.write(fd, b"".join(line + b"\n" for line in lines))
    finally:
        os.close(fd)
    fresh.replace(file)


def noted_heads(file: Path) -> list[tuple[str, int, str]]:
    """What was written there: chain, number, hash. Raises `ValueError` where it is something else."""
    try:
        lines = file.read_bytes().splitlines()
    except FileNotFoundError:
        return []
    try:
        found = [loads(line) for line in lines]
        return [(str(each["chain"]), int(each["n"]), str(each["hash"])) for each in found]
    except (JSONError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{file} is not what the gateway wrote: {error}") from None


def keep_heads(file: Path, heads: Mapping[str, tuple[int, str]]) -> None:
    """Note newer heads. Raises `OSError`, and `ValueError` as `noted_heads`.

    Never back: of a chain that has become shorter, or another one, what was noted stays, and says so.
    """
    known = {chain: (n, hash) for chain, n, hash in noted_heads(file)}
    kept = dict(heads)
    for chain, noted in known.items():
        found = heads.get(chain, (0, ""))
        if found[0] < noted[0] or (found[0] == noted[0] and found != noted):
            log.error("the audit chain %s has lost its end: penstock audit verify says more", chain)
            kept[chain] = noted
    if kept != known:
        note_heads(file, kept)


class Keeper:
    """Tends the audit of a running appliance. `keep` is in seconds; 0.0 keeps all of it for good."""

    def __init__(self, records: Records, do: InThread, data: Path, keep: float) -> None:
        self.keep = keep
        self._records = records
        self._do = do
        self._file = data / HEAD
        self._heads: dict[str, tuple[int, str]] = {}  # as they were seen last
        self._tended = self._pruned = -_PRUNE
        self._refused = ""
        self._owed: deque[Deed] = deque()

    async def began(self, revision: str) -> None:
        """The appliance serves from now on."""
        await self._append(Deed(_APPLIANCE, "appliance.start", "appliance", revision=revision, detail=_ABOUT))

    async def ended(self, revision: str, orderly: bool) -> None:
        """It has stopped; orderly: no call was cut off."""
        detail = {**_ABOUT, "orderly": orderly}
        await self._append(Deed(_APPLIANCE, "appliance.stop", "appliance", revision=revision, detail=detail))
        try:
            await self._do(lambda: self._note(self._records.chains()))
        except (OSError, ValueError, LedgerError) as error:
            log.error("%s can't be kept: %s", self._file, error)

    async def reloaded(self, before: str, after: str) -> None:
        """Another revision of the configuration serves."""
        deed = Deed(
            _FILE, "config.reload", f"config/{after}", {"revision": before}, {"revision": after}, after
        )
        await self._append(deed)

    async def refused(self, serving: str, why: str) -> None:
        """A changed configuration can't serve; the old one goes on. The same reason is told once."""
        if why and why != self._refused:
            detail = {"why": why}
            await self._append(
                Deed(_FILE, "config.refuse", f"config/{serving}", revision=serving, detail=detail)
            )
        self._refused = why

    async def _append(self, deed: Deed) -> None:
        """What happened has happened: a ledger that fails is logged and stops nothing, and is told later."""
        if len(self._owed) >= _OWED:
            log.error("%s of %s can't be noted in the audit: too much waits for it", deed.action, deed.target)
            return
        self._owed.append(replace(deed, ts_ms=int(time.time() * 1000)))
        try:
            await self._do(self._pay)
        except LedgerError as error:
            log.error("%s of %s can't be noted in the audit: %s", deed.action, deed.target, error)

    def _pay(self) -> None:
        """In the ledger's thread: note what could not be noted before, in its order. Raises `LedgerError`."""
        while self._owed:
            self._records.note([self._owed[0]])
            self._owed.popleft()

    def tend(self) -> None:
        """In the ledger's thread: note new heads, close counts, drop what is too old."""
        now = time.monotonic()
        if now - self._tended >= _TEND:
            self._tended = now
            self._pay()
            due = self.keep > 0 and now - self._pruned >= _PRUNE
            gone = self._records.upkeep(int(self.keep * 1000) if due else 0)
            if due and not gone:
                self._pruned = now
        try:
            self._note(self._records.chains())
        except (OSError, ValueError) as error:
            log.error("%s can't be kept: %s", self._file, error)

    def _note(self, heads: dict[str, tuple[int, str]]) -> None:
        if heads != self._heads:
            keep_heads(self._file, heads)
            self._heads = heads
