"""What ledgers in SQL have in common: statements that every one of the databases takes."""

from gateway.stores.base.calls import SqlCalls
from gateway.stores.base.captures import SqlCaptures
from gateway.stores.base.records import SqlRecords

__all__ = ["SqlCalls", "SqlCaptures", "SqlRecords"]
