"""`/admin/v1`: from a request to an operation and back. Authorised on the path as it was routed."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import re
import secrets
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any
from urllib.parse import quote

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from gateway.control import body
from gateway.control.body import LARGEST
from gateway.control.changes import conflicted, not_found, stale
from gateway.control.operation import Answer, Ask, Operation
from gateway.control.operator import Operator
from gateway.control.port import Desk
from gateway.control.refusals import Refusals
from gateway.control.resources import audit, config, keys, limits, status, tenants, usage
from gateway.control.seal import Seal
from gateway.core.codec import dumps, loads
from gateway.core.errors import CallerError, FaultError, GatewayError, LedgerError, PolicyError
from gateway.core.records import Actor, Answered, Change, Conflict

log = logging.getLogger("penstock.admin")

PREFIX = "/admin/v1"
OPERATIONS: tuple[Operation, ...] = (
    *status.OPERATIONS, *keys.OPERATIONS, *tenants.OPERATIONS, *limits.OPERATIONS, *usage.OPERATIONS,
    *audit.OPERATIONS, *config.OPERATIONS,
)  # fmt: skip

_DEADLINE = 30.0  # seconds for one request
_REMEMBERED = 86_400_000  # ms for which an answer is kept under its idempotency key
_ETAG = re.compile(r'(?:W/)?"v(\d{1,18})"\Z')
_KEY = re.compile(r"[!-~]{1,255}\Z")
_MAX_CREDENTIAL = 16 * 1024
_HEADERS = {"cache-control": "no-store", "x-content-type-options": "nosniff"}


class Api:
    """The operations over one desk."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._refusals = Refusals(desk)
        self._turn = asyncio.Lock()
        self._under_way: set[asyncio.Task[Response]] = set()

    def routes(self) -> list[Route]:
        """One route per path; a method that a path does not have is 405."""
        by_path: dict[str, dict[str, Operation]] = {}
        for operation in OPERATIONS:
            by_path.setdefault(operation.path, {})[operation.method] = operation
        return [
            Route(PREFIX + path, self._endpoint(path, operations), methods=list(operations))
            for path, operations in by_path.items()
        ]

    def _endpoint(self, path: str, operations: dict[str, Operation]) -> Callable[[Request], Any]:
        async def endpoint(request: Request) -> Response:
            identity = f"adm_{secrets.token_hex(12)}"
            operation = operations["GET" if request.method == "HEAD" else request.method]
            try:
                async with asyncio.timeout(_DEADLINE):
                    response = await self._served(operation, request)
            except Exception as error:
                response = _failed(error, identity)
            response.headers["x-request-id"] = identity
            self._desk.metrics.count("admin_requests", path, f"{response.status_code // 100}xx")
            return response

        return endpoint

    async def _served(self, operation: Operation, request: Request) -> Response:
        address = request.client.host if request.client else ""
        credential = _credential(request)
        operator = await self._desk.operator(credential, address)
        actor = operator.actor if operator is not None else Actor("call", address=address)
        try:
            if operator is None:
                raise _unknown()
            operator.demand(operation.permission)
            return await self._permitted(operation, request, operator, credential)
        except GatewayError as error:
            if operator is None or isinstance(error, PolicyError):
                self._refusals.saw(actor, error.code, f"{operation.method} {operation.path}")
            raise

    async def _permitted(
        self, operation: Operation, request: Request, operator: Operator, credential: bytes
    ) -> Response:
        data = await _data(request)
        match = request.headers.get("if-match")
        for kind, wanted in request.path_params.items():
            if "\0" in wanted:  # PostgreSQL takes none
                raise not_found(kind, wanted)
        ask = Ask(
            self._desk, operator, request.path_params, _query(operation, request), {}, (match or "*").strip()
        )
        if operation.body is not None:
            ask.values = body.read(operation.body, body.parse(data))
        elif data.strip() and request.method != "DELETE":
            raise CallerError("This operation takes no body.")
        name = request.headers.get("idempotency-key")
        once = None
        if name is not None and operation.keyed:
            said = f"{operation.method} {request.scope['path']}\n".encode() + data
            once = _Once(ask, name, credential, said)
        if not operation.alone:
            return await _done(operation, ask, once, match)
        task = asyncio.get_running_loop().create_task(self._in_turn(operation, ask, once))
        self._under_way.add(task)
        task.add_done_callback(self._over)
        return await asyncio.shield(task)

    def _over(self, task: asyncio.Task[Response]) -> None:
        self._under_way.discard(task)
        if not task.cancelled():
            task.exception()  # who asked has been told, unless they had gone

    async def _in_turn(self, operation: Operation, ask: Ask, once: _Once | None) -> Response:
        async with self._turn:
            return await _done(operation, ask, once, None)


def _unknown() -> CallerError:
    return CallerError(
        "The admin API needs the admin token, or a key or token with a role for it, as "
        "'Authorization: Bearer …'.",
        status=401,
        code="caller_unauthorized",
    )


async def _done(operation: Operation, ask: Ask, once: _Once | None, match: str | None) -> Response:
    """What was answered before, or else the operation and what it changes."""
    if once is not None:
        known = await once.known()
        if known is not None:
            return known
    answer = await operation.run(ask)
    if answer.change is not None:
        _matched(operation, match, answer.change)
        return await _written(answer, ask.desk, once)
    deed = answer.deed
    if deed is not None:
        kept = once.kept(answer) if once is not None else None
        await ask.desk.do(lambda books: books.note([deed], kept))
    return _response(answer)


