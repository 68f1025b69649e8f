"""What the admin API may ask of the process it runs in."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from gateway.control.operator import Operator
from gateway.core.group import Tenant
from gateway.core.limit import Raise
from gateway.core.principal import KeyEntry
from gateway.core.records import Actor, Change, Entity
from gateway.core.store import LedgerStore
from gateway.observe.metrics import Metrics
from gateway.settings.schema import Settings

T = TypeVar("T")


@dataclass(slots=True, frozen=True)
class Applied:
    """What came of a new configuration: the revision that serves, or why the old one goes on.

    `aside` are the names that files have now which are no part of it any more.
    """

    revision: str
    refused: str = ""
    aside: tuple[str, ...] = ()


@dataclass(slots=True, frozen=True)
class Wanted:
    """A configuration to be put in place: texts by path; `gone` are paths to be set aside.

    `expect` is the revision that must serve until then, "" for any.
    """

    files: Mapping[str, str]
    actor: Actor
    note: str = ""
    gone: tuple[str, ...] = ()
    expect: str = ""


class Desk(Protocol):
    """The running appliance, as the admin API sees it."""

    metrics: Metrics

    @property
    def settings(self) -> Settings:
        """The revision that serves."""

    def texts(self) -> Mapping[str, str]:
        """Its files as they were read, by path, secrets and all."""

    def ready(self) -> tuple[bool, dict[str, Any]]:
        """Whether calls are accepted, and why or why not."""

    def status(self) -> dict[str, Any]:
        """What runs, for people."""

    async def operator(self, credential: bytes, address: str) -> Operator | None:
        """Who presents this; None where it opens nothing here."""

    def all_keys(self) -> list[KeyEntry]:
        """All keys, those of the file too."""

    def tenants(self) -> list[Tenant]:
        """All tenants, those of the file too."""

    def raises(self) -> list[Raise]:
        """Raises in force."""

    async def do(self, work: Callable[[LedgerStore], T]) -> T:
        """Run a piece of work on the ledger, in its thread. Raises `LedgerError`."""

    async def change(self, change: Change) -> Entity:
        """Write, and tell all workers, before this returns. Raises `Conflict`, `LedgerError`."""

    async def found(self, kind: str, name: Callable[[], str]) -> Entity | None:
        """An entity that is not deleted; where there is none other replicas are asked, and `name` again."""

    def standings(self, rule: str) -> Sequence[Mapping[str, Any]]:
        """How the buckets of a rule stand here: value, used, leased, left, amount, reset_s."""

    async def apply(self, wanted: Wanted) -> Applied:
        """Write these files of the configuration and serve them; where that can't be, they are as before.

        Raises `CallerError` where they can't be written, or another revision serves than the expected one,
        `LedgerError` where the change could not be noted.
        """
