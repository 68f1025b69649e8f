"""Texts that came with calls: opened to be counted, and, where a tenant wants it, redacted and kept."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

from gateway.core.captured import Captured, Captures
from gateway.core.redact import KINDS, redact
from gateway.link.seal import Seal

log = logging.getLogger("penstock.capture")


class Texts:
    """In the ledger's thread. What comes twice (same id) is kept once."""

    def __init__(
        self,
        seal: Seal | None = None,
        store: Captures | None = None,
        count: Callable[..., None] | None = None,
    ) -> None:
        self.kept = self.lost = 0  # captures that were written, and that could not be
        self._told = {"kept": 0, "lost": 0}
        self._count = count
        self._seal = seal or Seal()
        self._store = store
        self._found: list[Captured] = []

    def opened(self, record: dict[str, Any]) -> None:
        """Put the texts to be counted in place of what is sealed; remember what is to be kept."""
        sealed = record.pop("sealed", None)
        texts = self._seal.open(sealed) if isinstance(sealed, str) else {}
        if "text" in texts:
            record["prompt"], record["text"] = texts.get("prompt", ""), texts["text"]
            if texts.get("whole") is True:
                record["whole"] = True
            if type(texts.get("size")) is int:
                record["size"] = texts["size"]
        wanted = texts.get("capture")
        if wanted and self._store is not None:
            try:
                self._found.append(captured(record, wanted))
            except (LookupError, TypeError, ValueError) as error:
                self.lost += 1
                log.error("a capture can't be understood: %s", type(error).__name__)

    def keep(self) -> None:
        """Write what was found. Calls are booked whether or not that works."""
        found, self._found = self._found, []
        if found and self._store is not None:
            try:
                self._store.keep_captures(found)
                self.kept += len(found)
            except Exception as error:
                self.lost += len(found)
                log.error("%d captures can't be written: %s", len(found), type(error).__name__)

    def tell(self) -> None:
        """Count what is new for `/metrics`. In the loop's thread."""
        if self._count is None:
            return
        for name, total in (("kept", self.kept), ("lost", self.lost)):
            for _ in range(total - self._told[name]):
                self._count("captures", name)
            self._told[name] = total

    def tidy(self) -> int:
        """Remove some of those whose time is up; gives how many."""
        return self._store.end_captures(time.time_ns() // 1_000_000) if self._store is not None else 0


def captured(record: dict[str, Any], wanted: dict[str, Any]) -> Captured:
    """Both texts redacted and cut. Raises `LookupError`, `TypeError`, `ValueError` for what is none."""
    kinds = [kind for kind in wanted["redact"] if kind in KINDS]
    most = int(wanted["most"])
    counts: dict[str, int] = {}
    texts = []
    for name in ("prompt", "response"):
        whole = str(wanted[name])
        within = len(whole.encode("utf-8", "replace")[:most].decode("utf-8", "ignore"))
        clean, found = redact(whole, kinds, within)
        # No database keeps a NUL in a text.
        texts.append(clean.encode("utf-8", "replace")[:most].decode("utf-8", "ignore").replace("\0", "�"))
        for kind, count in found.items():
            counts[kind] = counts.get(kind, 0) + count
    ts = int(record["ts"])
    return Captured(
        id=str(record["id"]),
        ts_ms=ts,
        tenant=str(record.get("tenant", "")),
        key_name=str(record.get("key_name", "")),
        model=str(record.get("model", "")),
        endpoint=str(record.get("endpoint", "")),
        prompt=texts[0],
        response=texts[1],
        redactions=counts,
        until_ms=ts + int(wanted["keep"] * 1000),
    )
