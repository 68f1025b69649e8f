"""What `require` asks of a call, and what is missing."""

from __future__ import annotations

import re
from typing import Any, NamedTuple, TypeGuard

from gateway.core.policy import Demand, Globs, Tooling
from gateway.core.tools import each, names_of
from gateway.stages.policy.predicates import matcher, some
from gateway.stages.policy.seen import BOUNDS, EMPTY, GENERATING, OPAQUE, PLAIN, Seen

_DEPTH = 32  # of schemas inside schemas
_FLAT = frozenset(("name", "strict", "parameters", "input_schema"))  # of a function that is not in `function`
_BOUNDING = ("enum", "const", "$ref", "anyOf", "oneOf", "allOf")  # say what a value is, as `type` does
_LOCAL = re.compile(r"#(/(\$defs|definitions)/[^/]+)?")  # where a schema is looked at


class Unmet(NamedTuple):
    """What a policy requires, in words that follow "requires", and the member it is about."""

    what: str
    param: str | None = None


def unmet(demand: Demand, seen: Seen) -> Unmet | None:
    """The first thing that is missing."""
    if demand.tags is not None and not some(demand.tags, seen.call.tags):
        return Unmet(f"a tag ({_shown(demand.tags)}): send it as x-penstock-tags")
    if seen.kind == EMPTY:
        return None
    if seen.kind == OPAQUE:
        return _unreadable(demand, seen)
    if demand.tools is not None and (found := _tools(demand.tools, seen)) is not None:
        return found
    if demand.tool_choice is not None and (found := _choice(demand.tool_choice, seen)) is not None:
        return found
    if demand.stream is not None and seen.kind == GENERATING and seen.stream() is not demand.stream:
        return Unmet(f"'stream' to be {str(demand.stream).lower()}", "stream")
    return _members(demand, seen) if seen.kind == GENERATING else None


def _unreadable(demand: Demand, seen: Seen) -> Unmet | None:
    if demand == Demand(tags=demand.tags):
        return None
    return Unmet(f"what can't be checked in a body sent to {seen.call.path[:128]}")


def _members(demand: Demand, seen: Seen) -> Unmet | None:
    endpoint, document = seen.call.endpoint, seen.document
    if demand.response_format and not _structured(endpoint, document):
        if endpoint == "completions":
            return Unmet("an answer that follows a JSON schema, which this endpoint does not have")
        where = {"responses": "text.format", "messages": "output_config.format"}.get(
            endpoint, "response_format"
        )
        return Unmet(f"an answer that follows a JSON schema: '{where}' of type json_schema", where)
    bound = BOUNDS[endpoint][0]
    if demand.most_tokens or "max_tokens" in demand.stated:
        most = seen.max_tokens()
        if type(most) is not int:
            return Unmet(f"'{bound}' to be stated", bound)
        if demand.most_tokens and not 0 < most <= demand.most_tokens:
            return Unmet(f"'{bound}' to be at most {demand.most_tokens}", bound)
    for name in demand.stated:
        if name != "max_tokens" and document.get(name) is None:
            return Unmet(f"'{name}' to be stated", name)
    return None


def _structured(endpoint: str, document: dict[str, Any]) -> bool:
    """Whether the answer is to follow a schema that is there."""
    if endpoint == "chat/completions":
        form = document.get("response_format")
        return _json_schema(form) and _has_schema(form.get("json_schema"))
    if endpoint == "responses":
        text = document.get("text")
        form = text.get("format") if type(text) is dict else None
    else:
        config = document.get("output_config")
        form = config.get("format") if type(config) is dict else document.get("output_format")
    return _json_schema(form) and _has_schema(form)


def _json_schema(form: Any) -> TypeGuard[dict[str, Any]]:
    return type(form) is dict and form.get("type") == "json_schema"


def _has_schema(form: Any) -> bool:
    return type(form) is dict and type(form.get("schema")) is dict and bool(form["schema"])


# -- tools