async def _written(answer: Answer, desk: Desk, once: _Once | None) -> Response:
    """Write the change, and with it the answer where it is to be given again."""
    assert answer.change is not None
    if once is None:
        entity = await desk.change(answer.change)
    else:
        try:
            entity = await desk.change(replace(answer.change, remember=once.kept(answer)))
        except Conflict:
            known = await once.known()  # the same request was quicker
            if known is None:
                raise
            return known
    if answer.version is not None and answer.version != entity.version:
        answer.version = answer.document["version"] = entity.version
    return _response(answer)


class _Once:
    """The same answer to the same request, however often it is sent. Kept sealed: it may hold a secret."""

    def __init__(self, ask: Ask, name: str, credential: bytes, request: bytes) -> None:
        if not _KEY.match(name):
            raise CallerError(
                "idempotency-key must be 1 to 255 printable characters.", param="idempotency-key"
            )
        self._desk = ask.desk
        self._place = hashlib.sha256(f"{ask.operator.actor.id}/{name}".encode()).hexdigest()
        self._fingerprint = hashlib.sha256(request).hexdigest()
        self._seal = Seal(credential, name)

    async def known(self) -> Response | None:
        """What was answered before. Raises `CallerError` (422) where that was another request."""
        found = await self._desk.do(lambda books: books.answered(self._place))
        if found is None:
            return None
        if found.fingerprint != self._fingerprint:
            raise CallerError(
                "This idempotency-key was used for another request.", status=422, code="caller_conflict"
            )
        kept = loads(self._seal.open(found.body))
        headers, document = kept if isinstance(kept, list) else (_HEADERS, kept)  # 0.1.0 kept no headers
        headers = {**headers, "idempotency-replayed": "true"}
        return Response(dumps(document), found.status, headers, media_type="application/json")

    def kept(self, answer: Answer) -> tuple[str, Answered]:
        """The answer as it is remembered."""
        body = self._seal.close(dumps([_headers(answer), answer.document]))
        until = int(time.time() * 1000) + _REMEMBERED
        return self._place, Answered(self._fingerprint, answer.status, body, until)


def _credential(request: Request) -> bytes:
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    text = given.strip() if scheme.lower() == "bearer" else request.headers.get("x-api-key", "").strip()
    return text.encode("latin-1", "replace")[: _MAX_CREDENTIAL + 1]


async def _data(request: Request) -> bytes:
    data = b""
    async for piece in request.stream():
        data += piece
        if len(data) > LARGEST:
            raise CallerError(
                f"The body is larger than {LARGEST} bytes.", status=413, code="caller_body_too_large"
            )
    return data


def _query(operation: Operation, request: Request) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, value in request.query_params.multi_items():
        if name not in operation.query:
            known = ", ".join(operation.query) or "none"
            raise CallerError(f"No parameter {name!a} here; there are: {known}.", param=name[:64])
        if name in found or len(value) > 512 or "\0" in value:
            raise CallerError(f"{name} must come once, with at most 512 characters and no NUL.", param=name)
        found[name] = value
    return found


def _matched(operation: Operation, given: str | None, change: Change) -> None:
    """Nobody overwrites what they have not seen."""
    if given is None:
        if operation.matched:
            raise CallerError(
                "Send the etag of what you have read as if-match (or if-match: *).",
                status=428,
                code="caller_precondition_required",
            )
        return
    match = _ETAG.match(given.strip())
    if given.strip() != "*" and (match is None or int(match[1]) != change.expect):
        raise stale()


def _headers(answer: Answer) -> dict[str, str]:
    headers = dict(_HEADERS)
    if answer.version is not None:
        headers["etag"] = f'"v{answer.version}"'
    elif answer.tag:
        headers["etag"] = f'"{answer.tag}"'
    if answer.made:
        headers["location"] = f"{PREFIX}/{quote(answer.made)}"
    return headers


def _response(answer: Answer) -> Response:
    headers = _headers(answer)
    if answer.lines is not None:
        return StreamingResponse(answer.lines, 200, headers, media_type="application/x-ndjson")
    return Response(dumps(answer.document), answer.status, headers, media_type="application/json")


def _failed(error: Exception, identity: str) -> Response:
    if isinstance(error, Conflict):
        error = conflicted(error)
    elif isinstance(error, LedgerError):
        log.error("the admin API can't use the ledger: %s", error)
        error = FaultError("The ledger can't be used now.", code="gateway_ledger_unavailable", retry_after=1)
    elif isinstance(error, ClientDisconnect):
        error = CallerError("The body did not arrive.")
    elif isinstance(error, TimeoutError):
        error = FaultError("This took too long.", code="gateway_unavailable", retry_after=1)
    elif not isinstance(error, GatewayError):
        log.error("the admin API failed", exc_info=error)
        error = FaultError("The admin API failed; the log says why.", status=500, code="gateway_fault")
    headers = dict(_HEADERS)
    if error.status == 401:
        headers["www-authenticate"] = "Bearer"
    if error.retry_after is not None:
        headers["retry-after"] = str(max(1, round(error.retry_after)))
    return Response(dumps(error.document(identity)), error.status, headers, media_type="application/json")
