"""`/admin/v1/status`, `whoami`, `models` and `backends`: what there is, and who asks."""

from __future__ import annotations

from gateway.control.operation import PAGING, Answer, Ask, Operation, page


async def _status(ask: Ask) -> Answer:
    ready, _ = ask.desk.ready()
    return Answer({"ready": ready, **ask.desk.status()})


async def _whoami(ask: Ask) -> Answer:
    operator = ask.operator
    return Answer(
        {
            "kind": operator.actor.kind,
            "id": operator.actor.id,
            "name": operator.actor.name,
            "roles": list(operator.roles),
            "tenant": operator.tenant,
            "permissions": operator.permissions(),
        }
    )


async def _models(ask: Ask) -> Answer:
    items = [
        {
            "name": rule.name,
            "targets": [
                {"backend": t.backend, "model": t.model or None, "weight": t.weight} for t in rule.targets
            ],
            "fallback": [{"backend": t.backend, "model": t.model or None} for t in rule.fallback],
        }
        for rule in ask.settings.models
    ]
    return Answer(page(items, ask, "name"))


async def _backends(ask: Ask) -> Answer:
    items = [
        {
            "name": backend.name,
            "kind": backend.kind,
            "base_url": backend.base_url,
            "keys": [key.source for key in backend.api_keys],
        }
        for backend in ask.settings.backends.values()
    ]
    return Answer(page(items, ask, "name"))


OPERATIONS = (
    Operation("GET", "/status", "status.read", "What runs, and whether it accepts calls", _status),
    Operation("GET", "/whoami", "status.read", "Who asks, and what they may", _whoami, answer="Whoami"),
    Operation(
        "GET", "/models", "status.read", "Models, and who answers", _models, query=PAGING, answer="Page"
    ),
    Operation("GET", "/backends", "status.read", "Backends", _backends, query=PAGING, answer="Page"),
)  # fmt: skip
