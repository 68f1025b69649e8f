"""One connection to PostgreSQL, made anew after a loss; every error is a `LedgerError`."""

from __future__ import annotations

import os
import re
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from gateway.core.errors import LedgerError
from gateway.stores.base.tables import Rows

if TYPE_CHECKING:
    import psycopg

SCHEMA = "penstock"  # all tables stand in a schema of their own: the database may have other uses

_CONNECT_S = 5
# A server that says nothing for so long is as good as gone: calls wait in the journal meanwhile.
_OPTIONS = {
    "application_name": "penstock",
    "connect_timeout": str(_CONNECT_S),
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "20000",
}
_HOPELESS_S = 65.0  # beyond `statement_timeout`: a server that lives has ended the statement by itself
_SESSION = (
    "SET TIME ZONE 'UTC'",
    f"SET search_path TO {SCHEMA}",
    "SET statement_timeout = '60s'",
    "SET lock_timeout = '10s'",
    "SET idle_in_transaction_session_timeout = '60s'",
)


@lru_cache(512)
def native(statement: str) -> str:
    """A statement with `?` for each value, as psycopg wants it. No literal in it may have a `?`."""
    return statement.replace("%", "%%").replace("?", "%s")


class Session:
    """What `stores.base` sees of a connection (`base.tables.Tables`)."""

    __slots__ = ("asked", "connection")

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self.connection = connection
        self.asked = time.monotonic()  # when the newest statement was begun

    def execute(self, statement: str, values: Sequence[Any] = (), /) -> Rows:
        """Run one statement."""
        self.asked = time.monotonic()
        if not values:
            return self.connection.execute(statement.encode())
        return self.connection.execute(native(statement).encode(), values)

    def executemany(self, statement: str, rows: Sequence[Sequence[Any]], /) -> None:
        """Run one statement for each row; they go in few messages."""
        self.asked = time.monotonic()
        with self.connection.cursor() as cursor:
            cursor.executemany(native(statement).encode(), rows)


class Database:
    """Where the database is, and the connection to it while there is one. For one thread."""

    def __init__(self, url: str) -> None:
        self.place = place(url)  # without the password: safe to show
        self._url = url
        self._session: Session | None = None
        self._waited_for: Session | None = None  # a session that is at work
        self._closed = True

    def open(self) -> None:
        """Connect. Raises `LedgerError`."""
        self._closed = False
        self._connected()

    def close(self) -> None:
        """Let go. Idempotent."""
        self._closed = True
        self._drop()

    def _drop(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            session.connection.close()

    def _connected(self) -> Session:
        """The session; a new one where the last was lost."""
        if self._closed:
            raise LedgerError(f"the ledger {self.place} is not open")
        if self._session is not None and self._session.connection.closed:
            self._session = None
        if self._session is None:
            self._session = Session(self._connect())
        return self._session

    def _connect(self) -> psycopg.Connection[Any]:
        module = driver()
        try:
            connection: psycopg.Connection[Any] = module.connect(self._url, autocommit=True, **_OPTIONS)
        except module.Error as error:
            message = f"the ledger {self.place} can't be reached: {self._why(error)}"
            raise LedgerError(message) from None  # the cause may quote the URL
        self._waited_for = Session(connection)
        try:
            for statement in _SESSION:
                connection.execute(statement.encode())
        except module.Error as error:
            connection.close()
            raise LedgerError(f"the ledger {self.place} can't be used: {self._why(error)}") from None
        finally:
            self._waited_for = None
        return connection

    def give_up(self) -> None:
        """From another thread: break the connection where the server should have ended the wait long ago.

        Who waits gets a `LedgerError`, as of any connection that breaks.
        """
        session = self._waited_for
        if session is None or time.monotonic() < session.asked + _HOPELESS_S:
            return
        with (
            suppress(OSError, driver().Error),
            socket.socket(fileno=os.dup(session.connection.fileno())) as s,
        ):
            s.shutdown(socket.SHUT_RDWR)

    @contextmanager
    def translated(self, odd: tuple[type[Exception], ...] = ()) -> Iterator[Session]:
        """The session; errors of the database are `LedgerError`s, those in `odd` stay what they are.

        Outside a transaction every statement stands for itself.
        """
        session = self._connected()
        psycopg = driver()
        session.asked, self._waited_for = time.monotonic(), session
        try:
            yield session
        except odd:
            raise
        except psycopg.Error as error:
            if isinstance(error, psycopg.OperationalError | psycopg.InterfaceError):
                self._drop()  # what state it is in nobody knows
            elif isinstance(error, psycopg.errors.ReadOnlySqlTransaction):
                self._drop()  # a session may stay so when its server, or another, takes writes again
            raise LedgerError(f"the ledger {self.place} failed: {self._why(error)}") from error
        finally:
            self._waited_for = None

    @contextmanager
    def transaction(
        self, odd: tuple[type[Exception], ...] = (), *, reading: bool = False
    ) -> Iterator[Session]:
        """All or nothing. `reading` sees one moment of the database and writes nothing."""
        with self.translated(odd) as session:
            begin = b"BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY" if reading else b"BEGIN"
            session.connection.execute(begin)
            try:
                yield session
                session.connection.execute(b"COMMIT")
            except BaseException:
                self._roll_back(session)
                raise

    def _roll_back(self, session: Session) -> None:
        try:
            session.connection.rollback()
        except driver().Error:
            self._drop()

    def _why(self, error: Exception) -> str:
        text = " ".join(str(error).split()) or type(error).__name__
        secret = urlsplit(self._url).password
        for each in {secret, unquote(secret or "")} - {None, ""}:
            text = text.replace(str(each), "***")
        return re.sub(r"postgres(ql)?://\S+", self.place, text)


def place(url: str) -> str:
    """The URL without its password and options."""
    parts = urlsplit(url)
    credentials, at, hosts = parts.netloc.rpartition("@")
    return f"postgresql://{credentials.partition(':')[0]}{at}{hosts}{parts.path}"


def driver() -> Any:
    """The package psycopg, which only this store needs. Raises `LedgerError` where it is missing."""
    try:
        import psycopg
    except ImportError as error:
        raise LedgerError(
            f"PostgreSQL needs the package psycopg ({error}): pip install 'penstock[postgres]'"
        ) from None
    return psycopg
