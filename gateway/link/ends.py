"""Either end of the link: an asyncio protocol over one half of a socket pair."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

from gateway.link.protocol import LARGEST, Decoder, LinkError, Message, encode

# A peer that lets this many bytes pile up has stopped reading; the link is cut.
MOST_WAITING = 2 * LARGEST


class End(asyncio.Protocol):
    """Calls `receive` for each message and `lost` once when the link is gone, with why or None."""

    def __init__(self, receive: Callable[[Message], None], lost: Callable[[Exception | None], None]) -> None:
        self._receive = receive
        self._lost = lost
        self._decoder = Decoder()
        self._transport: asyncio.WriteTransport | None = None
        self._gone = asyncio.Event()

    def send(self, message: Message) -> None:
        """Send in order; never waits. After the link is gone messages go nowhere."""
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        transport.write(encode(message))
        if transport.get_write_buffer_size() > MOST_WAITING:
            transport.abort()

    def close(self) -> None:
        """Hang up once what was sent has left."""
        if self._transport is not None:
            self._transport.close()

    async def finish(self) -> None:
        """Hang up, and wait until what was sent has left. Nobody is told."""
        self._lost = lambda _: None
        self.close()
        await self._gone.wait()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The link stands."""
        self._transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        """Bytes from the other end; nonsense ends the link."""
        try:
            messages = self._decoder.feed(data)
        except LinkError as error:
            self._fail(error)
            return
        for message in messages:
            self._receive(message)

    def _fail(self, error: LinkError) -> None:
        lost, self._lost = self._lost, lambda _: None
        if self._transport is not None:
            self._transport.abort()
        lost(error)

    def connection_lost(self, error: Exception | None) -> None:
        """The other end is gone."""
        self._gone.set()
        self._lost(error)


async def connect(
    sock: socket.socket, receive: Callable[[Message], None], lost: Callable[[Exception | None], None]
) -> End:
    """Take over a connected socket; the link may be used at once."""
    loop = asyncio.get_running_loop()
    _, end = await loop.create_connection(lambda: End(receive, lost), sock=sock)
    return end
