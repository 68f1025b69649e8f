"""What `/metrics` says about calls, workers and the supervisor, and that it stays bounded."""

from __future__ import annotations

import re
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse

from gateway.core.record import FIELDS
from gateway.observe import series
from gateway.observe.cell import LABELS, histogram, observe
from gateway.observe.metrics import Metrics
from gateway.observe.series import Series

CALL = {
    "endpoint": "chat/completions",
    "model": "typed-by-the-client",
    "alias": "gpt-*",
    "backend": "openai",
    "status": 200,
    "outcome": "ok",
    "code": "",
    "tries": 1,
    "input": 100,
    "cached_input": 20,
    "output": 30,
    "reasoning": 7,
    "usage_source": "provider",
    "cost_micros": 1234,
    "queue_us": 40,
    "first_byte_us": 2_400,
    "first_token_us": 0,
    "total_us": 3_000,
    "overhead_us": 120,
}


def text(metrics: Metrics) -> str:
    return metrics.render()[1].decode()


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    for family in parse(text(metrics)):
        for sample in family.samples:
            if sample.name == name and sample.labels == labels:
                return sample.value
    return None


def declared() -> list[Series]:
    found = [item for item in vars(series).values() if isinstance(item, Series)]
    return [
        *found,
        *series.WORKER_GAUGES.values(),
        *series.WORKER_COUNTERS.values(),
        *series.OWN_COUNTERS.values(),
    ]


def test_every_field_that_is_folded_is_a_field_of_the_record() -> None:
    assert set(LABELS) | set(CALL) <= set(FIELDS)


def test_a_call_is_counted_under_the_configured_name_and_never_under_what_the_client_typed() -> None:
    metrics = Metrics("1")
    metrics.records([CALL, CALL])
    labels = {
        "endpoint": "chat/completions",
        "model": "gpt-*",
        "backend": "openai",
        "status": "200",
        "outcome": "ok",
    }
    assert value(metrics, "penstock_requests_total", **labels) == 2
    assert "typed-by-the-client" not in text(metrics)


def test_tokens_are_counted_by_disjoint_kind_and_money_in_dollars() -> None:
    metrics = Metrics()
    metrics.records([CALL] * 3)
    where = {"model": "gpt-*", "backend": "openai"}
    kinds = {"input": 300, "cached_input": 60, "output": 90, "reasoning": 21}
    for kind, count in kinds.items():
        assert value(metrics, "penstock_tokens_total", **where, kind=kind) == count
    assert value(metrics, "penstock_cost_usd_total", **where) == 0.003702
    assert value(metrics, "penstock_usage_source_total", source="provider") == 3


def test_times_land_in_cumulative_buckets_of_seconds() -> None:
    metrics = Metrics()
    metrics.records([CALL, {**CALL, "total_us": 5_000}, {**CALL, "total_us": 700_000_000}])
    where = {"endpoint": "chat/completions", "model": "gpt-*"}
    name = "penstock_request_duration_seconds"
    assert value(metrics, f"{name}_bucket", **where, le="0.0025") == 0
    assert value(metrics, f"{name}_bucket", **where, le="0.005") == 2
    assert value(metrics, f"{name}_bucket", **where, le="600.0") == 2
    assert value(metrics, f"{name}_bucket", **where, le="+Inf") == 3
    assert value(metrics, f"{name}_count", **where) == 3
    assert value(metrics, f"{name}_sum", **where) == 700.008


def test_a_time_that_was_never_measured_is_not_observed_as_zero() -> None:
    metrics = Metrics()
    metrics.record(CALL)
    assert "penstock_first_token_seconds_count" not in text(metrics)


def test_sums_over_labels_that_a_series_lacks_stay_whole() -> None:
    metrics = Metrics()
    refused = {"status": 429, "outcome": "refused", "code": "policy_rate_limited"}
    metrics.records([CALL, {**CALL, **refused}, {**CALL, "backend": "azure", "tries": 3}])
    name = "penstock_request_duration_seconds_count"
    assert value(metrics, name, endpoint="chat/completions", model="gpt-*") == 3
    assert value(metrics, "penstock_fallbacks_total", model="gpt-*", backend="azure") == 2
    assert value(metrics, "penstock_errors_total", code="policy_rate_limited") == 1


def test_an_abandoned_record_without_most_fields_counts() -> None:
    metrics = Metrics()
    metrics.record(
        {"id": "x", "outcome": "abandoned", "code": "gateway_worker_died", "usage_source": "unknown"}
    )
    assert value(metrics, "penstock_errors_total", code="gateway_worker_died") == 1
    assert value(metrics, "penstock_usage_source_total", source="unknown") == 1


def test_foreign_codes_outcomes_and_statuses_do_not_become_labels() -> None:
    metrics = Metrics()
    metrics.record({**CALL, "code": "evil\ncode", "outcome": "nonsense", "status": 99_999})
    assert value(metrics, "penstock_errors_total", code="other") == 1
    assert "evil" not in text(metrics)
    assert 'outcome="other",status="none"' in text(metrics)


def test_the_number_of_series_is_capped_and_what_was_folded_is_counted() -> None:
    metrics = Metrics()
    for model in range(300):
        for backend in range(10):
            metrics.record({**CALL, "alias": f"m{model}", "backend": f"b{backend}", "first_token_us": 9})
    lines = [line for line in text(metrics).splitlines() if not line.startswith("#")]
    assert len(lines) < 50_000
    counted = sum(
        float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith("penstock_requests_total")
    )
    assert counted == 3_000
    (folded,) = [line for line in lines if line.startswith("penstock_metrics_folded_total")]
    assert float(folded.rsplit(" ", 1)[1]) >= 1_000


