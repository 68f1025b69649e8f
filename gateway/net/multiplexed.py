"""What httpcore's HTTP/2 connection lacks where the calls that share it come and go on their own."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from httpcore import AsyncHTTP2Connection

_CANCEL = 8


class Multiplexed(AsyncHTTP2Connection):
    """A connection of httpcore's becomes one by `mend`. Uses, and adds to, its insides."""

    async def _response_closed(self, stream_id: int) -> None:
        """Reset the stream where it is open, and give what was not read back to the connection's window."""
        state = self._h2_state
        unread = sum(getattr(event, "flow_controlled_length", 0) for event in self._events[stream_id])
        with suppress(Exception):  # the connection has ended, or no head was sent
            state.acknowledge_received_data(unread, stream_id)
            if not state.streams[stream_id].closed:
                state.reset_stream(stream_id, error_code=_CANCEL)
        await super()._response_closed(stream_id)


def mend(connection: Any) -> None:
    """Told of each connection that a request goes out on; HTTP/1.1 and what is not known stay as they are."""
    inner = getattr(connection, "_connection", None)
    if type(inner) is AsyncHTTP2Connection:
        inner.__class__ = Multiplexed


async def flush(connection: Any, request: Any) -> None:
    """Send what a stream that was closed has left to be sent."""
    inner = getattr(connection, "_connection", None)
    if isinstance(inner, Multiplexed):
        with suppress(Exception):  # the connection has ended already
            await inner._write_outgoing_data(request)
