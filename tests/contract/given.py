"""The stores that the contract suites run on, each on a database of its own."""

from __future__ import annotations

import secrets
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gateway.stores.postgres import PostgresLedger
from gateway.stores.sqlite import SqliteLedger

Ledger = SqliteLedger | PostgresLedger

KINDS = ("sqlite", "postgres")


class Store:
    """One database; `open` gives as many connections to it as are wanted."""

    def __init__(self, make: Callable[[], Ledger], execute: Callable[[str], None]) -> None:
        self._make = make
        self.execute = execute  # as somebody does who has the database before him
        self._opened: list[Ledger] = []

    def open(self, chain: str) -> Ledger:
        """A connection that appends to this audit chain."""
        ledger = self._make()
        ledger.chain = chain
        ledger.open()
        self._opened.append(ledger)
        return ledger

    def close(self) -> None:
        """Close all connections."""
        for ledger in self._opened:
            ledger.close()


@contextmanager
def made(kind: str, path: Path, request: pytest.FixtureRequest) -> Iterator[Store]:
    """A fresh database of a kind."""
    store = _sqlite(path) if kind == "sqlite" else _postgres(request)
    try:
        yield store
    finally:
        store.close()


def _sqlite(path: Path) -> Store:
    def execute(statement: str) -> None:
        db = sqlite3.connect(path / "ledger.db")
        try:
            with db:
                db.execute(statement)
        finally:
            db.close()

    return Store(lambda: SqliteLedger(path / "ledger.db"), execute)


def _postgres(request: pytest.FixtureRequest) -> Store:
    import psycopg

    url = request.getfixturevalue("postgres").database(f"t{secrets.token_hex(6)}")

    def execute(statement: str) -> None:
        with psycopg.connect(url, options="-c search_path=penstock") as connection:
            connection.execute(statement.encode())

    return Store(lambda: PostgresLedger(url), execute)
