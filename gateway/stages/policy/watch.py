"""Which members of a body a policy looks at or sets: these must not be open to two readings."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from gateway.core.policy import Policy
from gateway.core.tools import CHOICES, MEMBERS
from gateway.stages.policy.seen import ALL_BOUNDS

_TOOLS = (*MEMBERS, "input", "prompt")
_BY_NAME = {
    "tools": _TOOLS,
    "tool_choice": CHOICES,
    "max_tokens": ALL_BOUNDS,
    "temperature": ("temperature",),
    "cost": (*ALL_BOUNDS, "n", "best_of"),
    "stream": ("stream",),
    "images": ("messages", "input", "prompt"),
}
_FORMATS = ("response_format", "text", "output_config", "output_format")
_DEEP = frozenset(("tools", "functions", *CHOICES, *_FORMATS))


def members(policy: Policy) -> Iterator[str]:
    """The members of a body that matter to a policy."""
    for name in policy.when.attributes():
        yield from _BY_NAME.get(name, ())
    for setting in policy.set:
        yield from _BY_NAME.get(setting.member, (setting.member,))
        if setting.member == "tools":
            yield from CHOICES
    demand = policy.require
    if demand is None:
        return
    yield from demand.stated
    if demand.response_format:
        yield from _FORMATS
    if demand.most_tokens or "max_tokens" in demand.stated:
        yield from ALL_BOUNDS
    if demand.stream is not None:
        yield "stream"
    if demand.tools is not None:
        yield from (*_TOOLS, *CHOICES)
    if demand.tool_choice is not None:
        yield from (*_TOOLS, *CHOICES)


def inside(watched: Iterable[str]) -> tuple[str, ...]:
    """Those among them whose own members matter as well."""
    return tuple(name for name in watched if name in _DEEP)
