"""The appliance's metrics, folded and rendered in the supervisor. The one door to prometheus-client."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from gateway.core.sheet import Sheet, tabulated
from gateway.core.usage import KINDS
from gateway.observe import series
from gateway.observe.cell import Cell, histogram
from gateway.observe.cells import OTHER, Cells
from gateway.observe.pending import Pending
from gateway.observe.series import Series

# Where each label of a record's series stands in `cell.LABELS`.
_PLACES = {
    "endpoint": 0,
    "model": 1,
    "backend": 2,
    "status": 3,
    "outcome": 4,
    "code": 5,
    "source": 6,
}
_HISTOGRAMS: tuple[tuple[Series, Callable[[Cell], list[int]]], ...] = (
    (series.DURATION, lambda cell: cell.duration),
    (series.OVERHEAD, lambda cell: cell.overhead),
    (series.QUEUE, lambda cell: cell.queue),
    (series.FIRST_BYTE, lambda cell: cell.first_byte),
    (series.FIRST_TOKEN, lambda cell: cell.first_token),
)
_COUNTERS: tuple[tuple[Series, Callable[[Cell], float]], ...] = (
    (series.REQUESTS, lambda cell: cell.calls),
    (series.SOURCES, lambda cell: cell.calls),
    (series.FALLBACKS, lambda cell: cell.fallbacks),
    (series.COST, lambda cell: cell.cost),
)
_MAX_COUNTERS = 2000
_PENDING = 2000  # calls that are folded at once, unless somebody looks


class Metrics(Collector):
    """Call records and worker reports in, exposition out. Not thread-safe: one loop owns it."""

    def __init__(self, version: str = "") -> None:
        self._cells = Cells()
        self._pending = Pending()
        self._gauges: dict[str, dict[int, float]] = {key: {} for key in series.WORKER_GAUGES}
        self._counters: dict[tuple[str, ...], float] = {}
        self._numbers: dict[Series, float] = dict.fromkeys(series.NUMBERS, 0.0)
        self._numbers[series.SHARED_UP] = self._numbers[series.SHARED_REPLICAS] = 1.0
        self._revision = ""
        self._build = (version, platform.python_version())
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)
        ProcessCollector(registry=self._registry)

    # -- in ------------------------------------------------------------------------------------

    def sheets(self, sheets: Iterable[Sheet]) -> None:
        """Fold settled calls (members of `core.record.FIELDS`; missing ones are zero or empty)."""
        for sheet in sheets:
            self._pending.add(sheet)
        if self._pending.calls >= _PENDING:
            self._fold()

    def _fold(self) -> None:
        for sheet in self._pending.taken():
            self._cells.add(sheet)

    def records(self, batch: Iterable[Mapping[str, Any]]) -> None:
        """Fold settled calls, given one by one."""
        self.sheets(tabulated(batch))

    def record(self, record: Mapping[str, Any]) -> None:
        """Fold one settled call."""
        self.records([record])

    def stat(self, worker: int, stat: Mapping[str, Any]) -> None:
        """A worker's report: its gauges as they are now, its counters since the last report.

        `counts` is keyed "name|label|label" with the names and labels of `series.WORKER_COUNTERS`.
        """
        for key, gauges in self._gauges.items():
            if key in stat:
                gauges[worker] = float(stat[key])
        for key, delta in stat.get("counts", {}).items():
            self._count(tuple(key.split("|")), delta)

    def count(self, name: str, *labels: str) -> None:
        """One more of a counter of `series.OWN_COUNTERS`."""
        self._count((name, *labels), 1.0)

    def add(self, name: str, *labels: str, delta: float) -> None:
        """So many more of a counter, a worker's too."""
        self._count((name, *labels), delta)

    def shared(self, there: bool, replicas: int, trips: int) -> None:
        """Whether the shared store answers, replicas that are there, and round trips to it so far."""
        self._numbers[series.SHARED_UP] = float(there)
        self._numbers[series.SHARED_REPLICAS] = replicas
        self._numbers[series.SHARED_TRIPS] = trips

    def _count(self, key: tuple[str, ...], delta: float) -> None:
        declared = series.WORKER_COUNTERS.get(key[0]) or series.OWN_COUNTERS.get(key[0])
        if declared is None or len(key) != 1 + len(declared.labels):
            self._numbers[series.UNDECLARED] += 1
            return
        if key not in self._counters and len(self._counters) >= _MAX_COUNTERS:
            self._numbers[series.FOLDED] += 1
            key = (key[0], *(OTHER for _ in declared.labels))
        self._counters[key] = self._counters.get(key, 0.0) + delta

    def gone(self, worker: int) -> None:
        """A worker has ended: its gauges go; what it counted stays."""
        for gauges in self._gauges.values():
            gauges.pop(worker, None)

    def restarted(self) -> None:
        """A worker that had died was started again."""
        self._numbers[series.RESTARTS] += 1

    def workers(self, ready: int, wanted: int | None = None) -> None:
        """How many workers accept calls, and how many should."""
        self._numbers[series.WORKERS_READY] = ready
        if wanted is not None:
            self._numbers[series.WORKERS_WANTED] = wanted

    def revision(self, id: str, ok: bool) -> None:
        """A configuration was taken (`id` serves now) or refused (`ok` is false; the old one serves on)."""
        self._numbers[series.RELOAD_OK] = float(ok)
        if ok:
            self._revision = id
            self._numbers[series.RELOAD_TIME] = time.time()
        else:
            self._numbers[series.RELOAD_FAILURES] += 1

    def ledger(self, rows: int, lag: float = 0.0) -> None:
        """`rows` more are committed; the oldest call still waiting has waited `lag` seconds."""
        self._numbers[series.LEDGER_ROWS] += rows
        self._numbers[series.LEDGER_LAG] = lag

    def ledger_failed(self) -> None:
        """A commit failed; it will be tried again."""
        self._numbers[series.LEDGER_FAILURES] += 1

    def log_drops(self, total: int) -> None:
        """How many call lines the log has dropped since the start."""
        self._numbers[series.LOG_DROPS] = total

    # -- out -----------------------------------------------------------------------------------

    def render(self, accept: str = "") -> tuple[str, bytes]:
        """Content type and body for a scraper that sent this Accept header."""
        self._fold()
        self._numbers[series.FOLDED] += self._cells.folded
        self._cells.folded = 0
        encode, content_type = choose_encoder(accept)
        return content_type, encode(self._registry)

    def collect(self) -> Iterator[Metric]:
        """Every family, for prometheus-client."""
        self._fold()
        cells = list(self._cells.items())
        for declared, value in _COUNTERS:
            yield _counter(declared, _sums(declared, cells, value))
        yield _counter(
            series.ERRORS, _sums(series.ERRORS, [c for c in cells if c[0][5]], lambda cell: cell.calls)
        )
        yield _counter(series.TOKENS, _tokens(cells))
        for declared, buckets in _HISTOGRAMS:
            yield _histogram(declared, cells, buckets)
        for key, declared in series.WORKER_GAUGES.items():
            gauge = GaugeMetricFamily(declared.name, declared.help, labels=declared.labels)
            for worker, reading in sorted(self._gauges[key].items()):
                gauge.add_metric((str(worker),), reading)
            yield gauge
        for key, declared in (series.WORKER_COUNTERS | series.OWN_COUNTERS).items():
            yield _counter(declared, {k[1:]: v for k, v in self._counters.items() if k[0] == key})
        yield from self._own()

    def _own(self) -> Iterator[Metric]:
        for declared, number in self._numbers.items():
            family = CounterMetricFamily if declared.kind == "counter" else GaugeMetricFamily
            yield family(declared.name, declared.help, value=number)
        yield _info(series.REVISION, (self._revision,))
        yield _info(series.BUILD, self._build)


