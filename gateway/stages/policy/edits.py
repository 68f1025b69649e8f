"""What `set` does to a call: values, ceilings, and tools that are taken out."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from gateway.core.amend import Draft
from gateway.core.policy import Globs, Setting
from gateway.core.tools import CHOICES, LISTS, STANDING, names_of
from gateway.stages.policy.demands import Unmet
from gateway.stages.policy.predicates import matcher
from gateway.stages.policy.seen import ALL_BOUNDS, BOUNDS, EMPTY, GENERATING, OPAQUE, Seen

_CHAT, _OLD, _NEW, _ANTHROPIC = "chat/completions", "completions", "responses", "messages"
# Where a member that is absent is added. Elsewhere it means nothing, and some servers refuse what they do
# not know; one that is there is changed everywhere.
_ADDED = {
    "temperature": (_CHAT, _OLD, _NEW, _ANTHROPIC),
    "top_p": (_CHAT, _OLD, _NEW, _ANTHROPIC),
    "max_tokens": (_CHAT, _OLD, _NEW, _ANTHROPIC),
    "n": (_CHAT, _OLD),
    "seed": (_CHAT, _OLD),
    "parallel_tool_calls": (_CHAT, _NEW),
    "tool_choice": (_CHAT, _NEW),
    "store": (_CHAT, _NEW),
    "user": (_CHAT, _OLD, _NEW, "embeddings", "images/generations"),
    "safety_identifier": (_CHAT, _NEW),
    "service_tier": (_CHAT, _NEW),
}
_NEED_TOOLS = ("parallel_tool_calls", "tool_choice")
_BY_DEFAULT_ONE = ("n",)  # absent means 1: no ceiling is lower
# Models that take max_completion_tokens alone.
_REASONING = re.compile(r"(?:.*/)?(?:o[1-9]|gpt-[5-9])")

Edit = Callable[[Draft], None]


def edit_of(setting: Setting, seen: Seen) -> Edit | Unmet | None:
    """The change that a setting makes to this call: None where there is none to make, `Unmet` where it
    would have to be made and can't be."""
    if seen.kind == EMPTY:
        return None
    if seen.kind == OPAQUE:
        return Unmet(
            f"'{setting.member}' to be set, which can't be done in a body sent to {seen.call.path[:128]}"
        )
    if setting.remove is not None:
        return _removal(setting.remove, seen)
    if seen.call.document is None:
        there = any(seen.form_has(name) for name in _names(setting.member))
        return Unmet(f"'{setting.member}' to be set, which can't be done in a form") if there else None
    values = _values(setting, seen)
    if not values:
        return None

    def put(draft: Draft) -> None:
        for name, value in values.items():
            draft.put(name, value)

    return put


def _names(member: str) -> tuple[str, ...]:
    return ALL_BOUNDS if member == "max_tokens" else (member,)


def _values(setting: Setting, seen: Seen) -> dict[str, Any]:
    """Members with their new values."""
    document, member = seen.document, setting.member
    stated = [name for name in _names(member) if document.get(name) is not None]
    found = {}
    for name in stated:
        value = _lowered(document[name], setting)
        if type(value) is not type(document[name]) or value != document[name]:
            found[name] = value
    effective = BOUNDS.get(seen.call.endpoint, (member,)) if member == "max_tokens" else (member,)
    if not any(name in stated for name in effective) and _added(setting, seen):
        found[_own_name(member, seen)] = _lowered(None, setting)
    return found


def _lowered(given: Any, setting: Setting) -> Any:
    if setting.at_most is None:
        return setting.value
    number = type(given) is int or type(given) is float
    # Below zero is no lower: to some servers -1 is no bound at all.
    return given if number and 0 <= given <= setting.at_most else setting.at_most


def _added(setting: Setting, seen: Seen) -> bool:
    member = setting.member
    if seen.kind != GENERATING and member != "user":
        return False
    if seen.call.endpoint not in _ADDED[member] or (
        setting.at_most is not None and member in _BY_DEFAULT_ONE
    ):
        return False
    return member not in _NEED_TOOLS or bool(seen.document.get("tools"))


def _own_name(member: str, seen: Seen) -> str:
    """How this endpoint calls the bound of an answer."""
    if member != "max_tokens":
        return member
    bounds, plan = BOUNDS[seen.call.endpoint], seen.call.plan
    model = (plan.targets[0].model if plan is not None else "") or seen.call.model
    return "max_completion_tokens" if len(bounds) > 1 and _REASONING.match(model) else bounds[0]


# -- tools


def _removal(remove: Globs, seen: Seen) -> Edit | Unmet | None:
    document, matches = seen.document, matcher(remove)
    found = seen.tools()
    if not found.unknown and not any(map(matches, found.names)):
        return None
    listed = [name for name in LISTS if document.get(name) is not None]
    if any(type(document[name]) is not list for name in listed) or type(document.get("prompt")) is dict:
        return Unmet("tools that can be told by name", "tools")
    items = document.get("input")
    if type(items) is list and any(type(item) is dict and "tools" in item for item in items):
        return Unmet(f"that no tools among {', '.join(remove.of)} are brought in by 'input'", "input")

    def wanted(tool: Any) -> bool:
        told = names_of(tool)
        return not told.unknown and not any(map(matches, told.names))

    def thin(draft: Draft) -> None:
        for name in listed:
            if not all(map(wanted, document[name])):
                draft.thin(name, wanted)
        for name, tool in STANDING.items():
            if name in document and matches(tool):
                draft.drop(name)
        _tidy(draft, seen)

    return thin


def _tidy(draft: Draft, seen: Seen) -> None:
    """A choice among tools that are gone goes too: providers refuse it."""
    document = draft.document
    left = bool(document.get("tools") or document.get("functions"))
    told = Seen(seen.call, None)
    stale = not left or bool(
        set(told.choice().names) - {"auto", "none", "required", "any", *told.tools().names}
    )
    for name in (*CHOICES, "parallel_tool_calls"):
        if name in document and (not left or (stale and name in CHOICES)):
            draft.drop(name)
