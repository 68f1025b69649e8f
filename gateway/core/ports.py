"""The ports: what stages, backends and processes may rely on, and nothing more."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol

from gateway.core.call import Call
from gateway.core.group import Tenant
from gateway.core.hold import Hold
from gateway.core.keep import Keep
from gateway.core.limit import Bucket, Charges, Denial, LimitRule, Spent, Standing
from gateway.core.principal import KeyEntry, Principal
from gateway.core.records import Actor
from gateway.core.reply import Coming, Event, Reply
from gateway.core.route import Target
from gateway.core.sheet import Sheet


class Stage:
    """One step of the policy path; built in or a plugin.

    A verb that never waits may be a plain function: it is then called without an await. The
    pipeline keeps only the verbs a class overrides. A refusal is a `GatewayError`.
    """

    # True where `admit` depends on the request's head, endpoint and model alone and sets nothing but
    # principal, model, alias, plan, tags and session: the pipeline then asks once and remembers.
    steady = False
    # False on a stage that has nothing to do in this revision: the pipeline is built without it.
    needed = True

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

    def start(self, call: Call, target: Target) -> Coming | None:
        """As `ask`, sent at once, where nothing has to be waited for before that; None: nothing was done."""

    async def models(self) -> list[dict[str, Any]]:
        """OpenAI model objects this backend offers. Raises `UpstreamError`."""

    def rekey(self, settings: Any) -> None:
        """Take these settings, which differ from those before in secrets alone; connections stay."""

    async def close(self) -> None:
        """Close idle connections; calls under way go on."""


class KeyDirectory(Protocol):
    """All keys the gateway knows, as of the newest word from the supervisor.

    `generation` moves with every change, so that what was remembered about keys can be forgotten.
    """

    generation: int

    def find(self, digest: bytes) -> Principal | None:
        """Whose key this is. Expired and revoked entries are found too: the caller checks."""

    def caller(self, entry: KeyEntry) -> Principal:
        """The principal of one that no key stands for: with its groups, and the memo of equal ones."""

    def replace(self, entries: Iterable[KeyEntry], tenants: Iterable[Tenant] = ()) -> None:
        """Swap in a new set of keys and tenants; unchanged principals keep their memo."""


class Leases(Protocol):
    """The worker's side of limits: take from local leases, ask the authority when they run out.

    A stage resolves its buckets once per principal and keeps them (`principal.memo`); a bucket stays
    valid for good. Per call it passes pairs of bucket and amount: requests and concurrent 1, of tokens
    and usd what it may use. No bucket may stand twice in one tuple.
    """

    degraded: bool  # the store that replicas share is lost, and each rule's `on_store_loss` holds
    unusual: bool  # that, or a raise is in force: what is told of limits is not what was made beforehand

    def bucket(self, rule: LimitRule, value: str) -> Bucket:
        """The bucket of a rule for one scope value (`core.limit.scope_value`); the same object each time."""

    def try_take(self, charges: Charges, tokens: int = 0, micros: int = 0) -> Hold | Denial | None:
        """All or nothing, at once, from what is leased here. None: the authority must be asked (`take`).

        `tokens` and `micros` are what the Hold says was reserved.
        """

    async def take(self, charges: Charges, tokens: int = 0, micros: int = 0) -> Hold | Denial:
        """All or nothing, asking the authority for what is missing.

        Raises `FaultError` when the authority does not answer in time and a rule is not
        `on_store_loss = "open"`.
        """

    def top_up(self, hold: Hold, charges: Charges, done: Callable[[Denial | None], None]) -> None:
        """Add to a hold, all or nothing. `done` is called once, at once where nobody has to be asked.

        With None when the hold has grown (or was settled meanwhile), else with why not; where the authority
        does not answer, what `take` would raise `FaultError` for is a Denial too.
        """

    def settle(self, hold: Hold, tokens: int, micros: int, input: int = 0, output: int = 0) -> None:
        """Turn the hold into what was really used; once, later calls do nothing.

        `input` and `output` are the tokens by side: together `tokens`.
        """

    def standing(self, bucket: Bucket) -> Standing | None:
        """How a bucket stands as far as is known here."""


class Ledger(Protocol):
    """The durable record of what was used, and the keys made by `penstock keys`.

    Plain calls that may block: only the supervisor and the command line use it, from one thread.
    Raises `core.errors.LedgerError`.
    """

    def open(self) -> None:
        """Connect, create what is missing, migrate forward."""

    def close(self) -> None:
        """Let go. Idempotent."""

    def book(self, sheets: Sequence[Sheet], offsets: Mapping[str, int]) -> None:
        """Insert calls (members of `core.record.FIELDS`) and move read offsets, in one transaction."""

    def commit(self, records: Sequence[Mapping[str, Any]], offsets: Mapping[str, int]) -> None:
        """As `book`, for records one by one."""

    def give_up(self) -> None:
        """From another thread: end a wait that is hopeless, with a `LedgerError`; else do nothing."""

    def offsets(self) -> dict[str, int]:
        """How far each source has been read."""

    def forget(self, source: str) -> None:
        """A source is read to its end and gone."""

    def keys(self) -> list[KeyEntry]:
        """All keys, revoked ones too, oldest first."""

    def add_key(self, entry: KeyEntry, actor: Actor = ...) -> None:
        """Keep a new key. Its name, id and digest must be new."""

    def revoke_key(self, name_or_id: str, actor: Actor = ...) -> bool:
        """Revoke a key; False where none has this name or id."""

    def changed(self) -> bool:
        """Whether another process has committed since the last look."""

    def usage(
        self,
        by: Sequence[str],
        since: datetime | None = None,
        until: datetime | None = None,
        only: Mapping[str, Sequence[str]] | None = None,
    ) -> list[dict[str, Any]]:
        """Sums of calls, tokens and money, grouped; `since` included, `until` not, by whole hours (UTC).

        `only` has the values that are asked for, by the name of what is grouped by.
        """

    def spent(
        self,
        rule: LimitRule,
        since_ms: int,
        value: str | None = None,
        worker: int | None = None,
        everyone: bool = False,
    ) -> Iterator[Spent]:
        """What was charged to a rule's buckets since then, for restoring and recounting windows.

        Through this replica, of one worker where that is named; or with `everyone` through all replicas
        that share the ledger.
        """

    def tidy_calls(self, keep: Keep, now: float) -> bool:
        """One bounded step of sums and retention at that time (epoch seconds); whether there is more."""


class Journal(Protocol):
    """Where a worker writes what must survive it (a memory-mapped file, read by the supervisor)."""

    def begin(self, record: bytes) -> int:
        """Note an open call; gives its slot. Raises `FaultError` when the journal is full."""

    def end(self, slot: int, record: bytes) -> None:
        """Append the settled call's record and free its slot."""
