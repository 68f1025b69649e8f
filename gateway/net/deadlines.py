"""Whether an exchange under way has run out of time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.net.failure import FIRST_BYTE_TIMEOUT, IDLE_TIMEOUT, TOTAL_TIMEOUT, failure

if TYPE_CHECKING:
    from gateway.core.errors import UpstreamError
    from gateway.net.connection import Connection
    from gateway.settings.schema import Deadlines


def overdue(connection: Connection, timeout: Deadlines, now: float) -> UpstreamError | None:
    """The error of the deadline that has passed at the monotonic time `now`, or None.

    `total` runs from the call's start. `first` runs from the moment the request was handed to the socket
    until the final head is in, however slowly it drips, and where they are waited for, the first bytes of the
    body. From the head on `idle` runs while nothing comes, except while this side does not read.
    """
    exchange = connection.exchange
    if exchange is None:
        return None
    if now - exchange.started >= timeout.total:
        return failure(TOTAL_TIMEOUT, connection.backend, f"not done within {timeout.total:g} s in all")
    headed = connection.headed
    if (not headed or (exchange.unbegun and not exchange.size)) and now - exchange.sent_at >= timeout.first:
        return failure(FIRST_BYTE_TIMEOUT, connection.backend, f"no answer within {timeout.first:g} s")
    if not headed:
        return None
    if connection.stirred or not connection.reading:
        connection.stirred = False
        connection.quiet_since = now
    elif now - connection.quiet_since >= timeout.idle:
        return failure(IDLE_TIMEOUT, connection.backend, f"sent nothing for {timeout.idle:g} s")
    return None
