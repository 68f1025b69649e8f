"""One PostgreSQL server for all tests of a process."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.servers import postgres as servers


@pytest.fixture(scope="session")
def postgres() -> Iterator[servers.Postgres]:
    """A running server; skips where none is installed."""
    if servers.found() is None:
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
    with servers.serving() as server:
        yield server
