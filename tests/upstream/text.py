"""What the model says: an answer that follows from the request, as text, a tool call or JSON."""

from __future__ import annotations

import json
from typing import Any

TEXT = "Grüße , the quick brown fox 🦊 jumps over 十二 lazy dogs while the river runs under the mill"


def words(number: int) -> list[str]:
    """`number` pieces of text, non-ASCII ones among them."""
    known = TEXT.split()
    return [(" " if index else "") + known[index % len(known)] for index in range(number)]


def wanted(document: dict[str, Any], default: int = 12) -> int:
    """How many pieces the request asks for: its max_tokens when that is less."""
    limit = document.get(
        "max_completion_tokens", document.get("max_tokens", document.get("max_output_tokens"))
    )
    return min(default, limit) if isinstance(limit, int) and limit > 0 else default


def instance(schema: dict[str, Any], depth: int = 0) -> Any:
    """A smallest value that a JSON schema accepts, as far as tests use schemas."""
    if "$ref" in schema:
        return {}
    if "enum" in schema:
        return schema["enum"][0]
    if "anyOf" in schema and depth < 8:
        return instance(schema["anyOf"][0], depth + 1)
    match schema.get("type"):
        case "object":
            return {name: instance(part, depth + 1) for name, part in schema.get("properties", {}).items()}
        case "array":
            return [instance(schema.get("items", {}), depth + 1)]
        case "integer" | "number":
            return 7
        case "boolean":
            return True
        case "null":
            return None
    return "forty-two"


def structured(document: dict[str, Any]) -> str | None:
    """The JSON text asked for by `response_format` (chat) or `text.format` (responses), if any."""
    wish = document.get("response_format") or (document.get("text") or {}).get("format") or {}
    if wish.get("type") == "json_schema":
        schema = wish.get("json_schema", wish).get("schema", {})
        definitions = schema.get("$defs", {})
        return json.dumps(instance(_resolved(schema, definitions)))
    return "{}" if wish.get("type") == "json_object" else None


def _resolved(schema: Any, definitions: dict[str, Any]) -> Any:
    """The schema with its local references put in place."""
    if isinstance(schema, list):
        return [_resolved(part, definitions) for part in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        return _resolved(definitions.get(schema["$ref"].rpartition("/")[2], {}), definitions)
    return {name: _resolved(part, definitions) for name, part in schema.items() if name != "$defs"}


def tool_call(document: dict[str, Any]) -> tuple[str, str] | None:
    """Name and arguments of the function this answer calls; None where it says something instead."""
    tools = [tool for tool in document.get("tools") or [] if tool.get("type") == "function"]
    messages = document.get("messages") or document.get("input") or []
    last = messages[-1] if isinstance(messages, list) and messages else {}
    answered = isinstance(last, dict) and (
        last.get("role") == "tool" or last.get("type") == "function_call_output"
    )
    if not tools or answered or document.get("tool_choice") == "none":
        return None
    function = tools[0].get("function", tools[0])
    return function["name"], json.dumps(instance(function.get("parameters") or {"type": "object"}))
