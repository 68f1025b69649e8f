"""What a ledger store is in all: the record of calls, of what operators do, and of texts kept for tenants."""

from __future__ import annotations

from typing import Protocol

from gateway.core.captured import Captures
from gateway.core.ports import Ledger
from gateway.core.records import Records


class LedgerStore(Ledger, Records, Captures, Protocol):
    """One database. `chain` names this replica's audit chain; with `common` other replicas share it all."""

    chain: str
    common: bool
