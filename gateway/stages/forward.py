"""Ask them: tries the plan's targets in turn until one answers, before the first byte has gone out."""

from __future__ import annotations

import math
import time
from collections.abc import Awaitable, Callable, Generator
from typing import Any

from gateway.core.call import WAITED, Call
from gateway.core.capture import chosen
from gateway.core.cost import of_call
from gateway.core.errors import FaultError, UpstreamError
from gateway.core.group import Tenant
from gateway.core.moment import pause
from gateway.core.parts import Parts
from gateway.core.ports import Stage
from gateway.core.record import opened
from gateway.core.reply import Coming, Reply
from gateway.core.route import Target
from gateway.core.usage import NONE
from gateway.net.failure import CLOSED, failure


class Forward(Stage):
    """Sends the call upstream. Each try is built from the pristine call; the last one's answer stands."""

    def __init__(self, options: Any, parts: Parts) -> None:
        self._backends = parts.backends
        self._journal = parts.journal
        self._prices = parts.prices
        self._worker = parts.worker

    def admit(self, call: Call) -> Reply | Awaitable[Reply]:  # type: ignore[override]
        """The first good answer, or the last bad one; already asked for where nobody had to be waited for."""
        plan = call.plan
        if plan is None or not plan.targets:
            raise FaultError("No backend is configured for this call.", code="gateway_no_backend")
        target = plan.targets[0]
        self._turn(call, target)
        asked = self._backends[target.backend].start(call, target)
        return self.onward(call, None) if asked is None else Underway(self, call, asked)

    def _turn(self, call: Call, target: Target) -> None:
        """It is this target's turn. From here on the call leaves a row, even if this process is killed."""
        call.target = target
        call.tries += 1
        if call.slot < 0:
            call.slot = self._journal.begin(opened(call, self._worker))

    async def onward(self, call: Call, asked: Coming | None) -> Reply:
        """The rest, from the first target on, whose turn it is already and who may have been asked."""
        assert call.plan is not None
        targets = call.plan.targets
        left = len(targets)
        again = math.inf  # when (monotonic) the first of those that failed wants to be asked again
        for number, target in enumerate(targets):
            left -= 1
            if number:
                self._turn(call, target)
                # What is recorded is the last try's.
                call.sent = call.first_byte = call.replied = call.connect_time = 0.0
            waiting, asked = asked, None
            since, before = call.sent or time.monotonic(), call.memo.get(WAITED, 0.0)
            try:
                reply = await (waiting or self._backends[target.backend].ask(call, target))
                if left and reply.source is not None and reply.status < 300:
                    await _begun(reply, target)
            except UpstreamError as error:
                call.replied = time.monotonic()
                if not left:
                    gone = (call.sent or call.replied) - since - call.connect_time
                    call.memo[WAITED] = before + max(0.0, gone)
                    if again < math.inf:
                        error.retry_after = min(_pause(error), again - call.replied)
                    raise
                again = min(again, call.replied + _pause(error))
                call.memo[WAITED] = before + call.replied - since
                _note(call, target, error.code)
                continue
            if left and (reply.status >= 500 or reply.status == 429):
                if reply.source is not None:
                    reply.source.close()
                now = time.monotonic()
                again = min(again, now + _stated(reply))
                call.memo[WAITED] = before + now - since
                _note(call, target, f"status_{reply.status}")
                continue
            if reply.source is None:
                call.replied = time.monotonic()
            return self.taken(call, reply)
        raise AssertionError("the loop returns or raises at the last target")

    def taken(self, call: Call, reply: Reply) -> Reply:
        """Note what is known by now; the rest is known when the stream has ended (meter)."""
        if reply.status >= 400:
            call.code = "upstream_error_status"
        principal = call.principal
        if principal is not None and principal.groups:
            _capture(call, principal.tenant, reply)
        if reply.source is not None:
            call.memo["tap"] = reply.tap
            call.memo["source"] = reply.source
            growth = call.memo.get("growth")
            if growth is not None and reply.tap is not None:
                growth.watch(reply.tap)
            return reply
        if reply.status < 300 or call.usage.source != NONE:
            call.cost = of_call(call, self._backends, self._prices)
        return reply


class Underway(Coming):
    """The first target's answer on its way; should it be no good one, the others are asked."""

    __slots__ = ("_asked", "_call", "_forward")

    def __init__(self, forward: Forward, call: Call, asked: Coming) -> None:
        self._forward = forward
        self._call = call
        self._asked = asked

    def then(self, told: Callable[[], None]) -> bool:
        """See `core.reply.Coming`."""
        return self._asked.then(told)

    def now(self) -> Reply | None:
        """See `core.reply.Coming`."""
        reply = self._asked.now()
        return None if reply is None else self._forward.taken(self._call, reply)

    def close(self) -> None:
        """See `core.reply.Coming`."""
        self._asked.close()

    def __await__(self) -> Generator[Any, Any, Reply]:
        return self._forward.onward(self._call, self._asked).__await__()


def _capture(call: Call, tenant: Tenant | None, reply: Reply) -> None:
    """Have the texts of this call kept, where its tenant wants that and it is in the sample."""
    if tenant is None or not chosen(tenant.capture, call.id):
        return
    call.capture = tenant.capture
    if reply.body is not None:
        call.memo["answer"] = reply.body
    elif reply.tap is not None:
        reply.tap.keep_text()


async def _begun(reply: Reply, target: Target) -> None:
    """Until something of the body is here: a head alone is no answer while another target can give one."""
    assert reply.source is not None
    if not await reply.source.begun() and reply.event_stream:
        raise failure(CLOSED, target.backend, "its stream ended before anything had come")


def _pause(error: UpstreamError) -> float:
    """Seconds until it can be tried again; inf where that is not known."""
    return math.inf if error.retry_after is None else error.retry_after


def _stated(reply: Reply) -> float:
    """The same, as a provider says it in its answer (RFC 9110, 10.2.3)."""
    for name, value in reply.headers:
        if name == b"retry-after":
            seconds = pause(value, time.time())
            return math.inf if seconds is None else seconds
    return math.inf


def _note(call: Call, target: Target, why: str) -> None:
    """A try that failed: the reason stands in the record and in the answer's headers."""
    past = call.reasons.get("fallback")
    this = f"{target.backend}:{why}"
    call.reasons["fallback"] = f"{past},{this}" if past else this
    call.reasons["route"] = "fallback"
