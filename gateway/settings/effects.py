"""What a policy does: `require = { … }` and `set = { … }`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gateway.core.policy import Demand, Globs, Setting, Tooling
from gateway.settings.conditions import Patterns
from gateway.settings.kinds import INVALID, Flag, Kind, Number, Reading, Text, Wrong
from gateway.settings.tables import Field, Table
from gateway.settings.tree import Node

_GLOB = Text(pattern=r"[^!\s].*", meaning="a name or glob", most=256)
_TOKENS = Number(least=1, most=1e9, whole=True)


class Given(Kind):
    """true, which alone means something."""

    def __init__(self, instead: str) -> None:
        self._instead = instead

    def parse(self, node: Node, reading: Reading) -> bool:
        if node.value is not True:
            raise Wrong(f"must be true; {self._instead}")
        return True

    def schema(self) -> dict[str, Any]:
        return {"const": True}


class _Either(Kind):
    """A table, or a plain value that stands for one."""

    def __init__(self, table: Table, plain: Kind, of: Callable[[Any], Any]) -> None:
        self._table, self._plain, self._of = table, plain, of

    def read(self, node: Node, reading: Reading) -> Any:
        if isinstance(node.value, dict):
            return self._table.read(node, reading)
        value = self._plain.read(node, reading)
        return INVALID if value is INVALID else self._of(value)

    def schema(self) -> dict[str, Any]:
        return {"anyOf": [self._plain.schema(), self._table.schema()]}


def _something(make: Callable[..., Any], told: str) -> Callable[[dict[str, Any], Node, Reading], Any]:
    """A table that must say something."""

    def finish(values: dict[str, Any], node: Node, reading: Reading) -> Any:
        if not node.value:
            reading.fault(node, f"says nothing: {told}")
            return INVALID
        return INVALID if node.value.keys() - values.keys() else make(**values)

    return finish


_TOOLING = Table(
    "tools",
    Tooling,
    {
        "only": Field(Patterns(), "no tool but these"),
        "strict": Field(Given("leave it out where tools need not be strict"), "every function is strict"),
    },
    finish=_something(Tooling, 'give only = ["search_*"], strict = true, or both'),
)
_LONGEST = Table(
    "max_tokens",
    int,
    {"most": Field(_TOKENS, "stated, and not above this", required=True)},
    finish=lambda values, node, reading: values.get("most", INVALID),
)
_STATED = ("user", "metadata", "seed", "safety_identifier")


def _demand(values: dict[str, Any], node: Node, reading: Reading) -> Any:
    if not node.value:
        reading.fault(node, "demands nothing: give one of " + ", ".join(REQUIRE.fields))
        return INVALID
    if node.value.keys() - values.keys():
        return INVALID
    stated = [name for name in _STATED if values.pop(name, False)]
    most = values.pop("max_tokens", 0)
    if most is True:
        stated.append("max_tokens")
    structured = values.pop("response_format", "") != ""
    return Demand(structured, 0 if most is True else most, stated=tuple(stated), **values)


_PRESENT = Given("leave it out where it need not be stated")

REQUIRE = Table(
    "require",
    Demand,
    {
        "response_format": Field(
            Text(choices=("json_schema",)), '"json_schema": the answer follows a schema the caller gives'
        ),
        "max_tokens": Field(
            _Either(_LONGEST, _PRESENT, bool), "true: the caller bounds the answer; or { most = 4096 }"
        ),
        "tools": Field(
            _Either(
                _TOOLING,
                Text(choices=("none", "constrained")),
                lambda word: Tooling(none=word == "none", constrained=word == "constrained"),
            ),
            '"none", "constrained", or { only = ["search_*"], strict = true }',
        ),
        "tool_choice": Field(Patterns(), 'what tool_choice may be: ["auto", "none"]; absent is "auto"'),
        "tags": Field(Patterns(each=_GLOB), "the call has such a tag"),
        "stream": Field(Flag(), "true: only streamed; false: never"),
        **{name: Field(_PRESENT, f"{name} is stated") for name in _STATED},
    },
    finish=_demand,
)

_EXACT: dict[str, Kind] = {
    "seed": Number(least=-(2**63), most=2**63 - 1, whole=True),
    "parallel_tool_calls": Flag(),
    "store": Flag(),
    "user": Text(most=256),
    "safety_identifier": Text(most=64),
    "service_tier": Text(choices=("auto", "default", "flex", "priority", "scale")),
    "tool_choice": Text(choices=("auto", "none")),
}
_BOUNDED = {
    "temperature": Number(most=2),
    "top_p": Number(most=1),
    "max_tokens": _TOKENS,
    "n": Number(least=1, most=128, whole=True),
}


def _ceiling(name: str, number: Number) -> Kind:
    limit = Table(
        name,
        dict,
        {"at_most": Field(number, "lowered to this where it is higher or absent", required=True)},
        finish=lambda values, node, reading: Setting(name, at_most=values.get("at_most")),
    )
    return _Either(limit, number, lambda value: Setting(name, value))


_REMOVAL = Table(
    "tools",
    dict,
    {"remove": Field(Patterns(each=_GLOB), "tools to take out, by name", required=True)},
    finish=lambda values, node, reading: Setting("tools", remove=values.get("remove", Globs())),
)


def _set(values: dict[str, Any], node: Node, reading: Reading) -> Any:
    if not node.value:
        reading.fault(node, "sets nothing: give one of " + ", ".join(SET.fields))
        return INVALID
    if node.value.keys() - values.keys():
        return INVALID
    made = [item if isinstance(item, Setting) else Setting(name, item) for name, item in values.items()]
    return tuple(made)


SET = Table(
    "set",
    Setting,
    {
        **{
            name: Field(_ceiling(name, kind), "a value, or { at_most = … }")
            for name, kind in _BOUNDED.items()
        },
        **{name: Field(kind, "this value, whatever the caller says") for name, kind in _EXACT.items()},
        "tools": Field(_REMOVAL, '{ remove = ["shell*"] }: taken out of what is offered'),
    },
    finish=_set,
)
