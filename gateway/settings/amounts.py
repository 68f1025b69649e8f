"""`[[limits]]`: how much of what, for whom, over which window."""

from __future__ import annotations

import hashlib
from typing import Any

from gateway.core.limit import MICROS, SCOPES, UNITS, LimitRule
from gateway.settings.conditions import Zone
from gateway.settings.kinds import INVALID, Number, Reading, Text
from gateway.settings.quantities import Window
from gateway.settings.tables import Field, Many, Table
from gateway.settings.tree import Node


def rule_id(
    scope: tuple[str, ...], unit: str, window: tuple[float, str], match: str, mode: str, *more: str
) -> str:
    """A stable id: changing only the amount keeps what has been counted.

    `more` is what else makes another limit of it, where that is not as usual: a time zone, a burst.
    """
    content = repr((scope, unit, window, match, mode, *more))
    return f"{'+'.join(scope)}.{unit}.{hashlib.sha256(content.encode()).hexdigest()[:8]}"


def _unit(node: Node, reading: Reading) -> str:
    given = [name for name in UNITS if name in node.value]
    if len(given) == 1:
        return given[0]
    if given:
        reading.fault(
            node.value[given[1]], f"{given[0]} is given too; one limit counts one thing", at_key=True
        )
    elif node.value.keys() <= LIMIT.fields.keys():  # else one of them was misspelt
        reading.fault(node, f"counts nothing: exactly one of {', '.join(UNITS)} must be given")
    return ""


def _window(unit: str, node: Node, reading: Reading) -> bool:
    per = node.child("per")
    if unit == "concurrent" and per is not None:
        reading.fault(per, "concurrent counts calls at once: it has no per", at_key=True)
        return False
    if unit and unit != "concurrent" and per is None:
        reading.fault(node, 'is missing: the window, "1m" (rolling) or "calendar month"', "per")
        return False
    return True


def _scope(values: dict[str, Any], node: Node, reading: Reading) -> tuple[str, ...]:
    scope: tuple[str, ...] = values.get("scope", ())
    place = node.child("scope")
    if place is None or not scope:
        return ()
    if len(set(scope)) < len(scope):
        reading.fault(place, "names a scope twice")
    elif "global" in scope and len(scope) > 1:
        reading.fault(place, '"global" stands alone: it is one bucket for all calls')
    elif scope == ("global",) and "match" in node.value:
        reading.fault(node.value["match"], "a global limit has nothing to match", at_key=True)
    else:
        return scope
    return ()


def _details(unit: str, values: dict[str, Any], node: Node, reading: Reading) -> bool:
    """Whether the keys that only some limits have stand where they mean something."""
    calendar = values.get("per", (0.0, ""))[1]
    good = True
    for name, means, why in (
        ("burst", unit == "requests" and not calendar, "is for requests in a rolling window"),
        ("zone", bool(calendar), 'is for calendar windows: per = "calendar day"'),
        ("unpriced", unit == "usd", "is for limits in usd"),
    ):
        item = node.child(name)
        if item is not None and unit and not means and ("per" in values or unit == "concurrent"):
            reading.fault(item, why, at_key=True)
            good = False
    return good


def _limit(values: dict[str, Any], node: Node, reading: Reading) -> Any:
    unit = _unit(node, reading)
    windowed = _window(unit, node, reading)
    scope = _scope(values, node, reading)
    detailed = _details(unit, values, node, reading)
    if not (unit and windowed and scope and detailed) or not node.value.keys() <= values.keys():
        return INVALID
    amount = round(values[unit] * MICROS) if unit == "usd" else values[unit]
    seconds, calendar = values.get("per", (0.0, ""))
    match, mode = values.get("match", "*"), values.get("mode", "enforce")
    zone, burst = values.get("zone", "UTC"), values.get("burst", 0)
    more = (zone,) if zone != "UTC" else ("burst",) if burst else ()
    return LimitRule(
        id=values.get("name") or rule_id(scope, unit, (seconds, calendar), match, mode, *more),
        scope=scope,
        unit=unit,
        amount=amount,
        seconds=seconds,
        calendar=calendar,
        match=match,
        mode=mode,
        on_store_loss=values.get("on_store_loss", "local"),
        zone=zone,
        burst=burst,
        warn=values.get("warn", 0.8),
        unpriced=values.get("unpriced", "allow"),
    )


class Share(Number):
    """A share between 0 and 1, or false for 0."""

    def parse(self, node: Node, reading: Reading) -> float:
        return 0.0 if node.value is False else super().parse(node, reading)

    def schema(self) -> dict[str, Any]:
        return {"anyOf": [super().schema(), {"const": False}]}


_COUNT = Number(least=1, most=1e15, whole=True)
_NAME = Text(pattern=r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", meaning="a name of letters, digits, _ . -", most=64)

LIMIT = Table(
    "limits",
    LimitRule,
    {
        "scope": Field(
            Many(Text(choices=SCOPES), least=1, single=True, most=len(SCOPES)),
            'each value of it has its own count: "tenant", or ["tenant", "model"]',
            required=True,
        ),
        "name": Field(_NAME, "its id: with it, what was counted stays when the limit is edited"),
        "match": Field(Text(meaning="a glob", most=256), "only values that match this glob"),
        "requests": Field(_COUNT, "calls per window"),
        "tokens": Field(_COUNT, "tokens per window, of prompt and answer"),
        "input_tokens": Field(_COUNT, "tokens of prompts per window"),
        "output_tokens": Field(_COUNT, "generated tokens per window"),
        "usd": Field(Number(least=0.000001, most=1e9), "US dollars per window"),
        "concurrent": Field(Number(least=1, most=1_000_000, whole=True), "calls at once"),
        "per": Field(Window(), 'the window: "1m" (rolling) or "calendar month"; not for concurrent'),
        "zone": Field(Zone(), 'time zone of a calendar window: "Europe/Berlin"'),
        "burst": Field(
            Number(least=1, most=1e9, whole=True),
            "requests, rolling: so many at once, then at the rate of the limit",
        ),
        "warn": Field(Share(most=1.0), "share of the limit at which an event tells of it; false: never"),
        "unpriced": Field(
            Text(choices=("allow", "refuse")), "usd: what becomes of calls to a model without a price"
        ),
        "mode": Field(Text(choices=("enforce", "shadow")), "shadow counts and reports, refuses nothing"),
        "on_store_loss": Field(Text(choices=("local", "closed", "open")), "when shared state is away"),
    },
    finish=_limit,
    rules={
        "oneOf": [
            *({"required": [unit, "per"]} for unit in UNITS if unit != "concurrent"),
            {"required": ["concurrent"], "not": {"required": ["per"]}},
        ]
    },
)
