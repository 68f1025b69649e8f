"""The audit and the directory on real appliances: killed, flooded, several at once."""

from __future__ import annotations

import http.client
import json
import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.gateway import KEY, Gateway
from tests.e2e.running import until
from tests.servers import postgres as databases
from tests.servers import redis as servers

CALL = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Hello"}]}
KEYED = '[[keys]]\nname = "caller"\nkey = "env:CALLER_KEY"\n'
FEW = KEYED + '[[limits]]\nname = "few"\nscope = "key"\nrequests = 3\nper = "1h"\n'


def audit(gateway: Gateway) -> list[dict[str, Any]]:
    return [json.loads(line) for line in gateway.command("audit", "export").splitlines()]


def actions(gateway: Gateway) -> list[str]:
    return [record["action"] for record in audit(gateway)]


def verified(gateway: Gateway) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(gateway.command("audit", "verify", "--json", check=False))
    assert found["whole"], found
    return found


def test_start_reloads_refused_ones_too_and_stop_are_in_the_audit(tmp_path: Path) -> None:
    with Gateway(tmp_path, KEYED) as gateway:
        gateway.write(FEW)
        until("the reload is noted", lambda: "config.reload" in actions(gateway))
        gateway.write("nonsense = 1")
        until("the fault is told", lambda: "configuration is unchanged" in gateway.output())
        gateway.write(FEW)
        until("the fault is noted", lambda: "config.refuse" in actions(gateway))
        gateway.signal(signal.SIGTERM)
        assert gateway.wait() == 0
        records = audit(gateway)
        assert [record["action"] for record in records] == [
            "audit.begin", "appliance.start", "config.reload", "config.refuse", "appliance.stop",
        ]  # fmt: skip
        assert "nonsense" in records[3]["detail"]["why"] and records[4]["detail"]["orderly"] is True
        assert records[2]["before"]["revision"] == records[1]["revision"] != records[2]["after"]["revision"]
        verified(gateway)
        head = json.loads((tmp_path / "data" / "audit.head").read_text())
        assert (head["n"], head["hash"]) == (5, records[4]["hash"])


def test_every_refusal_is_counted_once_though_the_supervisor_is_killed_again_and_again(
    tmp_path: Path,
) -> None:
    with Gateway(tmp_path, FEW, workers=2) as gateway:
        refused, stop = [0], threading.Event()

        def call() -> None:
            while not stop.is_set():
                try:
                    refused[0] += gateway.post(CALL, patient=False)[0] == 429
                except (OSError, http.client.HTTPException):
                    stop.wait(0.01)

        for turn in range(3):
            stop.clear()
            caller = threading.Thread(target=call)
            caller.start()
            until("some are refused", lambda least=20 * (turn + 1): refused[0] >= least)  # type: ignore[misc]
            gateway.process.kill()
            gateway.wait()
            stop.set()
            caller.join()
            gateway.stop()
            gateway.start()
            gateway.wait_ready()
        booked = lambda: len(gateway.rows("code = 'policy_rate_limited'"))  # noqa: E731
        until("all that was answered is booked", lambda: booked() >= refused[0])
        gateway.signal(signal.SIGTERM)
        gateway.wait()
        rows = booked()
        records = [record for record in audit(gateway) if record["action"].startswith("call.refuse")]
        counted = [record["detail"].get("count", 1) for record in records]
        # What the running minute has beyond its first records is still to be stated.
        import sqlite3

        db = sqlite3.connect(tmp_path / "data" / "ledger.sqlite")
        ((pending,),) = db.execute("SELECT coalesce(sum(more), 0) FROM refusals").fetchall()
        db.close()
        assert sum(counted) + pending == rows
        assert {record["target"] for record in records} == {"limit/few"}
        assert {record["actor"]["name"] for record in records if record["action"] == "call.refuse"} == {
            "caller"
        }
        verified(gateway)


# ---------------------------------------------------------------------- several appliances


