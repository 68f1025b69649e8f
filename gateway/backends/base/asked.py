"""What was asked of a provider, until its answer is a Reply."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any, Final

from gateway.backends.base.keyring import Credential
from gateway.core.call import Call
from gateway.core.reply import Coming, Reply
from gateway.net.outbound import Outbound
from gateway.net.port import Exchange

if TYPE_CHECKING:
    from gateway.backends.base.http import HttpBackend

WHOLE: Final = 1 << 20  # bytes: a longer answer is not held but streams through


class Asked(Coming):
    """A request to a provider. `model` is the one that is asked for; `hide`: see `body.with_usage`."""

    __slots__ = ("_backend", "call", "credential", "exchange", "hide", "makes", "model", "outbound")

    exchange: Exchange  # once it is sent

    def __init__(
        self,
        backend: HttpBackend,
        call: Call,
        outbound: Outbound,
        credential: Credential,
        model: str,
        makes: bool,
        hide: bool,
    ) -> None:
        self._backend = backend
        self.call = call
        self.outbound = outbound
        self.credential = credential
        self.model = model
        self.makes = makes
        self.hide = hide

    def then(self, told: Callable[[], None]) -> bool:
        """See `core.reply.Coming`."""
        return self.exchange.then(told)

    def now(self) -> Reply | None:
        """See `core.reply.Coming`."""
        exchange = self.exchange
        if exchange.kind != b"application/json" or exchange.status >= 400:
            return None
        whole = exchange.held(WHOLE)
        if not whole:
            return None  # also the answer to HEAD, whose length is that of a body which does not come
        call = self.call
        call.first_byte, call.replied = exchange.first_byte_at, exchange.done_at
        return self._backend.document(call, exchange, whole, self.makes)

    def close(self) -> None:
        """See `core.reply.Coming`."""
        self.exchange.close()

    def __await__(self) -> Generator[Any, Any, Reply]:
        return self._backend.answered(self).__await__()
