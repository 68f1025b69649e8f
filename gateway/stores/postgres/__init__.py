"""The ledger in a PostgreSQL database, which any number of replicas share."""

from gateway.stores.postgres.ledger import PostgresLedger

__all__ = ["PostgresLedger"]
