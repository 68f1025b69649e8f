"""`/admin/v1/tenants`: tenants of the ledger, their teams and users; those of the file are shown too."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from gateway.control.body import CHANGED_TENANT, NEW_TENANT
from gateway.control.changes import not_found, read_only
from gateway.control.operation import PAGING, Answer, Ask, Operation, changed, page
from gateway.core.group import Tenant, tenant_of
from gateway.core.records import TENANT, Entity
from gateway.settings.quantities import Duration, Size


def shown(tenant: Tenant, version: int | None = None) -> dict[str, Any]:
    """A tenant as it is written: sizes and durations with their units."""
    document = asdict(tenant)
    document["from"] = document.pop("origin")
    document["capture"]["most"] = Size().show(tenant.capture.most)
    document["capture"]["keep"] = Duration().show(tenant.capture.keep)
    return {**document, "version": version}


def _visible(ask: Ask, name: str) -> bool:
    return not ask.operator.tenant or name == ask.operator.tenant


async def _list(ask: Ask) -> Answer:
    items = [shown(tenant) for tenant in ask.desk.tenants() if _visible(ask, tenant.name)]
    return Answer(page(items, ask, "name"))


async def _get(ask: Ask) -> Answer:
    name = ask.path["tenant"]
    if name in ask.settings.tenants and _visible(ask, name):
        return Answer(shown(ask.settings.tenants[name]))
    entity = await _entity(ask)
    return Answer(shown(tenant_of(entity.document), entity.version), version=entity.version)


async def _entity(ask: Ask) -> Entity:
    name = ask.path["tenant"]
    entity = await ask.desk.found(TENANT, lambda: name)
    if entity is None or not _visible(ask, name):
        raise not_found("tenant", name)
    return entity


async def _own(ask: Ask) -> Entity:
    name = ask.path["tenant"]
    if name in ask.settings.tenants:
        raise read_only("tenant", name, ask.settings)
    return await _entity(ask)


async def _create(ask: Ask) -> Answer:
    change, tenant = ask.changes.new_tenant(ask.values)
    answer = changed(change, shown(tenant), 201, f"tenants/{tenant.name}")
    before = await ask.desk.do(lambda books: books.entity(TENANT, tenant.name))
    if before is not None:  # one of that name was deleted: versions go on
        answer.version = answer.document["version"] = before.version + 1
    return answer


async def _patch(ask: Ask) -> Answer:
    entity = await _own(ask)
    change, tenant = ask.changes.changed_tenant(entity, tenant_of(entity.document), ask.values)
    return changed(change, shown(tenant))


async def _delete(ask: Ask) -> Answer:
    entity = await _own(ask)
    change = ask.changes.deleted_tenant(entity, tenant_of(entity.document))
    return Answer({"deleted": entity.id}, change=change)


_NEW = {"name": "globex", "models": ["gpt-4o*"], "teams": {"search": {"models": ["gpt-4o-mini"]}}}

OPERATIONS = (
    Operation("GET", "/tenants", "tenants.read", "List tenants", _list, query=PAGING, answer="TenantPage"),
    Operation(
        "POST", "/tenants", "tenants.write", "Make a tenant", _create,
        body=NEW_TENANT, example=_NEW, answer="Tenant", status=201, keyed=True,
    ),
    Operation("GET", "/tenants/{tenant}", "tenants.read", "One tenant", _get, answer="Tenant"),
    Operation(
        "PATCH", "/tenants/{tenant}", "tenants.write", "Change members; null takes one back to its default",
        _patch, body=CHANGED_TENANT, example={"disabled": True}, answer="Tenant", matched=True,
    ),
    Operation(
        "DELETE", "/tenants/{tenant}", "tenants.write", "Remove a tenant; its keys stay", _delete,
        answer="Deleted", matched=True,
    ),
)  # fmt: skip
