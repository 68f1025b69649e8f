"""`/admin/v1/limits`: the rules, how their buckets stand, and raises for a while."""

from __future__ import annotations

from typing import Any

from gateway.control.body import NEW_RAISE
from gateway.control.bucket import Buckets
from gateway.control.changes import not_found
from gateway.control.operation import PAGING, Answer, Ask, Operation, changed, page
from gateway.core.limit import MICROS, LimitRule, Raise
from gateway.core.moment import iso
from gateway.core.records import RAISE
from gateway.settings.quantities import Window


def rule(found: LimitRule) -> dict[str, Any]:
    """A limit as the operator wrote it; dollars as dollars."""
    per = Window().show((found.seconds, found.calendar)) if found.unit != "concurrent" else None
    return {
        "id": found.id,
        "scope": list(found.scope),
        "match": found.match,
        "unit": found.unit,
        "amount": _amount(found, found.amount),
        "per": per,
        "zone": found.zone if found.calendar else None,
        "burst": found.burst or None,
        "mode": found.mode,
        "on_store_loss": found.on_store_loss,
        "warn": found.warn,
    }


def _amount(found: LimitRule, amount: int) -> float | int:
    return amount / MICROS if found.unit == "usd" else amount


def _raise(found: LimitRule | None, made: Raise) -> dict[str, Any]:
    by = _amount(found, made.amount) if found is not None else made.amount
    return {
        "id": made.id,
        "rule": made.rule,
        "value": made.value,
        "by": by,
        "until": iso(made.until, "seconds"),
    }


def _rule(ask: Ask) -> LimitRule:
    for found in ask.settings.limits:
        if found.id == ask.path["limit"]:
            return found
    raise not_found("limit", ask.path["limit"])


async def _list(ask: Ask) -> Answer:
    return Answer(page([rule(found) for found in ask.settings.limits], ask))


async def _get(ask: Ask) -> Answer:
    found = _rule(ask)
    buckets = []
    for standing in ask.desk.standings(found.id):
        shown = {name: _amount(found, standing[name]) for name in ("amount", "used", "leased", "left")}
        buckets.append({"value": standing["value"], **shown, "reset_s": standing["reset_s"]})
    raises = [_raise(found, each) for each in ask.desk.raises() if each.rule == found.id]
    return Answer({**rule(found), "buckets": page(buckets, ask, "value"), "raises": raises})


async def _raises(ask: Ask) -> Answer:
    rules = {found.id: found for found in ask.settings.limits}
    return Answer(page([_raise(rules.get(each.rule), each) for each in ask.desk.raises()], ask))


async def _create(ask: Ask) -> Answer:
    found = _rule(ask)
    buckets = Buckets(ask.settings, ask.desk.all_keys(), ask.desk.tenants())
    values = {**ask.values, "value": buckets.meant(found, ask.values.get("value") or "*")}
    change, made = ask.changes.new_raise(found, values)
    return changed(change, _raise(found, made), 201, f"raises/{made.id}")


async def _end(ask: Ask) -> Answer:
    wanted = ask.path["raise"]
    entity = await ask.desk.found(RAISE, lambda: wanted)
    if entity is None:
        raise not_found("raise", wanted)
    return Answer({"deleted": wanted}, change=ask.changes.ended_raise(entity))


OPERATIONS = (
    Operation("GET", "/limits", "limits.read", "List limits", _list, query=PAGING, answer="LimitPage"),
    Operation(
        "GET", "/limits/{limit}", "limits.read", "One limit, and how its buckets stand on this machine", _get,
        query=PAGING, answer="Limit",
    ),
    Operation(
        "POST", "/limits/{limit}/raises", "limits.write", "Raise a limit for a while", _create,
        body=NEW_RAISE, example={"by": 100, "for": "2h", "reason": "migration"}, answer="Raise", status=201,
        keyed=True,
    ),
    Operation("GET", "/raises", "limits.read", "Raises in force", _raises, query=PAGING, answer="RaisePage"),
    Operation("DELETE", "/raises/{raise}", "limits.write", "End a raise early", _end, answer="Deleted"),
)  # fmt: skip
