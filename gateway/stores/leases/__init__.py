"""The authority over limits, as one machine keeps it: windows, leases, asks; alone or one of several."""

from gateway.stores.leases.authority import Authority, Orphan
from gateway.stores.leases.gcra import GcraWindow
from gateway.stores.leases.share import Reply
from gateway.stores.leases.shared import SharedAuthority
from gateway.stores.leases.upstream import Question
from gateway.stores.leases.window import CalendarWindow, RollingWindow, bounds

__all__ = [
    "Authority",
    "CalendarWindow",
    "GcraWindow",
    "Orphan",
    "Question",
    "Reply",
    "RollingWindow",
    "SharedAuthority",
    "bounds",
]