@given(st.dictionaries(st.sampled_from([name for name in LABELS if name != "status"]), st.text(max_size=20)))
def test_no_label_value_breaks_the_exposition(labels: dict[str, Any]) -> None:
    metrics = Metrics()
    metrics.record({**CALL, **labels})
    families = {family.name for family in parse(text(metrics))}
    assert "penstock_requests" in families


def test_a_worker_that_has_gone_takes_its_gauges_but_not_its_counts() -> None:
    metrics = Metrics()
    metrics.stat(1, {"inflight": 3, "connections": 9, "lag_s": 0.01, "counts": {"limits|daily|refused": 2}})
    metrics.stat(1, {"inflight": 4, "counts": {"limits|daily|refused": 1}})
    assert value(metrics, "penstock_worker_inflight_requests", worker="1") == 4
    metrics.gone(1)
    assert value(metrics, "penstock_worker_inflight_requests", worker="1") is None
    assert value(metrics, "penstock_limit_decisions_total", limit="daily", decision="refused") == 3


def test_a_count_nobody_declared_is_dropped_and_the_drop_is_counted() -> None:
    metrics = Metrics()
    metrics.stat(0, {"counts": {"surprise|x": 1, "limits|too|many|labels": 1}})
    assert value(metrics, "penstock_metrics_undeclared_total") == 2
    assert "surprise" not in text(metrics)


def test_worker_counters_are_capped() -> None:
    metrics = Metrics()
    metrics.stat(0, {"counts": {f"limits|rule{n}|refused": 1 for n in range(5_000)}})
    assert text(metrics).count("penstock_limit_decisions_total{") == 2_001
    assert value(metrics, "penstock_limit_decisions_total", limit="other", decision="other") == 3_000


def test_a_refused_configuration_keeps_the_revision_and_shows_the_failure() -> None:
    metrics = Metrics("1.2.3")
    metrics.revision("aaaa", ok=True)
    assert value(metrics, "penstock_config_last_reload_successful") == 1
    metrics.revision("bbbb", ok=False)
    assert value(metrics, "penstock_config_last_reload_successful") == 0
    assert value(metrics, "penstock_config_reload_failures_total") == 1
    assert value(metrics, "penstock_config_revision_info", revision="aaaa") == 1
    assert 'version="1.2.3"' in text(metrics)


def test_the_supervisor_numbers_are_there() -> None:
    metrics = Metrics()
    metrics.workers(1, 2)
    metrics.restarted()
    metrics.ledger(5, 0.02)
    metrics.ledger_failed()
    metrics.log_drops(7)
    expected = {
        "workers_ready": 1,
        "workers_wanted": 2,
        "worker_restarts_total": 1,
        "ledger_rows_total": 5,
        "ledger_lag_seconds": 0.02,
        "ledger_failures_total": 1,
        "log_dropped_lines_total": 7,
    }
    for name, number in expected.items():
        assert value(metrics, f"penstock_{name}") == number


def test_openmetrics_is_given_to_who_asks_for_it() -> None:
    metrics = Metrics()
    metrics.record(CALL)
    content_type, body = metrics.render("application/openmetrics-text; version=1.0.0")
    assert content_type.startswith("application/openmetrics-text")
    assert {family.name for family in parse_openmetrics(body.decode())} >= {"penstock_requests"}
    assert metrics.render("*/*")[0].startswith("text/plain")


def test_names_and_labels_follow_the_conventions_of_prometheus() -> None:
    for item in declared():
        assert re.fullmatch(r"penstock_[a-z][a-z0-9_]*[a-z]", item.name), item.name
        assert not item.name.endswith(("_total", "_count", "_sum", "_bucket", "_info")), item.name
        assert not re.search(r"_(ms|us|milliseconds|microseconds|percent|kb|mb)(_|$)", item.name), item.name
        assert item.help.endswith(".") and len(item.help) > 10, item.name
        assert all(
            re.fullmatch(r"[a-z]+", label) and label not in ("le", "quantile") for label in item.labels
        )
        if item.kind == "histogram":
            assert item.name.endswith("_seconds") and list(item.bounds) == sorted(set(item.bounds)), item.name


def test_every_declared_series_is_rendered_and_nothing_else() -> None:
    names = {family.name for family in parse(text(Metrics())) if family.name.startswith("penstock_")}
    expected = [f"{item.name}_info" if item.kind == "info" else item.name for item in declared()]
    assert sorted(names) == sorted(expected)
    assert len(expected) == len(set(expected))


@given(st.lists(st.integers(0, 700_000_000), max_size=60))
def test_many_times_are_counted_as_one_by_one(times: list[int]) -> None:
    together, single = histogram(series.DURATION.bounds), histogram(series.DURATION.bounds)
    observe(together, series.DURATION.bounds, times)
    for time in times:
        observe(single, series.DURATION.bounds, [time])
    assert together == single


def test_calls_that_come_in_small_batches_are_counted_as_in_a_large_one() -> None:
    streamed = {**CALL, "first_token_us": 30_000, "status": 500, "outcome": "failed"}
    calls = [CALL, streamed, {**CALL, "backend": "azure", "total_us": 7}, {**CALL, "tries": 3}] * 900
    once, often = Metrics(), Metrics()
    once.records(calls)
    for n, call in enumerate(calls):
        often.record(call)
        if n == 1000:
            often.render()
    both = [
        [line for line in each.render()[1].splitlines() if b"penstock_" in line] for each in (once, often)
    ]
    assert both[0] == both[1]
    assert sum(b"penstock_requests_total{" in line for line in both[0]) == 3
