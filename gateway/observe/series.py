"""Every series of `/metrics`, declared once: name, kind, labels, help."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True, frozen=True)
class Series:
    """One metric family. `labels` are all it ever has; `bounds` (histograms) are in microseconds."""

    name: str
    kind: str  # counter gauge histogram info
    help: str
    labels: tuple[str, ...] = ()
    bounds: tuple[int, ...] = ()


def _seconds(*values: float) -> tuple[int, ...]:
    return tuple(round(value * 1_000_000) for value in values)


_CALL = _seconds(
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600
)
_FIRST = _seconds(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
# The gateway's own share is tens of microseconds to a few milliseconds.
_OWN = _seconds(
    50e-6, 100e-6, 150e-6, 250e-6, 500e-6, 750e-6, 0.001, 0.0015, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1
)

# From call records.
REQUESTS = Series(
    "penstock_requests",
    "counter",
    "Calls that ended, by what the caller got.",
    ("endpoint", "model", "backend", "status", "outcome"),
)
ERRORS = Series(
    "penstock_errors", "counter", "Calls that ended with an error code of the gateway.", ("code",)
)
TOKENS = Series(
    "penstock_tokens",
    "counter",
    "Tokens by disjoint kind: a sum over kinds is the true total.",
    ("model", "backend", "kind"),
)
COST = Series(
    "penstock_cost_usd", "counter", "Money spent at providers, in US dollars.", ("model", "backend")
)
SOURCES = Series(
    "penstock_usage_source", "counter", "Calls by where their token counts came from.", ("source",)
)
FALLBACKS = Series(
    "penstock_fallbacks",
    "counter",
    "Tries after the first, by the backend that was asked last.",
    ("model", "backend"),
)
DURATION = Series(
    "penstock_request_duration_seconds",
    "histogram",
    "First byte of the request to last byte of the answer.",
    ("endpoint", "model"),
    _CALL,
)
OVERHEAD = Series(
    "penstock_overhead_seconds", "histogram", "The gateway's own share of a call's time.", ("endpoint",), _OWN
)
QUEUE = Series(
    "penstock_queue_seconds",
    "histogram",
    "Time a call waited inside the gateway for its turn.",
    ("endpoint",),
    _OWN,
)
FIRST_BYTE = Series(
    "penstock_upstream_first_byte_seconds",
    "histogram",
    "Request sent to first byte of the upstream's answer.",
    ("model", "backend"),
    _FIRST,
)
FIRST_TOKEN = Series(
    "penstock_first_token_seconds",
    "histogram",
    "First byte of the request to first content of a stream.",
    ("model", "backend"),
    _FIRST,
)

# Gauges a worker reports, by their key in its `stat` message.
WORKER_GAUGES = {
    "inflight": Series("penstock_worker_inflight_requests", "gauge", "Calls under way.", ("worker",)),
    "connections": Series("penstock_worker_connections", "gauge", "Open client connections.", ("worker",)),
    "lag_s": Series(
        "penstock_worker_loop_lag_seconds",
        "gauge",
        "How late the worker's event loop ran a timer.",
        ("worker",),
    ),
    "rss": Series(
        "penstock_worker_resident_memory_bytes", "gauge", "Resident memory of the worker.", ("worker",)
    ),
}

# Counters a worker reports, by the first part of their key in `Parts.counts`.
WORKER_COUNTERS = {
    "limits": Series(
        "penstock_limit_decisions",
        "counter",
        "Calls a limit refused, would have (shadow), did not check, cut, or saw no price of (unpriced).",
        ("limit", "decision"),
    ),
    "policies": Series(
        "penstock_policy_decisions",
        "counter",
        "Calls a policy refused, changed or sent elsewhere, or would have (shadow).",
        ("policy", "decision"),
    ),
    "rejects": Series(
        "penstock_http_rejects", "counter", "Requests refused before they were calls.", ("code",)
    ),
}

# Counters of the supervisor with labels, by the first argument of `Metrics.count`.
OWN_COUNTERS = {
    "admin_requests": Series(
        "penstock_admin_requests", "counter", "Requests to the admin API.", ("path", "status")
    ),
    "admin_refusals": Series(
        "penstock_admin_refusals",
        "counter",
        "Requests that the admin API refused to whoever asked.",
        ("code",),
    ),
    "captures": Series(
        "penstock_captures", "counter", "Calls whose texts were to be kept: kept or lost.", ("outcome",)
    ),
    "limit_events": Series(
        "penstock_limit_events",
        "counter",
        "Buckets that came near their limit (near) or first lacked room for a call in a window (reached).",
        ("limit", "event"),
    ),
    "jwks_fetches": Series(
        "penstock_jwks_fetches",
        "counter",
        "Requests for the key set of callers' tokens: ok, failed.",
        ("result",),
    ),
    "secret_failures": Series(
        "penstock_secret_failures", "counter", "Commands that gave no secret; the one before stays in use."
    ),
    "notices": Series(
        "penstock_notices", "counter", "Things told to operators, by kind (docs/notices.md).", ("kind",)
    ),
    "notices_dropped": Series(
        "penstock_notices_dropped",
        "counter",
        "Notices that a listener did not get: flood, queue (full) or undelivered (after all tries).",
        ("why",),
    ),
}

# The supervisor's own.
WORKERS_READY = Series("penstock_workers_ready", "gauge", "Workers that accept calls.")
WORKERS_WANTED = Series("penstock_workers_wanted", "gauge", "Workers the configuration asks for.")
RESTARTS = Series("penstock_worker_restarts", "counter", "Workers started again after one had died.")
REVISION = Series("penstock_config_revision", "info", "The revision that serves.", ("revision",))
RELOAD_OK = Series(
    "penstock_config_last_reload_successful",
    "gauge",
    "1 when the newest configuration is the one that serves.",
)
RELOAD_TIME = Series(
    "penstock_config_last_reload_success_timestamp_seconds",
    "gauge",
    "When the revision that serves was taken.",
)
RELOAD_FAILURES = Series("penstock_config_reload_failures", "counter", "Configurations refused as faulty.")
LEDGER_ROWS = Series("penstock_ledger_rows", "counter", "Rows committed to the ledger.")
LEDGER_LAG = Series(
    "penstock_ledger_lag_seconds",
    "gauge",
    "How long the ledger has not been writable; calls wait in the journal.",
)
LEDGER_FAILURES = Series(
    "penstock_ledger_failures", "counter", "Commits to the ledger that failed and will be retried."
)
LOG_DROPS = Series(
    "penstock_log_dropped_lines", "counter", "Call log lines dropped because the log was too slow."
)
SHARED_UP = Series(
    "penstock_shared_up", "gauge", "1 while the shared store answers, or where there is none to answer."
)
SHARED_REPLICAS = Series("penstock_shared_replicas", "gauge", "Replicas that were there when last seen.")
SHARED_TRIPS = Series("penstock_shared_trips", "counter", "Round trips to the shared store for limits.")
FOLDED = Series(
    "penstock_metrics_folded", "counter", "Counts put under `other` because the series cap was reached."
)
UNDECLARED = Series(
    "penstock_metrics_undeclared", "counter", "Worker counts without a declared series, dropped."
)
BUILD = Series("penstock_build", "info", "What is running.", ("version", "python"))

NUMBERS = (
    WORKERS_READY,
    WORKERS_WANTED,
    RESTARTS,
    RELOAD_OK,
    RELOAD_TIME,
    RELOAD_FAILURES,
    LEDGER_ROWS,
    LEDGER_LAG,
    LEDGER_FAILURES,
    LOG_DROPS,
    SHARED_UP,
    SHARED_REPLICAS,
    SHARED_TRIPS,
    FOLDED,
    UNDECLARED,
)
