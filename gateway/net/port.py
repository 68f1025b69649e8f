"""What backends may rely on, whichever way the bytes go out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from gateway.core.call import Headers
from gateway.core.reply import Source
from gateway.net.outbound import Outbound


class Exchange(Source, Protocol):
    """One answer on its way in: its head is there, its body may still be coming.

    `headers` have lower-case names and are end-to-end ones only; framing is not among them. `length` is the
    declared content-length; `kind` and `coding` are the values of content-type and content-encoding, b""
    where there is none. `onward` is the wire form of the headers that go on, as `lines.Lines` judged them,
    or None where they have to be gone through. Times are `time.monotonic()` seconds, 0.0 is "not yet";
    `connect_time` is a duration, 0.0 on a connection that was already there. `until` is when `total` is over.
    """

    status: int
    headers: Headers
    length: int | None
    kind: bytes
    coding: bytes
    onward: bytes | None
    connect_time: float
    sent_at: float
    first_byte_at: float
    done_at: float
    until: float

    def held(self, limit: int) -> bytes | None:
        """The whole body when it has come already and has no more than `limit` bytes, once; else None."""

    def then(self, told: Callable[[], None]) -> bool:
        """Have `told` called once: when it is whole, has failed, or has become one to be read bit by bit.

        False, and it is not called, where that is so already. One task less; not to be mixed with the others.
        """

    async def collect(self, limit: int) -> bytes | None:
        """The whole body when it ends within `limit` bytes.

        None when it is longer: what came so far is kept, and comes out of `read` or `pipe`.
        """


class Transport(Protocol):
    """A way to one origin."""

    async def send(self, outbound: Outbound) -> Exchange:
        """Returns when the head of the final answer is in. Raises `UpstreamError`.

        Cancelling it cuts the connection.
        """

    def start(self, outbound: Outbound) -> Exchange | None:
        """Send at once where a connection is free: `arrived` is still to come. None: nothing was done."""

    async def arrived(self, exchange: Exchange, outbound: Outbound) -> Exchange:
        """The rest of `send` after `start`. It may be another exchange: a stale connection is replaced."""

    async def close(self) -> None:
        """Close idle connections; exchanges under way go on, and a late `send` still works."""