def _key(declared: Series, labels: Sequence[str]) -> tuple[str, ...]:
    return tuple(labels[_PLACES[name]] for name in declared.labels)


def _sums(
    declared: Series, cells: list[tuple[tuple[str, ...], Cell]], value: Callable[[Cell], float]
) -> dict[tuple[str, ...], float]:
    """One number per combination of the series' own labels, summed over the labels it does not have."""
    sums: dict[tuple[str, ...], float] = {}
    for labels, cell in cells:
        key = _key(declared, labels)
        sums[key] = sums.get(key, 0) + value(cell)
    if declared is series.COST:  # summed as integers, shown in dollars
        return {key: micros / 1_000_000 for key, micros in sums.items()}
    return sums


def _tokens(cells: list[tuple[tuple[str, ...], Cell]]) -> dict[tuple[str, ...], float]:
    sums: dict[tuple[str, ...], float] = {}
    for labels, cell in cells:
        for kind, count in zip(KINDS, cell.tokens, strict=True):
            if count:
                key = (labels[1], labels[2], kind)
                sums[key] = sums.get(key, 0) + count
    return sums


def _counter(declared: Series, sums: Mapping[tuple[str, ...], float]) -> Metric:
    family = CounterMetricFamily(declared.name, declared.help, labels=declared.labels)
    for key, value in sorted(sums.items()):
        family.add_metric(key, value)
    return family


def _histogram(
    declared: Series,
    cells: list[tuple[tuple[str, ...], Cell]],
    buckets: Callable[[Cell], list[int]],
) -> Metric:
    sums: dict[tuple[str, ...], list[int]] = {}
    for labels, cell in cells:
        observed = buckets(cell)
        total = sums.setdefault(_key(declared, labels), histogram(declared.bounds))
        total[:] = map(int.__add__, total, observed)
    family = HistogramMetricFamily(declared.name, declared.help, labels=declared.labels)
    for key, counts in sorted(sums.items()):
        if any(counts):
            family.add_metric(key, _cumulated(declared, counts), sum_value=counts[-1] / 1_000_000)
    return family


def _cumulated(declared: Series, counts: list[int]) -> list[tuple[str, float]]:
    bounds = [str(bound / 1_000_000) for bound in declared.bounds] + ["+Inf"]
    running, out = 0, []
    for bound, count in zip(bounds, counts, strict=False):
        running += count
        out.append((bound, float(running)))
    return out


def _info(declared: Series, values: tuple[str, ...]) -> Metric:
    return InfoMetricFamily(
        declared.name, declared.help, value=dict(zip(declared.labels, values, strict=True))
    )
