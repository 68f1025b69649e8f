"""Calls that a policy refused, as they go into the audit: the first ones each, the others counted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from gateway.core.records import Actor, Deed
from gateway.core.sheet import Sheet

ACTION = "call.refuse"  # one call
MORE = "call.refuse.more"  # how many more of the same there were in that minute

EACH = 5  # records per key, code and rule in one minute; what is beyond is counted
GROUPS = 1000  # keys, codes and rules told apart in one minute
OTHERS = "*"  # what is beyond is counted under this name for the key

_POLICIES = ("policy_denied", "policy_requirement")  # codes of `[[policies]]`; others may be of a limit


@dataclass(slots=True)
class Refusals:
    """Refusals alike: of one key, with one code, by one rule ("" where none is named).

    `deeds` are the first of them, at most `EACH`; `times` are those of all, epoch milliseconds.
    """

    key: str
    code: str
    rule: str
    deeds: list[Deed] = field(default_factory=list)
    times: list[int] = field(default_factory=list)


def refusals(sheets: Iterable[Sheet]) -> list[Refusals]:
    """What policies refused among calls that are booked. Costs next to nothing where they refused none."""
    found: dict[tuple[str, str, str], Refusals] = {}
    for sheet in sheets:
        codes = sheet.columns.get("code")
        if any(map(_policy, codes if codes is not None else (sheet.common.get("code"),))):
            _add(found, sheet)
    return list(found.values())


def _policy(code: Any) -> bool:
    return isinstance(code, str) and code.startswith("policy_")


def _add(found: dict[tuple[str, str, str], Refusals], sheet: Sheet) -> None:
    nothing = [None] * sheet.size
    names = ("key", "code", "reasons", "ts")
    columns = [sheet.column(name) or nothing for name in names]
    for place, (key, code, reasons, ts) in enumerate(zip(*columns, strict=True)):
        if not _policy(code):
            continue
        group = (str(key or ""), code, rule_of(code, reasons))
        alike = found.get(group)
        if alike is None:
            alike = found[group] = Refusals(*group)
        alike.times.append(ts if isinstance(ts, int) else 0)
        if len(alike.deeds) < EACH:
            alike.deeds.append(_deed(_record(sheet, place), group[2]))


def _record(sheet: Sheet, place: int) -> dict[str, Any]:
    return {**sheet.common, **{name: column[place] for name, column in sheet.columns.items()}}


def rule_of(code: str, reasons: Any) -> str:
    """The policy or limit that a call's reasons name as the one that refused it; "" where they name none.

    Policies that set something are named before the one that refuses.
    """
    named = reasons.get("policy" if code in _POLICIES else "limit") if isinstance(reasons, Mapping) else None
    return str(named).rpartition(",")[2] if named else ""


def target(code: str, rule: str) -> str:
    """What the record is about: the rule, where one is named, else the kind of refusal."""
    if not rule:
        return f"policy/{code.removeprefix('policy_')}"
    return f"{'policy' if code in _POLICIES else 'limit'}/{rule}"


def _deed(record: Mapping[str, Any], rule: str) -> Deed:
    code = str(record["code"])
    detail = {
        "code": code,
        "rule": rule,
        "request_id": record.get("id", ""),
        "tenant": record.get("tenant", ""),
        "team": record.get("team", ""),
        "user": record.get("user", ""),
        "endpoint": record.get("endpoint", ""),
        "model": record.get("model", ""),
        "status": record.get("status", 0),
    }
    actor = Actor(
        "call",
        id=str(record.get("key") or ""),
        name=str(record.get("key_name") or ""),
        address=str(record.get("client") or ""),
    )
    ts = record.get("ts")
    return Deed(
        actor,
        ACTION,
        target(code, rule),
        revision=str(record.get("revision") or ""),
        detail={name: value for name, value in detail.items() if value},
        ts_ms=ts if isinstance(ts, int) else 0,
    )


def more(key: str, code: str, rule: str, count: int, first_ms: int, last_ms: int) -> Deed:
    """The closing record of a minute: how many calls there were beyond those that have their own."""
    detail = {"code": code, "rule": rule, "count": count, "first_ms": first_ms, "last_ms": last_ms}
    named = {name: value for name, value in detail.items() if value not in ("", 0)}
    return Deed(Actor("call", id=key), MORE, target(code, rule), detail=named, ts_ms=last_ms)
