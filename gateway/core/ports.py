"""The ports: what stages, backends and processes may rely on, and nothing more."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from gateway.core.call import Call
from gateway.core.limit import Denial, Hold, LimitRule, Standing
from gateway.core.principal import KeyEntry, Principal
from gateway.core.reply import Event, Reply
from gateway.core.route import Target


class Stage:
    """One step of the policy path; built in or a plugin.

    A verb that never waits may be a plain function: it is then called without an await. The
    pipeline keeps only the verbs a class overrides. A refusal is a `GatewayError`.
    """

    def __init__(self, options: Any, parts: Any) -> None:
        """Keep the options and the tools; no I/O here."""

    async def open(self) -> None:
        """Connect, warm up."""

    async def admit(self, call: Call) -> Reply | None:
        """On the way in; a Reply ends the walk."""
        return None

    async def emit(self, call: Call, event: Event) -> Event | None:
        """Each event on the way out; None holds it back."""
        return event

    async def settle(self, call: Call) -> None:
        """After the last byte, always, shielded."""

    async def close(self) -> None:
        """Let go of what `open` took."""


class Backend(Protocol):
    """A way to ask somebody."""

    name: str
    kind: str

    async def open(self) -> None:
        """Prepare; must not fail because the provider is away."""

    async def ask(self, call: Call, target: Target) -> Reply:
        """Send the call to one target; returns once the first bytes of the answer are in hand.

        Sets `call.sent`, `call.first_byte`, `call.connect_time`. Raises `UpstreamError`. An answer
        with an error status is a Reply, not an exception.
        """

    async def models(self) -> list[dict[str, Any]]:
        """OpenAI model objects this backend offers. Raises `UpstreamError`."""

    async def close(self) -> None:
        """Close idle connections; calls under way go on."""


class KeyDirectory(Protocol):
    """All keys the gateway knows, as of the newest word from the supervisor."""

    def find(self, digest: bytes) -> Principal | None:
        """Whose key this is. Expired and revoked entries are found too: the caller checks."""

    def replace(self, entries: Sequence[KeyEntry]) -> None:
        """Swap in a new set of keys; unchanged principals keep their memo."""


class Leases(Protocol):
    """The worker's side of limits: take from local leases, ask the authority when they run out."""

    def try_take(self, charges: tuple[tuple[LimitRule, str, int], ...]) -> Hold | Denial | None:
        """All or nothing, at once, from what is leased here. None: the authority must be asked."""

    async def take(self, charges: tuple[tuple[LimitRule, str, int], ...]) -> Hold | Denial:
        """All or nothing, asking the authority for what is missing."""

    def settle(self, hold: Hold, tokens: int, micros: int) -> None:
        """Turn the hold into what was really used; once, later calls do nothing."""

    def standing(self, rule: LimitRule, value: str) -> Standing | None:
        """How a bucket stands as far as is known here."""


class Journal(Protocol):
    """Where a worker writes what must survive it (a memory-mapped file, read by the supervisor)."""

    def begin(self, record: bytes) -> int:
        """Note an open call; gives its slot. Raises `FaultError` when the journal is full."""

    def end(self, slot: int, record: bytes) -> None:
        """Append the settled call's record and free its slot."""


class Counter(Protocol):
    """A number the worker reports to the supervisor; cheap to add to."""

    def add(self, amount: float = 1.0) -> None:
        """Count."""
