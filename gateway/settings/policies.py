"""`[[policies]]` and `[access]`: what callers may do, beyond what their keys say."""

from __future__ import annotations

from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import Any

from gateway.core.policy import DEFAULT, LEVELS, Access, Policy
from gateway.settings.conditions import WHEN
from gateway.settings.effects import REQUIRE, SET, Given
from gateway.settings.faults import did_you_mean, quote
from gateway.settings.kinds import INVALID, Reading, Text
from gateway.settings.tables import Field, Many, Table, repeated
from gateway.settings.tree import Node

_NAME = Text(pattern=r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", meaning="a name of letters, digits, _ . -", most=64)

_EFFECTS = ("allow", "deny", "require", "set")


def _policy(values: dict[str, Any], node: Node, reading: Reading) -> Any:
    given = [name for name in _EFFECTS if name in node.value]
    spelt = node.value.keys() <= POLICY.fields.keys()
    if not given and spelt:
        reading.fault(node, 'does nothing: give one of allow = true, deny = "why", require = {…}, set = {…}')
    elif len(given) > 1 and set(given) != {"require", "set"}:
        other = next(name for name in given if name != given[0])
        told = f"{given[0]} is given too; only require and set stand together"
        reading.fault(node.value[other], told, at_key=True)
        return INVALID
    if values.get("name") == DEFAULT:
        reading.fault(node.value["name"], f"{quote(DEFAULT)} stands for [access] default in metrics and logs")
        return INVALID
    if not given or "name" not in values or node.value.keys() - values.keys():
        return INVALID
    return Policy(**values)


POLICY = Table(
    "policies",
    Policy,
    {
        "name": Field(_NAME, "a name of its own: refusals, metrics and the audit name it", required=True),
        "when": Field(WHEN, "all of it must hold; absent: every call"),
        "allow": Field(
            Given('to refuse calls give deny = "why"'), "lets calls pass where the default is deny"
        ),
        "deny": Field(Text(most=500), "refuses; the text is told to the caller"),
        "require": Field(REQUIRE, "refuses calls that lack something"),
        "set": Field(SET, "changes what is forwarded"),
        "mode": Field(Text(choices=("enforce", "shadow")), "shadow counts, refuses and changes nothing"),
    },
    finish=_policy,
    rules={
        "oneOf": [
            {"required": ["allow"]},
            {"required": ["deny"]},
            {"anyOf": [{"required": ["require"]}, {"required": ["set"]}]},
        ]
    },
)


def _access(values: dict[str, Any], node: Node, reading: Reading) -> Any:
    levels = values.get("classifications", LEVELS)
    if len(set(levels)) < len(levels):
        reading.fault(node.value["classifications"], "names a level twice")
        return INVALID
    return Access(**values)


ACCESS = Table(
    "access",
    Access,
    {
        "default": Field(Text(choices=("allow", "deny")), "deny: only what a policy allows is let through"),
        "classifications": Field(
            Many(
                Text(pattern="[a-z][a-z0-9_-]*", meaning="the name of a level in small letters", most=64),
                least=2,
                most=32,
            ),
            "levels of data, lowest first",
        ),
    },
    finish=_access,
)


def check(
    tree: Node, policies: tuple[Policy, ...], access: Access, backends: set[str], reading: Reading
) -> None:
    """What only shows beside other sections: names, levels, backends that are not there."""
    node = tree.child("policies")
    entries = node.value if node is not None and isinstance(node.value, list) else []
    names = [(item.value, item) for entry in entries if (item := entry.child("name")) is not None]
    repeated([(name, item) for name, item in names if isinstance(name, str)], "duplicate name", reading)
    for entry in entries:
        when = entry.child("when")
        for place in _conditions(when) if when is not None else ():
            _levels(place, access, reading)
            _backends(place, backends, reading)
    if access.default == "deny" and not any(policy.allow and policy.mode == "enforce" for policy in policies):
        stated = (tree.child("access") or tree).child("default")
        if stated is not None:
            reading.warn(stated, "no policy allows anything: every call is refused")


def _conditions(when: Node) -> Iterator[Node]:
    waiting = [when]
    while waiting:
        place = waiting.pop()
        yield place
        for name in ("any", "not"):
            inner = place.child(name)
            if inner is not None:
                waiting += inner.value if isinstance(inner.value, list) else [inner]


def _levels(place: Node, access: Access, reading: Reading) -> None:
    item = place.child("classification")
    if item is None:
        return
    given = item.value
    values = [*given.values()] if isinstance(given, dict) else given if isinstance(given, list) else [item]
    for level in values:
        if isinstance(level.value, str) and level.value not in access.classifications:
            near = did_you_mean(level.value, access.classifications)
            told = f"no level {quote(level.value)}{near}  (levels: {', '.join(access.classifications)})"
            reading.fault(level, told)


def _backends(place: Node, backends: set[str], reading: Reading) -> None:
    item = place.child("backend")
    if item is None:
        return
    for name in item.value if isinstance(item.value, list) else [item]:
        if isinstance(name.value, str) and not any(
            fnmatchcase(known, name.value.removeprefix("!")) for known in backends
        ):
            near = did_you_mean(name.value, backends)
            reading.fault(name, f"no backend is named {quote(name.value)}{near}")
