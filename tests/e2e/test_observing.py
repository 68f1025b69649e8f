"""What operators see agrees with what happened: metrics, log lines, ledger, readiness."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.gateway import KEY, Gateway, standard
from tests.e2e.provider import Provider
from tests.e2e.running import until


@pytest.fixture
def own(tmp_path: Path, provider: Provider, backup: Provider) -> Iterator[Gateway]:
    config = standard(provider.url, backup.url) + f'\n[observe]\ncalls = "{tmp_path / "calls.log"}"\n'
    with Gateway(tmp_path / "gw", config, workers=2) as gateway:
        yield gateway


def metric(gateway: Gateway, name: str, **labels: str) -> float:
    """The sum of a metric over the label sets that match."""
    total = 0.0
    for found in re.finditer(rf"(?m)^{name}(?:\{{(.*)\}})? (\S+)$", gateway.admin("/metrics")[1]):
        present = dict(re.findall(r'(\w+)="([^"]*)"', found[1] or ""))
        if all(present.get(label) == value for label, value in labels.items()):
            total += float(found[2])
    return total


def test_ledger_log_and_metrics_tell_the_same(own: Gateway, tmp_path: Path) -> None:
    for number in range(30):
        model = ("gpt-4o-mini", "fault;status=500", "saved")[number % 3]
        status, _, _ = own.post({"model": model, "messages": [], "stream": number % 2 == 0})
        assert status == (500 if "500" in model else 200)
    until("thirty rows", lambda: len(own.rows()) == 30)
    until("thirty counted", lambda: metric(own, "penstock_requests_total") == 30)
    log = tmp_path / "calls.log"  # written by a thread of its own
    until("thirty lines", lambda: log.exists() and log.read_bytes().count(b"\n") >= 30)
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    rows = {row["id"]: row for row in own.rows()}
    assert {line["id"] for line in lines} == rows.keys() and len(lines) == 30
    for line in lines:
        row = rows[line["id"]]
        assert (line["status"], line["outcome"]) == (row["status"], row["outcome"])
        assert line.get("cost_micros", 0) == row["cost_micros"]
    by_outcome = Counter(row["outcome"] for row in rows.values())
    for outcome, number in by_outcome.items():
        assert metric(own, "penstock_requests_total", outcome=outcome) == number


def test_labels_stay_few_whatever_callers_send(own: Gateway) -> None:
    own.post({"model": "gpt-4o-mini", "messages": []})
    until("counted", lambda: metric(own, "penstock_requests_total") == 1)
    before = own.admin("/metrics")[1].count("\n")
    for number in range(200):
        own.post({"model": f"made-up-{number}", "messages": []}, key=KEY)
        own.post({"model": "x", "messages": []}, key=f"sk-made-up-{number}")
    until("counted", lambda: metric(own, "penstock_requests_total") >= 201)
    after = own.admin("/metrics")[1]
    assert "made-up" not in after
    assert after.count("\n") - before < 200


def test_health_is_told_on_both_ports_without_a_key(own: Gateway) -> None:
    assert own.request("GET", "/healthz")[0] == 200
    assert own.admin("/healthz")[0] == 200
    assert own.admin("/readyz")[0] == 200
    assert own.request("GET", "/metrics")[0] != 200  # never on the data port


def test_every_time_of_a_call_is_in_its_row(own: Gateway) -> None:
    _, headers, _ = own.post({"model": "fault;delay=0.05", "messages": [], "stream": True})
    row = own.row(headers["x-request-id"])
    assert row["first_byte_us"] >= 50_000
    assert row["total_us"] >= row["first_byte_us"]
    assert 0 < row["overhead_us"] < row["total_us"]
    assert row["first_token_us"] >= row["first_byte_us"]
