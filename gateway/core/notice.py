"""Things operators want to hear of when they happen, and who is told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

# Every kind there is, and what has happened. Listeners choose among these by glob ("limit.*").
KINDS: Mapping[str, str] = {
    "limit.near": "a limit's soft threshold was crossed, once per bucket and window",
    "limit.reached": "a limit first lacked room for a call in this window; it may have gone on with less",
    "store.lost": "the shared store does not answer; `on_store_loss` is in force",
    "store.back": "the shared store answers again",
    "config.accepted": "another revision serves",
    "config.refused": "a changed configuration has faults; the one before it goes on",
    "ledger.lag": "the ledger can't be written; calls wait in the journals",
    "ledger.back": "the ledger is written again",
    "worker.restarted": "a worker had died and another was started",
    "key.expiring": "a virtual key ends within seven days; told once a day",
    "jwks.failed": "the identity provider's key set can't be fetched; the one before it goes on",
    "secret.failed": "a command that gives a secret failed; the value before it goes on",
    "secret.back": "that command works again",
}


@dataclass(slots=True, frozen=True)
class Notice:
    """Something that happened. `kind` is one of `KINDS`.

    `subject` says what it is about ("limit RULE|VALUE"), `detail` the figures; nothing secret stands in it.
    """

    kind: str
    subject: str
    detail: Mapping[str, Any]
    ts_ms: int


class Unwanted(Exception):
    """What a listener raises for a notice that it will never get through: it is not tried again."""


class Listener:
    """A plugin of the supervisor: `[[plugins]] use = "module:Class"` whose class derives from this one.

    Its option `kinds` (globs over `KINDS`; absent: all) is looked at before it is asked.
    """

    def __init__(self, options: Any) -> None:
        """Keep the options; no I/O here. Raises `ValueError` for options that can't be used."""

    async def open(self) -> None:
        """Connect."""

    async def hear(self, notice: Notice) -> None:
        """Pass it on, within ten seconds. It may fail: then it is tried again, and nothing waits for it."""

    async def close(self) -> None:
        """Let go."""
