"""Whatever happens to calls and processes, the books agree afterwards: ledger, provider and limits."""

from __future__ import annotations

import http.client
import itertools
import json
import os
import signal
import tempfile
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test

from tests.e2e.gateway import BACKUP_KEY, KEY, PROVIDER_KEY, Gateway
from tests.e2e.provider import Provider
from tests.e2e.raw import Conversation, request
from tests.e2e.running import until
from tests.servers.redis import Redis, found, serving

CONFIG = """
[[keys]]
name = "load"
key = "env:CALLER_KEY"
tenant = "acme"

[backends.main]
kind = "openai"
base_url = "{main}/v1"
api_key = "env:PROVIDER_KEY"
timeout = {{ connect = "1s", first = "500ms", idle = "500ms", total = "20s" }}

[backends.backup]
kind = "openai"
base_url = "{backup}/v1"
api_key = "env:BACKUP_KEY"

[models."*"]
targets = [ {{ backend = "main" }} ]

[models."saved-*"]
targets = [ {{ backend = "main" }} ]
fallback = [ {{ backend = "backup" }} ]

[prices."*-m"]
input = 2.5
cached_input = 1.25
output = 10.0

[[limits]]
name = "tokens"
scope = "key"
tokens = {tokens}
per = "1d"

[[limits]]
scope = "tenant"
usd = 1000
per = "calendar month"

[[limits]]
name = "places"
scope = "key"
concurrent = {concurrent}
"""

CONCURRENT = 6
TOKEN = "psa-bad-days-0123456789"

# What the provider does to a model's calls, by the model's name.
FAULTS = {
    "bad": "status=400",
    "broken": "status=500",
    "saved-500": "status=500",
    "saved-429": "status=429;retry_after=1",
    "late": "delay=0.9",
    "dies": "die_after=3",
    "stalls": "stall_after=2",
    "garbage": "garbage",
    "silent": "no_usage",
    "error": "error_after=2",
    "slow": "interval=0.02;tokens=40",
}
KINDS = ("ok", "saved-ok", *FAULTS)


def cost(usage: dict[str, int]) -> int:
    """Micro-dollars of a usage at CONFIG's prices, rounded half up."""
    quarter = usage["input"] * 10 + usage["cached_input"] * 5 + (usage["output"] + usage["reasoning"]) * 40
    return (quarter + 2) // 4


