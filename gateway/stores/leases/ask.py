"""One undecided ask: what a call needs of each of its buckets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gateway.stores.leases.account import Account


@dataclass(slots=True)
class Part:
    """What is needed of one bucket, and wanted for the near future. No account: the rule is gone."""

    name: str
    account: Account | None
    need: int
    want: int


@dataclass(slots=True, eq=False)
class Ask:
    """One worker's question, asked at `born` (the authority's clock). It holds nothing while it waits.

    `ticket` says whose turn it is among replicas: the lower comes first.
    """

    worker: int
    id: int
    parts: list[Part]
    born: float = 0.0
    ticket: str = ""

    def forget(self, account: Account) -> None:
        """The rule of this account is gone."""
        for part in self.parts:
            if part.account is account:
                part.account = None

    def need_of(self, account: Account) -> int:
        """What it needs of this account."""
        return sum([part.need for part in self.parts if part.account is account])
