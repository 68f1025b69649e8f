"""Which policies meet a call and what each would do to it, in words: for `penstock explain`."""

from __future__ import annotations

from copy import copy, deepcopy
from typing import Any

from gateway.core.amend import Draft
from gateway.core.call import Call
from gateway.core.policy import Policy
from gateway.core.tools import offered
from gateway.stages.policy.demands import Unmet, unmet
from gateway.stages.policy.edits import edit_of
from gateway.stages.policy.seen import Price, Seen
from gateway.stages.policy.stage import Policies, Rule

_LISTED = ("tools", "functions")


def account(stage: Policies, call: Call) -> list[dict[str, Any]]:
    """One entry for each policy whose condition holds or may hold, in the order of the file.

    `holds` is True, or None where that can't be told (then it counts as `effect` says); `backends` names
    those it holds towards where that differs. The call is not changed.
    """
    backends, rules = stage.bound(call)
    price = stage.price(call)
    seen = Seen(call, price)
    met_by = [(rule, [ask(seen) for ask in rule.asks]) for rule in rules]
    setting = [
        rule.policy for rule, found in met_by if rule.policy.set and any(each is not False for each in found)
    ]
    after = _after([policy for policy in setting if policy.mode == "enforce"], call, price)
    return [_entry(rule, found, backends, seen, after) for rule, found in met_by if _applies(rule, found)]


def _applies(rule: Rule, found: list[bool | None]) -> bool:
    return any(each is True if rule.policy.allow else each is not False for each in found)


def _entry(
    rule: Rule, found: list[bool | None], backends: tuple[str, ...], seen: Seen, after: Seen
) -> dict[str, Any]:
    policy = rule.policy
    told: dict[str, Any] = {"policy": policy.name, "effect": policy.effect, "mode": policy.mode}
    told["holds"] = True if True in found else None
    some = [name for name, each in zip(backends, found, strict=True) if each is not False]
    if len(some) < len(backends):
        told["backends"] = some
    if policy.deny:
        told["refuses"] = policy.deny
    if policy.require is not None:
        missing = unmet(policy.require, after)
        told["missing"] = missing.what if missing is not None else None
    if policy.set:
        told |= _settings(policy, seen)
    return told


def _settings(policy: Policy, seen: Seen) -> dict[str, Any]:
    edits = [edit_of(setting, seen) for setting in policy.set]
    wrong = next((edit.what for edit in edits if isinstance(edit, Unmet)), None)
    if wrong is not None:
        return {"missing": wrong}
    return {"sets": changes(seen.call, _after([policy], seen.call, seen.price).call)}


def _after(policies: list[Policy], call: Call, price: Price | None) -> Seen:
    """A copy of the call as these policies leave it; what can't be set is left as it is."""
    twin = copy(call)
    twin.document = deepcopy(call.document)
    for ceilings in (False, True):
        for setting in [each for policy in policies for each in policy.set]:
            edit = edit_of(setting, Seen(twin, price))
            if (setting.at_most is not None) is ceilings and edit is not None and not isinstance(edit, Unmet):
                edit(Draft(twin))
    return Seen(twin, price)


def changes(before: Call, after: Call) -> dict[str, Any]:
    """Members whose value differs, with the new one: None where it is gone, names for tools."""
    old, new = before.document or {}, after.document or {}
    names = [
        name for name in {**old, **new} if old.get(name) != new.get(name) or (name in old) != (name in new)
    ]
    return {name: list(offered({name: new[name]}).names) if name in _LISTED and name in new else new.get(name)
            for name in names}  # fmt: skip
