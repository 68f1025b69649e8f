"""The authority over limits, as one machine keeps it: windows, leases, asks."""

from gateway.stores.leases.authority import Authority, Orphan
from gateway.stores.leases.window import CalendarWindow, RollingWindow, bounds

__all__ = ["Authority", "CalendarWindow", "Orphan", "RollingWindow", "bounds"]
