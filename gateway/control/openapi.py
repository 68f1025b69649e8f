"""The admin API as an OpenAPI 3.1 document, made of the declarations that it runs on."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from gateway import __version__
from gateway.control.operation import MOST, Operation
from gateway.control.resources.keys import STATES

_TEXT: dict[str, Any] = {"type": "string"}
_MAYBE: dict[str, Any] = {"type": ["string", "null"]}
_NUMBER: dict[str, Any] = {"type": "number"}
_LIST: dict[str, Any] = {"type": "array", "items": _TEXT}
_ANY: dict[str, Any] = {"type": "object"}


def _object(**members: Any) -> dict[str, Any]:
    return {"type": "object", "properties": members, "required": list(members)}


def _page(of: str) -> dict[str, Any]:
    return _object(data={"type": "array", "items": {"$ref": f"#/components/schemas/{of}"}}, next=_MAYBE)


_KEY = dict(
    id=_TEXT, name=_TEXT, state={"enum": list(STATES)}, tenant=_TEXT, team=_TEXT,
    user=_TEXT, roles=_LIST, models=_LIST, endpoints=_LIST, tags=_LIST, networks=_LIST, expires=_MAYBE,
    previous_until=_MAYBE, created=_MAYBE, made_by=_TEXT, version={"type": ["integer", "null"]},
)  # fmt: skip
_RULE = dict(
    id=_TEXT, scope=_LIST, match=_TEXT, unit=_TEXT, amount=_NUMBER, per=_MAYBE, mode=_TEXT,
    on_store_loss=_TEXT, warn=_NUMBER,
)  # fmt: skip
_RECORD = _object(
    chain=_TEXT, n={"type": "integer"}, ts_ms={"type": "integer"}, actor=_ANY, action=_TEXT, target=_TEXT,
    previous=_TEXT, hash=_TEXT,
)  # fmt: skip

SCHEMAS: dict[str, Any] = {
    "object": _ANY,
    "Page": _object(data={"type": "array", "items": _ANY}, next=_MAYBE),
    "Key": _object(**_KEY),
    "NewKey": _object(key={**_TEXT, "description": "the secret; shown only now"}, **_KEY),
    "KeyPage": _page("Key"),
    "Tenant": _object(name=_TEXT, models=_LIST, endpoints=_LIST, networks=_LIST, tags=_LIST, teams=_ANY,
                      users=_ANY, disabled={"type": "boolean"}, capture=_ANY),
    "TenantPage": _page("Tenant"),
    "LimitRule": _object(**_RULE),
    "LimitPage": _page("LimitRule"),
    "Limit": _object(**_RULE, buckets=_object(data={"type": "array", "items": _ANY}, next=_MAYBE),
                     raises={"type": "array", "items": _ANY}),
    "Raise": _object(id=_TEXT, rule=_TEXT, value=_TEXT, by=_NUMBER, until=_TEXT),
    "RaisePage": _page("Raise"),
    "Usage": _object(data={"type": "array", "items": _ANY}),
    "AuditRecord": _RECORD,
    "AuditPage": _page("AuditRecord"),
    "Verified": _object(whole={"type": "boolean"}, chains=_ANY),
    "Whoami": _object(kind=_TEXT, id=_TEXT, name=_TEXT, roles=_LIST, tenant=_TEXT, permissions=_LIST),
    "Checked": _object(valid={"type": "boolean"}, faults={"type": "array", "items": _ANY}, warnings=_LIST),
    "Applied": {
        **_object(revision=_TEXT),
        "properties": {
            "revision": _TEXT,
            "set_aside": {**_LIST, "description": "where files are now that are no part of it any more"},
        },
    },
    "HistoryPage": _object(data={"type": "array", "items": _ANY}, next=_MAYBE),
    "Deleted": _object(deleted=_TEXT),
    "Error": _object(error=_object(message=_TEXT, type=_TEXT, param=_MAYBE, code=_TEXT, request_id=_TEXT)),
}  # fmt: skip

_REFUSALS = {
    "400": "The request is not as it must be; the message says what would be right",
    "401": "No credential that opens anything here",
    "403": "The role, or the bounds of the key, do not allow it",
    "404": "There is no such thing, or none that may be seen",
    "409": "It contradicts what is there, or stands in the file",
    "412": "It has been changed meanwhile",
    "413": "The body is too large",
    "422": "The idempotency-key was used for another request, or with another credential",
    "428": "if-match is missing",
    "503": "The ledger can't be used now",
}
_WHEN = {"type": "string", "anyOf": [{"format": "date"}, {"format": "date-time"}]}
_PARAMETERS: dict[str, dict[str, Any]] = {
    "limit": {"type": "integer", "minimum": 1, "maximum": MOST},
    "top": {"type": "integer", "minimum": 1, "maximum": 10_000},
    "since": _WHEN,
    "until": _WHEN,
    "state": {"enum": list(STATES)},
    "If-Match": {**_TEXT, "pattern": r'^(\*|(W/)?"[0-9A-Za-z_.-]{1,64}")$'},
    "Idempotency-Key": {**_TEXT, "pattern": "^[!-~]{1,255}$"},
}


def document(operations: tuple[Operation, ...], prefix: str) -> dict[str, Any]:
    """The whole description."""
    paths: dict[str, Any] = {}
    for operation in operations:
        paths.setdefault(prefix + operation.path, {})[operation.method.lower()] = _operation(operation)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Penstock admin API",
            "version": __version__,
            "description": "Keys, tenants, limits, usage, audit and configuration of a gateway.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "security": [{"bearer": []}],
        "paths": paths,
        "components": {
            "schemas": SCHEMAS,
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
        },
    }


def _operation(operation: Operation) -> dict[str, Any]:
    found: dict[str, Any] = {
        "operationId": _identity(operation),
        "summary": operation.summary,
        "description": f"Needs the permission {operation.permission}.",
        "tags": [operation.path.split("/")[1]],
        "parameters": _parameters(operation),
        "responses": _responses(operation),
    }
    if operation.body is not None:
        content: dict[str, Any] = {"schema": _nullable(operation.body.schema())}
        if operation.example is not None:
            content["example"] = operation.example
        found["requestBody"] = {
            "required": "required" in operation.body.schema(),
            "content": {"application/json": content},
        }
    return found


def _nullable(schema: dict[str, Any]) -> dict[str, Any]:
    """null is as good as absent, or takes a member back to its default."""
    required = schema.get("required", ())
    members = {
        name: each if name in required else {"anyOf": [each, {"type": "null"}]}
        for name, each in schema["properties"].items()
    }
    return {**schema, "properties": members}


def _identity(operation: Operation) -> str:
    words = re.sub(r"[{}]", "", operation.path).strip("/").replace("/", "_")
    return f"{operation.method.lower()}_{words}"


def _parameters(operation: Operation) -> list[dict[str, Any]]:
    places = [("path", name, "which one", True) for name in re.findall(r"{(\w+)}", operation.path)]
    places += [("query", name, told, False) for name, told in operation.query.items()]
    if operation.matched:
        places.append(("header", "If-Match", "the etag of what was read", True))
    if operation.alone:
        places.append(("header", "If-Match", "the etag of the configuration that was read", False))
    if operation.keyed:
        places.append(("header", "Idempotency-Key", "the same request again gets the same answer", False))
    return [
        {"in": place, "name": name, "description": told, "required": required, "schema": schema}
        for schema, (place, name, told, required) in ((_schema(*each[:2]), each) for each in places)
    ]


def _schema(place: str, name: str) -> dict[str, Any]:
    return _TEXT if place == "path" else _PARAMETERS.get(name, _TEXT)


def _responses(operation: Operation) -> Mapping[str, Any]:
    kind = "application/x-ndjson" if operation.answer == "lines" else "application/json"
    schema = _TEXT if operation.answer == "lines" else _ref(operation.answer)
    good = {"description": "Done", "content": {kind: {"schema": schema}}}
    refused = {"application/json": {"schema": _ref("Error")}}
    return {
        str(operation.status): good,
        **{status: {"description": _REFUSALS[status], "content": refused} for status in _refused(operation)},
    }


def _refused(operation: Operation) -> list[str]:
    """The statuses of refusals that an operation may give."""
    writes = operation.method != "GET"
    found = {
        "404": "{" in operation.path or operation.path.endswith("/rollback"),
        "409": writes,
        "412": writes,
        "413": writes,
        "422": operation.keyed,
        "428": operation.matched,
    }
    return [status for status in _REFUSALS if found.get(status, True)]


def _ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}