class BadDays(RuleBasedStateMachine):
    """One appliance of two workers, two providers, and everything that can go wrong with them."""

    main: Provider
    backup: Provider
    root: Path

    def __init__(self) -> None:
        super().__init__()
        for provider in (self.main, self.backup):
            provider.reset()
        for kind, fault in FAULTS.items():
            self.main.spoil(fault, model=f"{kind}-*")
        self.numbers = itertools.count()
        self.tokens = 50_000_000
        self.kills = 0
        self.whole: set[str] = set()
        self.open: list[Conversation] = []
        self.gateway = Gateway(
            Path(tempfile.mkdtemp(dir=self.root)) / "gw",
            self.config(),
            workers=2,
            env={"PENSTOCK_ADMIN_TOKEN": TOKEN},
        )

    def config(self) -> str:
        """gateway.toml as it is now."""
        return CONFIG.format(
            main=self.main.url, backup=self.backup.url, tokens=self.tokens, concurrent=CONCURRENT
        )

    def document(self, kind: str, stream: bool, **more: Any) -> dict[str, Any]:
        """A call whose model's name nobody else uses."""
        name = f"{kind}-{next(self.numbers)}-m"
        return {"model": name, "messages": [{"role": "user", "content": "hi " * 9}], "stream": stream, **more}

    # -- what clients do

    @rule(kind=st.sampled_from(KINDS), stream=st.booleans(), most=st.sampled_from([0, 5, 400]))
    def ask(self, kind: str, stream: bool, most: int) -> None:
        """One call to its end, whatever that is."""
        document = self.document(kind, stream, **({"max_tokens": most} if most else {}))
        with Conversation(self.gateway.url, 60) as talk:
            talk.send(request(document, KEY, Connection="close"))
            answer = talk.rest()
        assert answer[9:12] in (b"200", b"400", b"429", b"500", b"502", b"503", b"504"), answer[:300]
        ended = answer.endswith(b"0\r\n\r\n" if b"chunked" in answer[:2000].lower() else b"}")
        told = b'"upstream_' in answer or b'"policy_' in answer or b'"gateway_' in answer or kind == "error"
        if answer[9:12] == b"200" and ended and not told:
            self.whole.add(document["model"])

    @rule(kind=st.sampled_from(["slow", "late", "stalls", "ok"]), size=st.integers(0, 1500))
    def leave(self, kind: str, size: int) -> None:
        """A client that goes after so many bytes."""
        with Conversation(self.gateway.url, 60) as talk:
            talk.send(request(self.document(kind, True), KEY))
            if size and kind != "late":
                talk.until(b"data: ", 1 + size // 600)

    @precondition(lambda self: len(self.open) < CONCURRENT - 1)
    @rule()
    def begin(self) -> None:
        """A stream that is still open while other things happen."""
        talk = Conversation(self.gateway.url, 60)
        talk.send(request(self.document("slow", True), KEY, Connection="close"))
        self.open.append(talk)

    @rule()
    def finish(self) -> None:
        """Streams that are open come to their end, one or another."""
        for talk in self.open:
            talk.rest()
            talk.leave()
        self.open.clear()

    # -- what happens to the appliance

    @rule(which=st.integers(0, 1))
    def kill_a_worker(self, which: int) -> None:
        """SIGKILL."""
        self.kills += 1
        pids = self.gateway.worker_pids()
        os.kill(pids[which % len(pids)], signal.SIGKILL)
        until("it is replaced", lambda: len(self.gateway.worker_pids()) == 2 and self.gateway.ready())

    @rule()
    def kill_the_supervisor(self) -> None:
        """SIGKILL, and a new one on the same data while old workers still drain."""
        self.gateway.signal(signal.SIGKILL)
        self.gateway.wait()
        self.gateway.start()
        self.gateway.wait_ready()

    @rule(tokens=st.sampled_from([60_000_000, 40_000_000, 1_000]))
    def change_the_limit(self, tokens: int) -> None:
        """Lowered, even below what is used, or raised."""
        self.tokens = tokens
        self.gateway.write(self.config())

    @rule()
    def revoke_a_key_in_midstream(self) -> None:
        """The stream may end; the key is refused within a second."""
        name = f"short-{next(self.numbers)}"
        secret = self.gateway.command("keys", "add", name).split()[0]
        document = self.document("slow", True)
        until("the key is known", lambda: self.status(secret) != 401)
        with Conversation(self.gateway.url, 60) as talk:
            talk.send(request(document, secret, Connection="close"))
            talk.until(b"\r\n\r\n")
            self.gateway.command("keys", "revoke", name)
            talk.rest()
        until("the key is refused", lambda: self.status(secret) == 401)

    def status(self, key: str) -> int:
        """How a small call with a key is answered."""
        return self.gateway.post(self.document("bad", False, max_tokens=1), key=key, patient=False)[0]

    # -- what must hold

    def teardown(self) -> None:
        try:
            self.finish()
            self.tokens = 50_000_000
            self.gateway.write(self.config())
            arrived = self.compare()
            self.nothing_is_held()
            assert arrived >= len(self.whole)
        finally:
            self.gateway.stop()

    def compare(self) -> int:
        """One row for each call that reached a provider, with what the provider says it used."""
        arrived = {one.model: one for one in self.main.journal()}
        backed = {one.model: one for one in self.backup.journal()}
        until("a row for each", lambda: arrived.keys() <= {row["model"] for row in self.gateway.rows()})
        rows = self.gateway.rows()
        assert [name for name, number in Counter(row["model"] for row in rows).items() if number > 1] == []
        by_model = {row["model"]: row for row in rows}
        for name in self.whole:
            row, truth = by_model[name], backed.get(name) or arrived[name]
            assert row["outcome"] == "ok", row
            if not name.startswith("silent"):
                assert {kind: row[kind] for kind in truth.usage} == truth.usage
                assert row["cost_micros"] == cost(truth.usage)
        for row in rows:
            assert all(value >= 0 for value in row.values() if isinstance(value, int)), row
            assert row["outcome"] != "abandoned" or row["hold_tokens"] > 0
        return len(arrived)

    def nothing_is_held(self) -> None:
        """All places are free again, and the limits have counted what the ledger has booked."""
        until("no lease is left", lambda: not any(b["leased"] for b in self.buckets("places")))
        until("the books agree", self.agree)
        until("all places are free", self.places_are_free)

    def places_are_free(self) -> bool:
        """Whether as many calls as are allowed at once are let in, and not one more."""
        slow = [Conversation(self.gateway.url, 60) for _ in range(CONCURRENT)]
        for talk in slow:
            talk.send(request(self.document("slow", True), KEY))
            talk.until(b"\r\n\r\n")
        more = self.gateway.post(self.document("ok", False), patient=False)[0]
        for talk in slow:
            talk.leave()
        return more == 429 and all(talk.received.startswith(b"HTTP/1.1 200") for talk in slow)

    def agree(self) -> bool:
        """To the token, but for calls that were charged a worker's estimate and are booked as counted.

        A call that ends in the last milliseconds before its worker is killed may be counted twice.
        """
        used = sum(bucket["used"] for bucket in self.buckets("tokens"))
        off = abs(used - self.charged())
        guessed = [row for row in self.gateway.rows() if row["usage_source"] in ("estimated", "counted")]
        return bool(off <= 150 * (len(guessed) + self.kills))

    def buckets(self, limit: str) -> list[dict[str, Any]]:
        """How the buckets of a limit stand."""
        with closing(http.client.HTTPConnection("127.0.0.1", self.gateway.admin_port, timeout=30)) as talk:
            talk.request("GET", f"/admin/v1/limits/{limit}", headers={"authorization": f"Bearer {TOKEN}"})
            found: list[dict[str, Any]] = json.loads(talk.getresponse().read())["buckets"]["data"]
        assert all(bucket["used"] >= 0 and bucket["leased"] >= 0 for bucket in found), found
        return found

    def charged(self) -> int:
        """What the ledger says was used; where nobody knows, what was held."""
        kinds = ("input", "cached_input", "cache_write", "audio_input", "output", "reasoning", "audio_output")
        total = 0
        for row in self.gateway.rows("outcome <> 'refused'"):
            known = row["usage_source"] != "unknown"
            total += sum(row[kind] for kind in kinds) if known else row["hold_tokens"]
        return total


class BadDaysOfAStore(BadDays):
    """The same with limits in a Redis, which is killed, comes back empty, or just stops to answer."""

    store: Redis

    def config(self) -> str:
        return f'[state]\nshared = "{self.store.url}"\n' + super().config()

    @rule()
    def kill_the_store(self) -> None:
        """It is gone, with all that it knew."""
        self.store.kill()

    @rule()
    def restore_the_store(self) -> None:
        """It is back, empty."""
        self.store.kill()
        self.store.start()

    def teardown(self) -> None:
        self.restore_the_store()
        super().teardown()


def run(machine: type[BadDays], folder: Path, examples: int) -> None:
    """So many bad days; the same ones each time, unless BAD_DAYS asks for others."""
    machine.root = folder
    with (
        Provider(folder, PROVIDER_KEY) as BadDays.main,
        Provider(folder, BACKUP_KEY, "backup") as BadDays.backup,
    ):
        run_state_machine_as_test(
            machine,
            settings=settings(
                max_examples=int(os.environ.get("BAD_DAYS", examples)),
                stateful_step_count=12,
                deadline=None,
                derandomize="BAD_DAYS" not in os.environ,
                phases=[Phase.generate],
                suppress_health_check=list(HealthCheck),
            ),
        )


@pytest.mark.timeout(600)
def test_after_any_bad_day_the_books_agree(tmp_path: Path) -> None:
    run(BadDays, tmp_path, 2)


@pytest.mark.timeout(600)
@pytest.mark.skipif(found() is None, reason="needs redis-server")
def test_after_any_bad_day_of_a_shared_store_the_books_agree(tmp_path: Path) -> None:
    with serving() as BadDaysOfAStore.store:
        run(BadDaysOfAStore, tmp_path, 2)