def _tools(demand: Tooling, seen: Seen) -> Unmet | None:
    found = seen.tools()
    if demand.none:
        return Unmet("that no tools are offered", "tools") if found.names or found.unknown else None
    if demand.only is not None:
        matches = matcher(demand.only)
        wrong = next((name for name in found.names if not matches(name)), None)
        if wrong is not None:
            return Unmet(f"tools among {_shown(demand.only)}; `{wrong[:64]}` is another", "tools")
    if found.unknown:
        return Unmet("tools that can be told by name; something here is none or brings its own", "tools")
    if demand.strict or demand.constrained:
        return _strict(seen, demand.constrained)
    return None


def _strict(seen: Seen, constrained: bool) -> Unmet | None:
    count = 0
    for member, tool in each(seen.document):
        count += 1
        name = (names_of(tool).names or ("?",))[0][:64]
        function = tool.get("function", tool) if type(tool) is dict else {}
        if function is not tool and not _FLAT.isdisjoint(tool):
            return Unmet(f"functions that are written in one form; `{name}` is written in two", "tools")
        if member == "functions" or tool.get("type", "function") != "function" or type(function) is not dict:
            if constrained or member == "functions":
                return Unmet(f"strict functions as the only tools; `{name}` is none", "tools")
            continue
        if function.get("strict") is not True:
            return Unmet(f'"strict": true on every function; `{name}` lacks it', "tools")
        schemas = [function[name] for name in ("parameters", "input_schema") if name in function]
        if constrained and not (schemas and all(map(closed, schemas))):
            told = 'a schema with "additionalProperties": false throughout for every function'
            return Unmet(f"{told}; that of `{name}` is open", "tools")
    if constrained:
        return _unforced(seen, count)
    return None


def _unforced(seen: Seen, count: int) -> Unmet | None:
    """Constrained: functions alone, and no call of just any one of several is forced."""
    if len(seen.tools().names) > count:
        return Unmet("strict functions as the only tools", "tools")
    choice = seen.choice()
    if choice.unknown or (count > 1 and {"required", "any"} & set(choice.names)):
        return Unmet("that 'tool_choice' names the tool that must be called", "tool_choice")
    return None


def closed(schema: Any) -> bool:
    """Whether a JSON schema of an object lets nothing in that it does not name, at any depth."""
    if type(schema) is not dict or schema.get("type") != "object":
        return False
    waiting: list[tuple[Any, int]] = [(schema, 0)]
    while waiting:
        part, depth = waiting.pop()
        if type(part) is list:
            waiting += [(item, depth + 1) for item in part]
            continue
        if part is False:
            continue  # nothing fits it
        if depth > _DEPTH or type(part) is not dict or _lets_in(part):
            return False
        for name in ("properties", "$defs", "definitions"):
            inner = part.get(name)
            waiting += [(item, depth + 1) for item in inner.values()] if type(inner) is dict else []
        nested = ("items", "prefixItems", "anyOf", "oneOf", "allOf")
        waiting += [(part[name], depth + 1) for name in nested if name in part]
    return True


def _lets_in(part: dict[str, Any]) -> bool:
    """Whether a schema itself admits anything at all, or members that it does not name."""
    kind, reference = part.get("type"), part.get("$ref", "#")
    kinds = kind if type(kind) is list else [kind]
    if part.get("patternProperties") or "$dynamicRef" in part:
        return True
    if type(reference) is not str or _LOCAL.fullmatch(reference) is None:
        return True
    if "object" in kinds or "properties" in part:
        return part.get("additionalProperties") is not False
    if kind is None:
        return not any(name in part for name in _BOUNDING)
    if "array" not in kinds:
        return False
    # A list is for the first items alone (JSON Schema until 2019-09): what follows them is additional.
    return "items" not in part or (type(part["items"]) is list and part.get("additionalItems") is not False)


def _choice(demand: Globs, seen: Seen) -> Unmet | None:
    found = seen.choice()
    names = found.names or (("auto",) if seen.tools().names and seen.kind != PLAIN else ())
    if found.unknown or not all(map(matcher(demand), names)):
        return Unmet(f"'tool_choice' to be {_shown(demand)}", "tool_choice")
    return None


def _shown(globs: Globs) -> str:
    return ", ".join([*globs.of, *(f"not {but}" for but in globs.but)])[:256]
