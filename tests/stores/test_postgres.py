"""PostgreSQL itself: its partitions, its replicas, its losses, its secrets."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import date, timedelta
from typing import Any

import psycopg
import pytest

from gateway.core.errors import LedgerError
from gateway.core.keep import Keep
from gateway.core.limit import LimitRule
from gateway.stores.base import rollups
from gateway.stores.postgres import PostgresLedger, connection, schema
from tests.servers import postgres as servers

DAY = 86_400


@pytest.fixture
def url(postgres: servers.Postgres) -> str:
    return postgres.database(f"t{secrets.token_hex(6)}")


@pytest.fixture
def made(url: str) -> Iterator[Callable[[str], PostgresLedger]]:
    """Makes open ledgers by the name of their replica."""
    ledgers = []

    def make(replica: str) -> PostgresLedger:
        ledger = PostgresLedger(url, replica)
        ledger.open()
        ledgers.append(ledger)
        return ledger

    yield make
    for ledger in ledgers:
        ledger.close()


def ask(url: str, statement: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(url, options="-c search_path=penstock", autocommit=True) as connection:
        cursor = connection.execute(statement.encode())
        return cursor.fetchall() if cursor.description else []


def call(**fields: Any) -> dict[str, Any]:
    now = int(time.time() * 1000)
    return {
        "ts": now,
        "key": "k",
        "outcome": "ok",
        "usage_source": "provider",
        "input": 10,
        "worker": 1,
        **fields,
    }


def partitions(url: str) -> list[str]:
    rows = ask(url, "SELECT relname FROM pg_class WHERE relispartition AND relkind = 'r' ORDER BY 1")
    return [row[0] for row in rows]


def named(day: int) -> str:
    return f"entries_{date(1970, 1, 1) + timedelta(day):%Y%m%d}"


def test_calls_stand_in_a_partition_of_the_day_they_were_booked(
    made: Callable[[str], PostgresLedger], url: str
) -> None:
    today = int(time.time()) // DAY
    made("r1").commit([call(ts=5), call(), call(ts=1 << 45)], {})
    assert set(partitions(url)) >= {named(today), named(today + 1)}
    in_days = {row[0] for row in ask(url, "SELECT DISTINCT tableoid::regclass::text FROM entries")}
    assert in_days <= {named(today), named(int(time.time()) // DAY)}
    assert made("r1").usage(())[0]["calls"] == 3


def test_old_days_are_dropped_with_their_partition_once_they_are_summed(
    made: Callable[[str], PostgresLedger], url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.time()
    ledger, away = made("r1"), made("r2")
    for offset in (-10, 0):
        monkeypatch.setattr("gateway.stores.postgres.ledger.time.time", lambda at=now + offset * DAY: at)
        for each in (ledger, away):  # the second one will never be there again
            each.commit([call(ts=int((now + offset * DAY) * 1000))], {})
    old = named(int(now - 10 * DAY) // DAY)
    assert old in partitions(url)
    while ledger.tidy_calls(Keep(calls=2.0 * DAY), now):
        pass
    assert old not in partitions(url) and named(int(now) // DAY) in partitions(url)
    assert ask(url, "SELECT count(*) FROM entries") == [(2,)]
    assert ledger.usage(())[0]["calls"] == 4


def test_replicas_share_a_database_and_keep_their_offsets_apart(
    made: Callable[[str], PostgresLedger], url: str
) -> None:
    one, two = made("r1"), made("r2")
    one.commit([call()], {"boot-0": 5})
    two.commit([call(key="other"), call()], {"boot-0": 3})
    assert (one.offsets(), two.offsets()) == ({"boot-0": 5}, {"boot-0": 3})
    two.forget("boot-0")
    assert (one.offsets(), two.offsets()) == ({"boot-0": 5}, {})
    assert one.usage(()) == two.usage(()) and one.usage(())[0]["calls"] == 3
    rule = LimitRule("r", ("key",), "requests", 1, calendar="month")
    since = int((time.time() - 2 * DAY) * 1000)
    counts = [sum(row.requests for row in one.spent(rule, since, everyone=all)) for all in (False, True)]
    assert counts == [1, 3]
    hour = LimitRule("r", ("key",), "requests", 1, seconds=3600.0)
    assert sum(row.requests for row in two.spent(hour, since, "k", 1)) == 1  # of its own worker 1
    assert {row[0] for row in ask(url, "SELECT replica FROM calls")} == {"r1", "r2"}


def test_replicas_that_book_at_once_lose_nothing(
    made: Callable[[str], PostgresLedger], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Same labels, new for all of them; sums taken between; two of the same name too."""
    monkeypatch.setattr(rollups, "STEP", 50)
    ledgers = [made(name) for name in ("r1", "r2", "r3", "r3")]
    start = threading.Barrier(len(ledgers))
    failed: list[Exception] = []

    def book(number: int, ledger: PostgresLedger) -> None:
        try:
            start.wait(30)
            for batch in range(12):
                models = [f"m{(batch * 7 + n * (number + 1)) % 40}" for n in range(30)]
                ledger.commit([call(model=model, tags=[model]) for model in models], {f"{number}": batch})
                if batch % 4 == 3:
                    ledger.tidy_calls(Keep(), time.time())
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=book, args=each) for each in enumerate(ledgers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert ledgers[0].usage(())[0]["calls"] == 4 * 12 * 30
    assert sum(row["calls"] for row in ledgers[1].usage(("tag",))) == 4 * 12 * 30


def test_sums_are_only_ever_appended_to(made: Callable[[str], PostgresLedger], url: str) -> None:
    """No replica waits for a row that another one changes."""
    ledgers = [made(name) for name in ("r1", "r2")]
    refuse = "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE ''changed''; END'"
    ask(url, refuse)
    for table in ("entries", "hours", "days", "tag_hours", "tag_days"):
        ask(url, f"CREATE TRIGGER r BEFORE UPDATE ON {table} FOR EACH ROW EXECUTE FUNCTION refuse()")
    for ledger in ledgers:
        ledger.commit([call(tags=["a"])], {})
        for ahead in (0, 1, 2):
            ledger.tidy_calls(Keep(), time.time() + ahead * DAY)
    assert ledgers[0].usage(("tag",))[0]["calls"] == 2
    with pytest.raises(psycopg.Error, match="changed"):
        ask(url, "UPDATE days SET calls = 7")


def test_two_that_start_at_once_migrate_once(url: str) -> None:
    failed: list[Exception] = []
    start = threading.Barrier(6)

    def run(number: int) -> None:
        ledger = PostgresLedger(url, f"r{number % 3}")
        try:
            start.wait(30)
            ledger.open()
        except Exception as error:
            failed.append(error)
        ledger.close()

    threads = [threading.Thread(target=run, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert ask(url, "SELECT version FROM version") == [(len(schema.MIGRATIONS),)]
    assert len(ask(url, "SELECT id FROM replicas")) == 3


def test_a_database_of_a_newer_version_is_left_alone(made: Callable[[str], PostgresLedger], url: str) -> None:
    made("r1").close()
    ask(url, "UPDATE version SET version = 99")
    with pytest.raises(LedgerError, match=r"newer version of penstock \(ledger version 99, this one knows"):
        PostgresLedger(url, "r1").open()


def test_an_older_database_is_migrated_and_one_that_fails_stays(
    made: Callable[[str], PostgresLedger], url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made("r1").commit([call()], {})
    broken = (*schema.MIGRATIONS, ("ALTER TABLE hours ADD COLUMN extra TEXT", "SELECT * FROM nowhere"))
    monkeypatch.setattr(schema, "MIGRATIONS", broken)
    with pytest.raises(LedgerError, match="nowhere"):
        PostgresLedger(url, "r1").open()
    assert ask(url, "SELECT version FROM version") == [(len(broken) - 1,)]
    monkeypatch.setattr(schema, "MIGRATIONS", (*broken[:-1], broken[-1][:1]))
    ledger = made("r1")
    assert ledger.usage(())[0]["calls"] == 1
    assert ask(url, "SELECT extra FROM hours") == []


def test_a_server_that_was_killed_is_found_again_and_nothing_is_lost_or_doubled() -> None:
    with servers.serving() as server:
        ledger = PostgresLedger(server.database("one"), "r1")
        ledger.open()
        ledger.commit([call()] * 3, {"a": 1})
        server.kill()
        with pytest.raises(LedgerError):
            ledger.commit([call()] * 5, {"a": 2})
        with pytest.raises(LedgerError, match="can't be reached"):
            ledger.offsets()
        server.start()
        assert ledger.offsets() == {"a": 1}
        ledger.commit([call()] * 5, {"a": 2})
        assert ledger.usage(())[0]["calls"] == 8
        ledger.close()


def test_a_database_that_was_read_only_for_a_while_is_written_again(
    made: Callable[[str], PostgresLedger], url: str
) -> None:
    database = url.rpartition("/")[2]
    ledger = made("r1")
    ledger.commit([call()] * 3, {"a": 1})
    ask(url, f'ALTER DATABASE "{database}" SET default_transaction_read_only = on')
    others = f"datname = '{database}' AND pid <> pg_backend_pid()"
    ask(url, f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {others}")
    with pytest.raises(LedgerError, match="terminating connection"):
        ledger.commit([call()], {"a": 2})
    with pytest.raises(LedgerError, match="read-only"):
        ledger.commit([call()], {"a": 2})
    with psycopg.connect(url, options="-c default_transaction_read_only=off") as connection:
        connection.execute(f'ALTER DATABASE "{database}" RESET default_transaction_read_only'.encode())
    ledger.commit([call()], {"a": 2})
    assert ledger.usage(())[0]["calls"] == 4


def test_a_wait_for_a_server_that_says_nothing_any_more_is_given_up(
    made: Callable[[str], PostgresLedger], url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = made("r1")
    ledger.commit([call()] * 3, {"a": 1})
    ledger.give_up()  # nothing is waited for
    ledger.commit([call()], {"a": 2})
    mine = "datname = current_database() AND application_name = 'penstock'"
    (pid,) = ask(url, f"SELECT pid FROM pg_stat_activity WHERE {mine}")[0]
    met: list[LedgerError] = []

    def wait() -> None:
        with pytest.raises(LedgerError) as raised:
            ledger.commit([call()], {"a": 3})
        met.append(raised.value)

    waiting = threading.Thread(target=wait)
    os.kill(pid, signal.SIGSTOP)
    try:
        waiting.start()
        ledger.give_up()  # there is hope yet
        assert not met
        monkeypatch.setattr(connection, "_HOPELESS_S", 0.0)
        while waiting.is_alive():
            ledger.give_up()
            waiting.join(0.01)
    finally:
        os.kill(pid, signal.SIGCONT)
    assert met and ledger.offsets() == {"a": 2}
    ledger.commit([call()], {"a": 3})
    assert ledger.usage(())[0]["calls"] == 5


def test_a_killed_process_leaves_rows_and_offset_in_step(url: str) -> None:
    code = (
        "import itertools, sys\nfrom gateway.stores.postgres import PostgresLedger\n"
        "ledger = PostgresLedger(sys.argv[1], 'r1'); ledger.open()\n"
        "for n in itertools.count(1):\n"
        "    ledger.commit([{'id': str(n), 'ts': n}] * 50, {'a': n}); print(n, flush=True)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code, url], stdout=subprocess.PIPE)
    assert process.stdout is not None
    for _ in range(5):
        process.stdout.readline()
    process.kill()
    process.wait()
    process.stdout.close()
    ledger = PostgresLedger(url, "r1")
    ledger.open()
    assert ledger.usage(())[0]["calls"] == 50 * ledger.offsets()["a"] >= 250
    ledger.close()


@pytest.mark.parametrize(
    "address",
    [
        "postgresql://penstock:canary-7@127.0.0.1:1/none",
        "postgresql://penstock:canary%2D7@127.0.0.1:1/none",
        "postgresql://penstock:canary-7@nowhere.invalid/none",
        "postgresql://penstock:canary-7@127.0.0.1:1,127.0.0.1:2/none?sslmode=disable",
        "postgresql://penstock:canary-7@127.0.0.1:1/none?sslmode=wrong",
        "postgresql://penstock:canary-7@127.0.0.1:1/none?colour=red",
    ],
)
def test_no_password_is_in_what_is_said_of_a_database(address: str) -> None:
    ledger = PostgresLedger(address, "r1")
    with pytest.raises(LedgerError) as told:
        ledger.open()
    chain: BaseException | None = told.value
    while chain is not None:
        assert "canary" not in str(chain) and "canary" not in repr(chain)
        chain = None if chain.__suppress_context__ else chain.__cause__ or chain.__context__
    assert "penstock@" in str(told.value)


def test_without_the_driver_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(LedgerError, match=r"pip install 'penstock\[postgres\]'"):
        PostgresLedger("postgresql://penstock@127.0.0.1:1/none").open()


def test_a_text_that_postgresql_can_not_hold_loses_no_call(made: Callable[[str], PostgresLedger]) -> None:
    ledger = made("r1")
    ledger.commit([call(model="a\0b", tags=["x\0"], session="\0", reasons={"a\0": "b"})], {})
    assert ledger.usage(("model", "tag"))[0]["model"] == "a\ufffdb"


def test_a_closed_ledger_says_so(made: Callable[[str], PostgresLedger]) -> None:
    ledger = made("r1")
    ledger.close()
    ledger.close()
    with pytest.raises(LedgerError, match="is not open"):
        ledger.offsets()