@pytest.fixture
def redis() -> Iterator[servers.Redis]:
    if servers.found() is None:
        pytest.skip("no Redis: apt-get install redis-server")
    with servers.serving() as server:
        yield server


@pytest.fixture
def pair(tmp_path: Path, redis: servers.Redis) -> Iterator[tuple[Gateway, Gateway]]:
    """Two appliances with a ledger each."""
    config = f'{KEYED}[state]\nshared = "{redis.url}"\n'
    with ExitStack() as stack:
        one, two = [
            stack.enter_context(Gateway(tmp_path / name, config, workers=2)) for name in ("one", "two")
        ]
        yield one, two


def made(gateway: Gateway, name: str) -> str:
    key: str = json.loads(gateway.command("keys", "add", name, "--json"))["key"]
    return key


def answers(gateway: Gateway, key: str, status: int) -> bool:
    """Whether each of many connections, and so every worker, answers so."""
    return all(gateway.post(CALL, key=key)[0] == status for _ in range(12))


def test_a_key_that_one_appliance_made_or_revoked_is_so_at_all(pair: tuple[Gateway, Gateway]) -> None:
    one, two = pair
    key = made(one, "ci")
    until("both know it", lambda: answers(one, key, 200) and answers(two, key, 200))
    two.command("keys", "revoke", "ci")
    until("both refuse it", lambda: answers(one, key, 401) and answers(two, key, 401))
    assert answers(one, KEY, 200) and answers(two, KEY, 200)
    for gateway in pair:
        verified(gateway)


@pytest.fixture
def shared_ledger(tmp_path: Path, redis: servers.Redis) -> Iterator[tuple[Gateway, Gateway]]:
    """Two appliances with one ledger in PostgreSQL."""
    if databases.found() is None:
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
    with ExitStack() as stack:
        url = stack.enter_context(databases.serving()).url
        config = f'{KEYED}[state]\nledger = "{url}"\nshared = "{redis.url}"\n'
        one, two = [
            stack.enter_context(Gateway(tmp_path / name, config, workers=2)) for name in ("one", "two")
        ]
        yield one, two


def test_appliances_with_one_ledger_know_the_same_keys_and_have_a_chain_each(
    shared_ledger: tuple[Gateway, Gateway],
) -> None:
    one, two = shared_ledger
    key = made(one, "ci")
    until("both know it", lambda: answers(one, key, 200) and answers(two, key, 200))
    two.command("keys", "revoke", "ci")
    until("both refuse it", lambda: answers(one, key, 401) and answers(two, key, 401))
    chains = verified(one)["chains"]
    assert len(chains) == 2 and chains.keys() == verified(two)["chains"].keys()


def test_it_is_so_after_lost_messages_and_a_store_that_was_away(
    pair: tuple[Gateway, Gateway], redis: servers.Redis
) -> None:
    one, two = pair
    key = made(one, "ci")
    until("both know it", lambda: answers(two, key, 200))
    redis.ask("CLIENT", "KILL", "TYPE", "pubsub")
    other = made(two, "other")
    until("the first knows the other", lambda: answers(one, other, 200))
    redis.kill()
    one.command("keys", "revoke", "ci")
    until("who was asked refuses it", lambda: answers(one, key, 401))
    redis.start()
    until("both refuse it", lambda: answers(two, key, 401))


def test_a_key_revoked_just_before_a_kill_is_refused_everywhere_after_the_next_start(
    pair: tuple[Gateway, Gateway],
) -> None:
    one, two = pair
    key = made(one, "ci")
    until("both know it", lambda: answers(two, key, 200))
    one.signal(signal.SIGSTOP)  # it commits, and announces nothing
    one.command("keys", "revoke", "ci")
    one.process.kill()
    one.wait()
    one.stop()
    assert answers(two, key, 200)
    one.start()
    one.wait_ready()
    until("both refuse it", lambda: answers(one, key, 401) and answers(two, key, 401))
