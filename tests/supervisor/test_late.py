"""Calls that an earlier supervisor's workers finish count in windows that began without them."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

from gateway.core.limit import LimitRule, Spent
from gateway.core.sheet import tabulated
from gateway.stores.sqlite import SqliteLedger
from gateway.supervisor.late import inherited, spent
from gateway.supervisor.limits import Limits

TOKENS = LimitRule("t", ("key",), "tokens", 1000, 60.0)
RULES = (TOKENS, LimitRule("r", ("tenant", "tag"), "requests", 10, 60.0, match="acme/*"))


def call(worker: int, **more: Any) -> dict[str, Any]:
    known = {"id": "r", "ts": 1, "key": "k", "tenant": "acme", "tags": ["a", "b"], "outcome": "ok"}
    return {**known, "worker": worker, "input": 30, "output": 12, "usage_source": "provider", **more}


def limits(ledger: SqliteLedger, *rules: LimitRule) -> Limits:

    async def here(work: Any) -> list[Spent]:
        return list(work())

    made = Limits(rules or RULES, ledger, here, lambda worker, message: None)
    asyncio.run(made.restore())
    return made


def used(made: Limits, *rules: LimitRule) -> dict[str, int]:
    return {
        f"{rule.id}|{each['value']}": each["used"]
        for rule in rules or RULES
        for each in made.standings(rule.id)
    }


def test_only_calls_of_earlier_workers_are_charged(tmp_path: Path) -> None:
    ledger = SqliteLedger(tmp_path / "ledger.sqlite")
    ledger.open()
    made = limits(ledger)
    ledger.close()
    made.earlier = frozenset({3})
    made.posted(tabulated([call(3), call(4), call(3, outcome="refused"), call(3, tags=[])]))
    assert used(made) == {"t|k": 84, "r|acme/a": 1, "r|acme/b": 1}


def test_a_call_nobody_knows_the_usage_of_counts_its_hold() -> None:
    record = call(3, usage_source="unknown", hold_tokens=500, hold_micros=7)
    assert [(row.value, row.tokens, row.micros) for row in spent(TOKENS, record)] == [("k", 500, 7)]


def test_earlier_workers_are_those_whose_journals_were_there(tmp_path: Path) -> None:
    for name in ("old-3", "old-12", "mine-13", "old-x"):
        (tmp_path / name).mkdir()
    assert inherited(tmp_path, "mine") == {3, 12}


def test_limits_of_keys_by_name_begin_with_what_was_used_and_what_comes_late(tmp_path: Path) -> None:
    named = LimitRule("n", ("tenant", "key"), "requests", 10, 3600.0, match="acme/ci-*")
    named_alone = LimitRule("a", ("key",), "requests", 10, 86_400.0, match="ci-*")
    now = int(time.time() * 1000)
    calls = [
        call(3, ts=now, key="key_1", key_name="ci-one"),
        call(3, ts=now, key="key_2", key_name="other"),
        call(3, ts=now, key="key_3", key_name="ci-two"),
    ]
    ledger = SqliteLedger(tmp_path / "ledger.sqlite")
    ledger.open()
    ledger.commit(calls, {})
    made = limits(ledger, named, named_alone)
    expected = {"n|acme/key_1": 1, "n|acme/key_3": 1, "a|key_1": 1, "a|key_3": 1}
    assert used(made, named, named_alone) == expected
    made.earlier = frozenset({3})
    made.posted(tabulated(calls))
    ledger.close()
    assert used(made, named, named_alone) == {bucket: 2 for bucket in expected}


def test_what_was_counted_of_a_call_beyond_its_estimate_is_charged_too(tmp_path: Path) -> None:
    ledger = SqliteLedger(tmp_path / "ledger.sqlite")
    ledger.open()
    output, money = (
        LimitRule("o", ("key",), "output_tokens", 1000, 60.0),
        LimitRule("d", ("tag",), "usd", 10**6, 60.0),
    )
    made = limits(ledger, TOKENS, output, money)
    ledger.close()
    before = call(4, input=44, output=20, cost_micros=100)
    made.recounted(
        [
            (before, call(4, input=3, output=90, cost_micros=130)),
            (before, call(4, input=3, output=20, cost_micros=60)),
        ]
    )
    assert used(made, TOKENS, output, money) == {"t|k": 29, "o|k": 70, "d|a": 30, "d|b": 30}


def test_what_is_charged_when_it_is_booked_is_not_charged_again_as_recounted(tmp_path: Path) -> None:
    ledger = SqliteLedger(tmp_path / "ledger.sqlite")
    ledger.open()
    made = limits(ledger, TOKENS)
    ledger.close()
    made.earlier = frozenset({3})
    made.recounted([(call(3), call(3, output=100))])
    assert used(made, TOKENS) == {}


def test_what_the_gateway_answered_itself_was_charged_nothing_and_is_not_after_a_restart(
    tmp_path: Path,
) -> None:
    now = int(time.time() * 1000)
    rules = [LimitRule(f"r{per}", ("key",), "requests", 10, per) for per in (60.0, 86_400.0)]
    rules.append(LimitRule("rday", ("key",), "requests", 10, calendar="month"))
    own = {"ts": now, "endpoint": "models", "method": "GET", "usage_source": "none", "input": 0, "output": 0}
    calls = [call(3, **own), call(3, **own, backend="up"), call(3, **own, outcome="client_gone")]
    ledger = SqliteLedger(tmp_path / "ledger.sqlite")
    ledger.open()
    ledger.commit(calls, {})
    made = limits(ledger, *rules)
    ledger.close()
    assert set(used(made, *rules).values()) == {1}
    made.earlier = frozenset({3})
    made.posted(tabulated(calls))
    assert set(used(made, *rules).values()) == {2}
