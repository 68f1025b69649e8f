"""The one loop: admit on the way in, emit on the way out, settle at the end, always."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable, Coroutine, Generator, Sequence
from itertools import takewhile
from math import inf
from typing import Any, Final, NamedTuple

from gateway.core.call import Call
from gateway.core.codec import FrameSplitter, dumps
from gateway.core.errors import FaultError, GatewayError
from gateway.core.ports import KeyDirectory, Stage
from gateway.core.principal import Principal
from gateway.core.reply import Coming, Event, Reply
from gateway.core.route import Plan
from gateway.core.verbs import verbs

log: Final = logging.getLogger("penstock.pipeline")

_MOST_VERDICTS: Final = 64  # of one head
_LONGEST_MODEL: Final = 128
JSON: Final = (b"content-type", b"application/json")
_background: set[asyncio.Task[None]] = set()


class Verdict(NamedTuple):
    """What the steady stages said about one head and model: it holds until keys or pipeline change."""

    pipeline: Any  # a Pipeline
    generation: int
    until: float  # epoch seconds
    principal: Principal
    alias: str
    plan: Plan
    tags: tuple[str, ...]
    session: str


class Pipeline:
    """The compiled policy path of one revision: only the verbs that stages override.

    A verb that is a plain function is called without an await; a plain `admit` may also return
    an awaitable when, this once, it has to wait. The first stages that are `steady` are asked once
    for a head and model, and their word is remembered until a key changes (`keys.generation`).
    """

    def __init__(self, stages: Sequence[Stage], revision: str = "", keys: KeyDirectory | None = None) -> None:
        self.stages = tuple(stages)
        self.revision = revision
        self._keys = keys
        steady = list(takewhile(lambda stage: stage.steady, stages)) if keys is not None else []
        self.steady = verbs(steady, "admit")
        self.admits = verbs(self.stages[len(steady) :], "admit")
        self._first, self._last = self.admits[:-1], self.admits[-1] if self.admits else _nobody
        self.emits = verbs(stages, "emit")
        # The last stage settles first: what it finds out (usage, money), those before it need.
        self.settles = verbs(stages, "settle")[::-1]
        self.waits = any(inspect.iscoroutinefunction(emit) for emit in self.emits)
        self.inflight = 0
        self.on_idle: Callable[[], None] | None = None

    async def open(self) -> None:
        """Open the stages in order; what was opened is closed again when one fails."""
        opened: list[Stage] = []
        try:
            for stage in self.stages:
                await stage.open()
                opened.append(stage)
            return
        except BaseException as error:
            failed = error
        for stage in reversed(opened):
            await stage.close()
        raise failed

    async def close(self) -> None:
        """Close the stages, last first."""
        for stage in reversed(self.stages):
            try:
                await stage.close()
            except Exception:
                log.exception("a stage failed to close")

    async def answer(self, call: Call) -> Reply:
        """Walk the stages until one answers. Refusals and faults come back as replies."""
        reply = self.begin(call) or self.ask(call)
        if isinstance(reply, Reply):
            return reply
        try:
            return await reply
        except Exception as error:
            return failure(call, error)

    def begin(self, call: Call) -> Reply | Awaitable[Reply] | None:
        """Walk up to the last stage; None: it is to be asked next.

        An awaitable where somebody has to wait, and which walks the rest; `failure` answers what it raises.
        """
        admits = self._first
        try:
            if self.steady and not self._recall(call):
                admits = (*self.steady, self._remember, *admits)
            for number, admit in enumerate(admits, 1):
                reply: Any = admit(call)
                if reply is not None:
                    rest = (*admits[number:], self._last)
                    return reply if type(reply) is Reply else Onward(reply, rest, call)
        except Exception as error:
            return failure(call, error)
        return None

    def ask(self, call: Call) -> Reply | Awaitable[Reply]:
        """The last stage, which has to answer; see `begin`."""
        try:
            reply: Any = self._last(call)
        except Exception as error:
            return failure(call, error)
        return _nobody(call) if reply is None else reply

    def _recall(self, call: Call) -> bool:
        """Take over what the steady stages said before, if it still holds."""
        origin = call.origin
        verdict: Verdict | None = origin.verdicts.get(call.model) if origin is not None else None
        if verdict is None:
            return False
        pipeline, generation, until, call.principal, call.alias, call.plan, call.tags, call.session = verdict
        if pipeline is self and generation == self._keys.generation and (until > call.wall):
            return True
        call.principal, call.alias, call.plan, call.tags, call.session = None, "", None, (), ""
        return False

    def _remember(self, call: Call) -> None:
        """Keep what was said, unless it depends on more than head and model. Called as an admit."""
        origin, principal, plan = call.origin, call.principal, call.plan
        if origin is None or principal is None or plan is None or not plan.steady:
            return
        if call.memo or call.reasons:
            return
        if len(origin.verdicts) >= _MOST_VERDICTS or len(call.model) > _LONGEST_MODEL:
            origin.verdicts.clear()
            return
        expires = principal.key.expires if principal.until is None else principal.until
        until = inf if expires is None else expires
        generation = self._keys.generation  # type: ignore[union-attr]
        origin.verdicts[call.model] = Verdict(
            self, generation, until, principal, call.alias, plan, call.tags, call.session
        )

    def settle(self, call: Call) -> None:
        """Every stage's last word. What has to wait is finished in the background, shielded."""
        for settle in self.settles:
            try:
                waiting = settle(call)
            except Exception:
                log.exception("a stage failed to settle", extra={"request_id": call.id})
                continue
            if waiting is not None:
                task = asyncio.ensure_future(_finish(waiting, call.id))
                _background.add(task)
                task.add_done_callback(_background.discard)

    def leave(self) -> None:
        """A call on this pipeline has ended."""
        self.inflight -= 1
        if self.inflight == 0 and self.on_idle is not None:
            self.on_idle()


