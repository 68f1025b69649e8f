"""What operators see: readiness, metrics and call lines (`control.app.Control`)."""

from __future__ import annotations

import logging
import time
from typing import Any

from gateway import __version__
from gateway.observe.log import CallLog, setup
from gateway.observe.metrics import Metrics
from gateway.settings.schema import Observe, Settings
from gateway.supervisor.batch import Batch
from gateway.supervisor.revisions import Revisions
from gateway.supervisor.workers import Workers

log = logging.getLogger("penstock.report")


class Report:
    """Hears of everything that happens, and answers the admin app."""

    def __init__(self, settings: Settings, workers: Workers, revisions: Revisions, where: str) -> None:
        self.metrics = Metrics(__version__)
        self.metrics.revision(settings.revision, True)
        self.draining = False
        self._workers = workers
        self._revisions = revisions
        self._where = where
        self._began = time.monotonic()
        self.stale: tuple[str, ...] = ()  # secrets whose commands fail, by where they come from
        self._unwritten = 0.0  # seconds for which the ledger could not be written
        self._observe = settings.observe
        self._calls = CallLog(settings.observe.calls)
        self._dropped = 0  # call lines, by logs that were replaced

    def observe(self, wanted: Observe) -> None:
        """Another revision may send call lines elsewhere. Raises OSError when that can't be opened."""
        if wanted.calls != self._observe.calls:
            old, self._calls = self._calls, CallLog(wanted.calls)
            old.close(0.5)
            self._dropped += old.dropped
        setup(wanted.level)
        self._observe = wanted

    def reopen(self) -> None:
        """The call log's file may have been rotated away."""
        try:
            self._calls.reopen()
        except OSError as error:
            log.error("the call log can't be opened again: %s", error)

    def posted(self, batch: Batch) -> None:
        """These calls are in the ledger."""
        self.metrics.sheets(batch.sheets)
        self.metrics.ledger(len(batch.lines))
        self._calls.write(batch.lines, bare=True)
        self.metrics.log_drops(self._dropped + self._calls.dropped)

    def troubled(self, seconds: float) -> None:
        """The ledger could not be written for so long; 0.0: it can again."""
        self._unwritten = seconds
        self.metrics.ledger(0, seconds)
        if seconds:
            self.metrics.ledger_failed()

    def workers(self) -> None:
        """Workers came or went."""
        self.metrics.workers(self._workers.ready, self._workers.wanted)

    def ready(self) -> tuple[bool, dict[str, Any]]:
        """Whether calls are accepted, and why or why not."""
        ready = self._workers.ready
        detail: dict[str, Any] = {
            "workers": {"ready": ready, "wanted": self._workers.wanted},
            "revision": self._revisions.current.revision,
            "draining": self.draining,
        }
        if self._revisions.told:
            detail["config"] = {"refused": self._revisions.told.splitlines()}
        if self._unwritten:
            detail["ledger"] = {"unwritten_s": round(self._unwritten, 1)}
        if self.stale:
            detail["secrets"] = {"stale": list(self.stale)}
        return ready > 0 and not self.draining, detail

    def status(self) -> dict[str, Any]:
        """What runs, for people."""
        workers = [
            {"number": p.number, "pid": p.popen.pid, "revision": p.revision, "failure": p.failure}
            for p in self._workers.running.values()
        ]
        uptime = round(time.monotonic() - self._began)
        return {"listen": self._where, "uptime_s": uptime, "running": workers, **self.ready()[1]}

    def close(self) -> None:
        """Write the call lines that wait."""
        self._calls.close()
