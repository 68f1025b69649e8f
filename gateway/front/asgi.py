"""The same pipeline under plain ASGI: for what is not hot, and for any other server.

uvicorn gateway.front.asgi:app        one process, its own limits and ledger, no supervisor
"""

from __future__ import annotations

import asyncio
import importlib
import os
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.core.call import Call
from gateway.core.errors import CallerError, GatewayError
from gateway.core.reply import Reply
from gateway.front import body as bodies
from gateway.front import scope as scopes
from gateway.front.filters import Filters
from gateway.front.head import pairs
from gateway.front.intake import Intake
from gateway.front.outlet import BrokenBody, Outlet
from gateway.live import Live, draining
from gateway.pipeline import Pipeline, refusal
from gateway.settings.schema import Bounds

__all__ = ["BrokenBody", "app", "build"]

_RESERVE = 256 * 1024  # bodies above this count against the memory bound
_SOLO = "gateway.supervisor.solo:solo"  # the composition root for one process, above this floor


def build(live: Live, bounds: Bounds, intake: Intake | None = None) -> ASGIApp:
    """The ASGI application on a running pipeline.

    `intake` is that of the lane before it, which has judged every head; without one they are judged here.
    """
    app = Starlette()
    _serve(app, Endpoint(intake, scopes.read) if intake else Endpoint(Intake(live, bounds), scopes.judge))
    return app


def _serve(app: Starlette, endpoint: Endpoint) -> None:
    router = app.router
    router.routes[:] = [Route("/healthz", _healthz), Route("/{path:path}", endpoint)]
    # A target that is no path, or has a line break in it, fits no route, and is to be judged as all others.
    router.default, router.redirect_slashes = endpoint, False


async def _healthz(request: Any) -> JSONResponse:
    return JSONResponse({"status": "ok"})


class Endpoint:
    """Runs one call for one ASGI request; `read` makes it of a scope."""

    def __init__(self, intake: Intake, read: Callable[[Intake, Scope], Call]) -> None:
        self.intake = intake
        self._read = read

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1000})  # before it was accepted: that is a 403
            return
        try:
            call = self._read(self.intake, scope)
        except GatewayError as error:
            call = scopes.nobody(self.intake, scope)
            await AsgiConversation(self.intake, call, receive, send, scope).turn_away(error)
            return
        await AsgiConversation(self.intake, call, receive, send, scope).run()


