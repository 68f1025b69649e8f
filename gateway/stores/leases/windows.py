"""Which window a rule counts in: for the whole limit, for a replica's part of it, and what to tell of one."""

from __future__ import annotations

from gateway.core.limit import LimitRule
from gateway.stores.leases.gcra import GcraWindow
from gateway.stores.leases.window import CalendarWindow, RollingWindow, Window


def window_of(rule: LimitRule, amount: int) -> Window | None:
    """The window that a rule counts in; None for calls at once."""
    if rule.unit == "concurrent":
        return None
    if rule.calendar:
        return CalendarWindow(amount, rule.calendar, rule.zone)
    if rule.burst:
        return GcraWindow(amount, rule.seconds, rule.burst)
    return RollingWindow(amount, rule.seconds)


def part_of(rule: LimitRule, amount: int, replicas: int) -> Window | None:
    """One replica's part of it, of which nothing is used yet: rounded down, but a burst is at least 1."""
    replicas = max(replicas, 1)
    part = amount // replicas
    if rule.burst and part:
        return GcraWindow(part, rule.seconds, max(rule.burst // replicas, 1))
    return RollingWindow(0, rule.seconds) if rule.burst else window_of(rule, part)


def carried(part: Window | None, before: Window | None, now: float) -> Window | None:
    """The part, of which is used by now what another window counts. Both have the same shape."""
    if part is None or before is None or not before.used(now):
        return part
    if isinstance(before, RollingWindow):
        for at, amount in before.slices:
            part.charge(min(at, now), amount)
    else:
        part.charge(now, before.used(now))
    return part


def seed_of(window: Window | None, now: float) -> list[list[float]]:
    """What was used, for a store that does not know: [seconds ago, amount], oldest first."""
    used = window.used(now) if window else 0
    if not used:
        return []
    if isinstance(window, RollingWindow):
        return [[max(now - at, 0.0), amount] for at, amount in window.slices]
    # Of a calendar period the day does not matter. A burst counts as wholly taken.
    return [[0.0, used if isinstance(window, CalendarWindow) else window.most]]  # type: ignore[union-attr]
