"""What the supervisor reports: nothing that was dropped goes uncounted."""

from __future__ import annotations

import logging
from typing import Any, cast

from gateway.settings.schema import Observe, Settings
from gateway.supervisor.batch import Batch
from gateway.supervisor.report import Report


def drops(report: Report) -> str:
    text = report.metrics.render()[1].decode()
    return next(line for line in text.splitlines() if line.startswith("penstock_log") and "drop" in line)


def test_dropped_call_lines_are_counted_also_over_a_change_of_target() -> None:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    report = Report(Settings(observe=Observe(calls="off")), cast(Any, None), cast(Any, None), "")
    report._calls.dropped = 3
    report.posted(Batch([], []))
    assert drops(report).endswith(" 3.0")
    report.observe(Observe(calls="stdout"))
    report._calls.dropped = 2
    report.posted(Batch([], []))
    assert drops(report).endswith(" 5.0")
    report._calls.close()
    root.handlers[:], root.level = handlers, level
