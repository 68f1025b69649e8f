"""The whole gateway with its ledger in PostgreSQL, which is killed while calls go on."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.e2e.gateway import KEY, Gateway, digest
from tests.e2e.running import ROOT, until
from tests.servers import postgres as servers

CONFIG = f"""
[state]
ledger = "env:LEDGER_URL"

[[keys]]
name = "ci"
hash = "{digest(KEY)}"

[backends.echo]
kind = "echo"

[models."*"]
targets = [{{ backend = "echo" }}]
"""


@pytest.fixture(scope="module")
def server() -> Iterator[servers.Postgres]:
    if servers.found() is None:
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
    with servers.serving() as server:
        yield server


def say(gateway: Gateway, count: int) -> None:
    with gateway.client() as client:
        for _ in range(count):
            client.chat.completions.create(model="any", messages=[{"role": "user", "content": "Hi"}])


def lag(gateway: Gateway) -> float:
    lines = gateway.admin("/metrics")[1].splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith("penstock_ledger_lag_seconds "))


def booked(url: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(url) as connection:
        return connection.execute("SELECT id, outcome, replica FROM penstock.calls").fetchall()


def test_calls_outlive_a_killed_database_and_are_booked_once(
    server: servers.Postgres, tmp_path: Path
) -> None:
    url = server.database("e2e_kill")
    gateway = Gateway(tmp_path, CONFIG, workers=2, env={"LEDGER_URL": url})
    try:
        say(gateway, 10)
        server.kill()
        say(gateway, 20)
        until("the ledger is missed", lambda: lag(gateway) > 0)
        server.start()
        until("the ledger is written again", lambda: lag(gateway) == 0)
        say(gateway, 10)
        gateway.stop(30)  # all is booked
    finally:
        gateway.stop()
    rows = booked(url)
    assert len(rows) == len({row[0] for row in rows}) == 40
    assert {row[1] for row in rows} == {"ok"} and len({row[2] for row in rows}) == 1


def test_commands_read_what_replicas_wrote_and_never_show_the_url(
    server: servers.Postgres, tmp_path: Path
) -> None:
    url = server.database("e2e_two").replace("postgres@", "postgres:canary-password@")
    gateways = [Gateway(tmp_path / name, CONFIG, env={"LEDGER_URL": url}) for name in ("a", "b")]
    try:
        for gateway in gateways:
            say(gateway, 5)
            gateway.stop(30)
    finally:
        for gateway in gateways:
            gateway.stop()
    command = [sys.executable, "-m", "gateway", "usage", "--by", "model", "-c", str(gateways[0].path)]
    env = {"LEDGER_URL": url, "PYTHONPATH": str(ROOT), "CALLER_KEY": KEY}
    ran = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    assert "any" in ran.stdout and " 10 " in ran.stdout
    assert len({row[2] for row in booked(url)}) == 2
    ran = subprocess.run(
        command, env={**env, "LEDGER_URL": url.replace(str(server.port), "1")}, capture_output=True, text=True
    )
    assert ran.returncode == 1 and "can't be reached" in ran.stderr
    assert "canary-password" not in ran.stdout + ran.stderr + "".join(each.output() for each in gateways)


def test_without_its_database_the_gateway_says_so_and_does_not_start(tmp_path: Path) -> None:
    url = "postgresql://penstock:canary-password@127.0.0.1:1/penstock"
    gateway = Gateway(tmp_path, CONFIG, env={"LEDGER_URL": url}, ready=False)
    try:
        until("it gives up", lambda: not gateway.alive)
        assert "the ledger can't be used" in gateway.output() and "can't be reached" in gateway.output()
        assert "canary-password" not in gateway.output()
    finally:
        gateway.stop()


def test_old_calls_go_by_the_configuration_and_sums_stay(server: servers.Postgres, tmp_path: Path) -> None:
    url = server.database("e2e_keep")
    gateway = Gateway(tmp_path, CONFIG, env={"LEDGER_URL": url})
    try:
        say(gateway, 3)
        gateway.stop(30)
        with psycopg.connect(url, options="-c search_path=penstock") as connection:
            (name,) = connection.execute(
                "SELECT DISTINCT tableoid::regclass::text FROM entries"
            ).fetchone() or ("",)
            day = connection.execute("SELECT max(day) FROM entries").fetchone() or (0,)
            # The same partition, as if it had been booked ten days ago.
            connection.execute(f"ALTER TABLE entries DETACH PARTITION {name}".encode())
            connection.execute(f"UPDATE {name} SET day = day - 10".encode())
            connection.execute(f"ALTER TABLE {name} RENAME TO entries_20000101".encode())
            connection.execute(
                f"ALTER TABLE entries ATTACH PARTITION entries_20000101"
                f" FOR VALUES FROM ({day[0] - 10}) TO ({day[0] - 9})".encode()
            )
        gateway.write(CONFIG.replace("[state]", '[state]\nkeep = { calls = "2d" }'))
        gateway.start()
        gateway.wait_ready()
        until("the old day is gone", lambda: not booked(url))
        assert " 3 " in gateway.command("usage", "--by", "model")
    finally:
        gateway.stop()
