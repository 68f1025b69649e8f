"""A call's texts as they are kept: redacted, cut, and only until their time is up."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(slots=True, frozen=True)
class Captured:
    """Prompt and answer of one call. Times are epoch milliseconds; `redactions` counts finds by kind."""

    id: str
    ts_ms: int
    tenant: str
    key_name: str
    model: str
    endpoint: str
    prompt: str
    response: str
    redactions: Mapping[str, int] = field(default_factory=dict)
    until_ms: int = 0


class Captures(Protocol):
    """Implemented by each ledger store beside `Ledger`; same rules: one thread, may block, `LedgerError`."""

    def keep_captures(self, captures: Sequence[Captured]) -> None:
        """Write them; one whose id is there already is left as it is."""

    def captures(
        self, *, tenant: str = "", since_ms: int = 0, until_ms: int = 0, most: int = 0, after: str = ""
    ) -> Iterator[Captured]:
        """The newest first; of one tenant, from `since_ms` on, before `until_ms`, beyond the id `after`."""

    def capture(self, id: str) -> Captured | None:
        """One, by the id of its call."""

    def end_captures(self, now_ms: int, most: int = 1000) -> int:
        """Remove those whose time is up, at most so many at once; gives how many."""

    def forget_captures(self, tenant: str) -> int:
        """Remove all of one tenant; gives how many."""
