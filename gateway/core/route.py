"""Where a call may go: targets, and the rule that maps a model name to them."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True, frozen=True)
class Target:
    """One model at one backend. An empty `model` means: the name the caller used."""

    backend: str
    model: str = ""
    weight: float = 1.0


@dataclass(slots=True, frozen=True)
class ModelRule:
    """One `[models.NAME]`: the name or glob, weighted targets, then fallbacks in order.

    `max_output` is the most tokens one answer can have, where the operator says so (0: not known).
    """

    name: str
    targets: tuple[Target, ...]
    fallback: tuple[Target, ...] = ()
    max_output: int = 0

    @property
    def glob(self) -> bool:
        """Whether the name is a pattern."""
        return any(mark in self.name for mark in "*?[")


@dataclass(slots=True)
class Plan:
    """Targets in the order they will be tried, and why this order."""

    targets: tuple[Target, ...]
    reason: str
    alias: str  # the configured name that matched: the only model label metrics may carry
    steady: bool = True  # every call for this model gets the same plan; False where it was drawn
    shown: dict[str, bytes] = field(default_factory=dict, compare=False)  # the front's headers for a model
