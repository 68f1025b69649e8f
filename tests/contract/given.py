"""The stores that the contract suites run on, each on a database of its own."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gateway.stores.sqlite import SqliteLedger


def stores() -> list[str]:
    """The names of all kinds."""
    return ["sqlite"]


class Store:
    """One database; `open` gives as many connections to it as are wanted."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._opened: list[SqliteLedger] = []

    @classmethod
    @contextmanager
    def made(cls, kind: str, path: Path) -> Iterator[Store]:
        """A fresh database."""
        assert kind == "sqlite"
        store = cls(path / "ledger.db")
        try:
            yield store
        finally:
            for ledger in store._opened:
                ledger.close()

    def open(self, chain: str) -> SqliteLedger:
        """A connection that appends to this audit chain."""
        ledger = SqliteLedger(self._path)
        ledger.chain = chain
        ledger.open()
        self._opened.append(ledger)
        return ledger

    def execute(self, statement: str) -> None:
        """As somebody does who has the database before him."""
        with sqlite3.connect(self._path) as db:
            db.execute(statement)
        db.close()
