"""The ledger in one SQLite file."""

from gateway.stores.sqlite.ledger import SqliteLedger

__all__ = ["SqliteLedger"]
