"""One PostgreSQL server for all tests of a process."""

from tests.contract.conftest import postgres

__all__ = ["postgres"]