class AsgiConversation:
    """One call under ASGI: body in, pipeline, answer out, and an ear on the client all the while."""

    def __init__(self, intake: Intake, call: Call, receive: Receive, send: Send, scope: Scope) -> None:
        self.intake = intake
        self._scope = scope
        self.pipeline: Pipeline = intake.live.pipeline
        self.call = call
        self._receive = receive
        self._out = Outlet(send, call, intake.bounds.body_time)
        self._reserved = 0
        self._expired = False
        self._begun = False
        self._telling = False  # an error can be told as an event
        self._settled = False
        self._task: asyncio.Task[None] | None = None

    async def turn_away(self, error: GatewayError) -> None:
        """Answer a request that is no call: there is nothing to settle."""
        self.intake.live.count_refused(error.code)
        self._settled = True
        await self._whole(refusal(self.call, error), close=True)

    async def run(self) -> None:
        """Answer and settle; a client that leaves cancels the work at once."""
        call = self.call
        self.intake.enter(self)
        try:
            await self._read_body()
            bodies.read(call, self.intake.bounds.body)
            call.arrived = call.began = time.monotonic()
            await self._until_gone(self._answer())
        except GatewayError as error:
            reply = refusal(call, error)
            if error.code == "caller_gone":  # nobody is there to be told
                self._settled = scopes.REFUSED in self._scope
                self._gone()
            else:
                await self._whole(reply, close=True)
        except asyncio.CancelledError:
            if not self._expired:
                self._gone()
                raise
            await self._late()
        finally:
            self._settle()
            self.intake.release(self._reserved)
            self.intake.exit(self)

    async def _until_gone(self, work: Any) -> None:
        """Run the answer while listening for the client's disconnect."""
        task = self._task = asyncio.ensure_future(work)
        ear = asyncio.ensure_future(self._disconnected())
        try:
            await asyncio.wait((task, ear), return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                task.cancel()
                self._gone()
            try:
                await task
            except asyncio.CancelledError:
                if self._expired:
                    await self._late()
        finally:
            task.cancel()
            ear.cancel()

    async def _disconnected(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass

    def _gone(self) -> None:
        call = self.call
        call.outcome, call.code = "client_gone", "caller_gone"
        call.status = call.status or 499

    async def _read_body(self) -> None:
        bounds = self.intake.bounds
        parts: list[bytes] = []
        size, more = 0, True
        deadline = time.monotonic() + bounds.body_time
        while more:
            try:
                message = await asyncio.wait_for(self._receive(), max(0.0, deadline - time.monotonic()))
            except TimeoutError:
                raise CallerError(
                    "The request's body took too long.", status=408, code="caller_timeout"
                ) from None
            if message["type"] == "http.disconnect":
                raise CallerError("The client left before its request was whole.", code="caller_gone")
            piece = message.get("body", b"")
            size += len(piece)
            if size > bounds.body:
                raise bodies.too_large(bounds.body)
            if size - self._reserved > _RESERVE:
                self.intake.reserve(size - self._reserved)
                self._reserved = size
            parts.append(piece)
            more = message.get("more_body", False)
        self.call.body = b"".join(parts)

    # -- the answer

    async def _answer(self) -> None:
        call = self.call
        reply = await self.pipeline.answer(call)
        call.status = reply.status
        if reply.body is not None:
            await self._whole(reply)
        else:
            await self._stream(reply)

    async def _whole(self, reply: Reply, close: bool = False) -> None:
        call, body = self.call, reply.body or b""
        call.status = reply.status
        self._begun = True
        call.outcome = call.outcome or ("ok" if reply.status < 400 else "upstream_error")
        self._settle()  # first: what it cost stands in the head
        headers = [*reply.headers, *pairs(call)]
        if reply.status not in (204, 304):
            headers.append((b"content-length", b"%d" % len(body)))
        if close:
            headers.append((b"connection", b"close"))
        start = {"type": "http.response.start", "status": reply.status, "headers": headers}
        rest = {"type": "http.response.body", "body": body if call.method != "HEAD" else b""}
        await self._out.last(start, rest)

    async def _stream(self, reply: Reply) -> None:
        call, source = self.call, reply.source
        assert source is not None
        headers = [*reply.headers, *pairs(call)]
        length = getattr(source, "length", None)
        if length is not None and not reply.event_stream and not self.pipeline.emits:
            headers.append((b"content-length", b"%d" % length))
        filters = Filters(reply, call, self.pipeline)
        self._begun, self._out.until = True, getattr(source, "until", 0.0)
        try:
            await self._out.say({"type": "http.response.start", "status": reply.status, "headers": headers})
            self._telling = reply.event_stream
            while piece := await source.read():
                if piece := await filters.feed(piece):
                    await self._out.say({"type": "http.response.body", "body": piece, "more_body": True})
            rest = await filters.finish()
            call.outcome = call.outcome or ("ok" if reply.status < 400 else "upstream_error")
            self._settle()
            await self._out.last({"type": "http.response.body", "body": rest, "more_body": False})
        except GatewayError as error:  # the upstream broke, nobody takes what it says, or a stage ends it
            await self._break_off(error, reply.tap is None or reply.tap.clean)
        finally:
            source.close()

    def _settle(self) -> None:
        """Before the last byte goes out: who has an answer may ask again at once, and it is booked."""
        if not self._settled:
            self._settled = True
            self.pipeline.settle(self.call)

    async def _break_off(self, error: GatewayError, clean: bool) -> None:
        """Say so inside the answer where that is possible, else have it cut: it must be seen not to be all.

        What was booked before the last byte went out stays as it is.
        """
        if not self._settled:
            self.call.outcome, self.call.code = "truncated", error.code
            self._settle()
        if not self._telling:
            raise BrokenBody(error.code) from error
        self._telling = False
        words = (b"" if clean else b"\n\n") + error.event(self.call.id, self.call.path)
        await self._out.last({"type": "http.response.body", "body": words, "more_body": False})

    async def _late(self) -> None:
        """The drain deadline came first."""
        error = draining()
        if self._begun:
            await self._break_off(error, clean=False)
        else:
            await self._whole(refusal(self.call, error), close=True)

    def expire(self) -> None:
        """End now (drain)."""
        self._expired = self._out.over = True
        if self._task is not None:
            self._task.cancel()


def _solo() -> ASGIApp:
    """The application for any ASGI server: the gateway is composed when the server starts it."""

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        module, _, name = _SOLO.partition(":")
        compose = getattr(importlib.import_module(module), name)
        running: AbstractAsyncContextManager[tuple[Live, Bounds]]
        running = compose(os.environ.get("PENSTOCK_CONFIG"))
        async with running as (live, bounds):
            _serve(app, Endpoint(Intake(live, bounds), scopes.judge))
            yield

    return Starlette(lifespan=lifespan)


app = _solo()
