"""The admin app: health, readiness, metrics. Served by the supervisor, on the admin port only."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway import __version__
from gateway.control import api, openapi
from gateway.control.port import Desk
from gateway.core.codec import dumps
from gateway.core.errors import CallerError, FaultError, GatewayError

_HERE = {
    "/healthz": "200 while this process runs",
    "/readyz": "200 when calls are accepted, else 503, with the reasons",
    "/metrics": "Prometheus or OpenMetrics text",
    "/admin/v1/…": "the admin API, with the admin token; described at /admin/v1/openapi.json",
}


def build(control: Desk) -> Starlette:
    """The app over one supervisor."""
    described = dumps(openapi.document(api.OPERATIONS, api.PREFIX))

    async def healthz(request: Request) -> Response:
        return _json({"status": "ok"})

    async def readyz(request: Request) -> Response:
        ready, detail = control.ready()
        return _json({"ready": ready, **detail}, 200 if ready else 503)

    async def metrics(request: Request) -> Response:
        content_type, body = control.metrics.render(request.headers.get("accept", ""))
        return Response(body, headers={"content-type": content_type, "cache-control": "no-store"})

    async def here(request: Request) -> Response:
        return _json({"name": "penstock", "version": __version__, "paths": _HERE, "status": control.status()})

    async def description(request: Request) -> Response:
        return Response(described, headers={"cache-control": "no-store"}, media_type="application/json")

    endpoints: dict[str, Callable[[Request], Awaitable[Response]]] = {
        "/": here,
        "/healthz": healthz,
        "/readyz": readyz,
        "/metrics": metrics,
        f"{api.PREFIX}/openapi.json": description,
    }
    app = Starlette(
        routes=[
            *[Route(path, endpoint, methods=["GET"]) for path, endpoint in endpoints.items()],
            *api.Api(control).routes(),
        ],
        exception_handlers={HTTPException: _refusal, Exception: _fault},
    )
    app.router.redirect_slashes = False  # a path has one spelling; a redirect would name whatever Host says
    return app


def _json(document: Any, status: int = 200) -> Response:
    return Response(dumps(document), status, {"cache-control": "no-store"}, media_type="application/json")


async def _refusal(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    status = error.status_code
    if status == 404:
        refusal: GatewayError = CallerError(
            f"The admin port has no such path; it has {', '.join(_HERE)}.",
            status=404,
            code="caller_not_found",
        )
    else:
        there = (error.headers or {}).get("Allow", "GET")
        refusal = CallerError(
            f"This path does not take {request.method[:16]!a}; it takes {there}.",
            status=status,
            code="caller_method_not_allowed",
        )
    identity = f"adm_{secrets.token_hex(12)}"
    answer = _json(refusal.document(identity), status)
    answer.headers.update({**(error.headers or {}), "x-request-id": identity})
    return answer


async def _fault(request: Request, error: Exception) -> Response:
    return _json(FaultError("The admin port failed; the log says why.", status=500).document(""), 500)