class Onward(Coming):
    """The rest of the walk, from a stage on that has to wait."""

    __slots__ = ("_admits", "_call", "_waiting")

    def __init__(
        self, waiting: Awaitable[Reply | None], admits: tuple[Callable[..., Any], ...], call: Call
    ) -> None:
        self._waiting = waiting
        self._admits = admits
        self._call = call

    def then(self, told: Callable[[], None]) -> bool:
        """See `core.reply.Coming`: it has to be awaited."""
        return False

    def close(self) -> None:
        """See `core.reply.Coming`."""
        if isinstance(self._waiting, Coroutine):
            self._waiting.close()

    def __await__(self) -> Generator[Any, Any, Reply]:
        return self._walk().__await__()

    async def _walk(self) -> Reply:
        call = self._call
        reply: Any = await self._waiting
        for admit in self._admits:
            if reply is not None:
                break
            reply = admit(call)
            if reply is not None and type(reply) is not Reply:
                reply = await reply
        if reply is not None and type(reply) is not Reply:
            raise TypeError(f"admit gives a Reply or None, not {reply!r:.100}")
        return _nobody(call) if reply is None else reply


def _nobody(call: Call) -> Reply:
    return refusal(call, FaultError("No stage answered the call.", status=500, code="gateway_no_answer"))


async def _finish(waiting: Awaitable[None], request_id: str) -> None:
    try:
        await waiting
    except Exception:
        log.exception("a stage failed to settle", extra={"request_id": request_id})


def failure(call: Call, error: Exception) -> Reply:
    """The answer to a call that a stage refused or broke on."""
    return refusal(call, told(call, error))


def told(call: Call, error: Exception) -> GatewayError:
    """What its client is told of an error."""
    if isinstance(error, GatewayError):
        return error
    log.error("a stage failed", exc_info=error, extra={"request_id": call.id})
    return FaultError("The gateway failed on this call.", status=500, code="gateway_fault")


def refusal(call: Call, error: GatewayError) -> Reply:
    """The answer to a call that ends in an error; notes the outcome on the call."""
    call.outcome = error.outcome
    call.code = error.code
    headers = [JSON, *error.headers]
    if error.retry_after is not None:
        headers.append((b"retry-after", b"%d" % max(1, -int(-error.retry_after // 1))))
    if error.status == 401 and not any(name == b"www-authenticate" for name, _ in error.headers):
        headers.append((b"www-authenticate", b"Bearer"))
    return Reply(error.status, headers, dumps(error.document(call.id, call.path)))


class Emitter:
    """Runs a stream's pieces through the stages that listen.

    Server-sent events come to them frame by frame, other bodies as the pieces they arrived in.
    """

    __slots__ = ("_call", "_emits", "_frames")

    def __init__(self, call: Call, emits: tuple[Callable[..., Any], ...], event_stream: bool) -> None:
        self._call = call
        self._emits = emits
        self._frames = FrameSplitter() if event_stream else None

    def feed(self, data: bytes) -> bytes:
        """The plain form, for stages that never wait."""
        if self._frames is None:
            return self._emit(data)
        return b"".join([self._emit(frame) for frame in self._frames.feed(data)])

    def finish(self) -> bytes:
        """What an unfinished last frame leaves."""
        rest = self._frames.flush() if self._frames is not None else b""
        return self._emit(rest) if rest else b""

    def _emit(self, data: bytes) -> bytes:
        event: Event | None = Event(data)
        for emit in self._emits:
            event = emit(self._call, event)
            if event is None:
                return b""
        return event.data if event is not None else b""

    async def feed_waiting(self, data: bytes) -> bytes:
        """The same where at least one stage waits."""
        pieces = self._frames.feed(data) if self._frames is not None else [data]
        return b"".join([await self._emit_waiting(piece) for piece in pieces])

    async def finish_waiting(self, held: bytes) -> bytes:
        """The same as `finish` where at least one stage waits, after what a tap still `held`."""
        last = await self.feed_waiting(held) if held else b""
        rest = self._frames.flush() if self._frames is not None else b""
        return last + await self._emit_waiting(rest) if rest else last

    async def _emit_waiting(self, data: bytes) -> bytes:
        event: Any = Event(data)
        for emit in self._emits:
            event = emit(self._call, event)
            if inspect.isawaitable(event):
                event = await event
            if event is None:
                return b""
        return event.data  # type: ignore[no-any-return]
