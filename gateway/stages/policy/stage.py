"""May they ask for this, in this way? The operator's policies, after the route is known, before any limit."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from gateway.core.amend import Draft, unambiguous
from gateway.core.call import Call
from gateway.core.errors import PolicyError
from gateway.core.parts import Parts
from gateway.core.policy import DEFAULT, Policy
from gateway.core.ports import Stage
from gateway.core.principal import KeyEntry
from gateway.core.reply import Reply
from gateway.core.route import Plan, Target
from gateway.stages.policy.demands import Unmet, unmet
from gateway.stages.policy.edits import edit_of
from gateway.stages.policy.predicates import Bound, Fixed, Holds, bind
from gateway.stages.policy.seen import Price, Seen, kind_of
from gateway.stages.policy.watch import inside, members

_MOST_COMPILED = 4096
_LONGEST = 512  # characters of model and path together that are remembered
_MOST_NOTED = 256  # characters of names in a call's reasons


class Rule(NamedTuple):
    """A policy that may apply, with its condition towards each backend of the call (in their order)."""

    policy: Policy
    binds: tuple[Bound, ...]
    asks: tuple[Holds, ...]

    def applies(self, seen: Seen, places: Iterable[int]) -> bool:
        """Whether it holds, or may hold, towards one of these backends."""
        return any([self.asks[place](seen) is not False for place in places])


def _ask(condition: Bound) -> Holds:
    return condition if callable(condition) else lambda seen: condition


class Compiled:
    """What is left of all policies for one caller, model, endpoint, set of tags and choice of backends.

    `idle` where nothing is. `gates` are, for each backend, the denials and their names; `grants` what may
    allow it, None where no allowance is needed. `watched` and `deep` are members of the body that must not
    be ambiguous.
    """

    __slots__ = ("backends", "deep", "gates", "grants", "idle", "others", "price", "shadows", "watched")

    def __init__(self, rules: list[Rule], backends: tuple[str, ...], price: Price | None, deny: bool) -> None:
        live = [rule for rule in rules if rule.policy.mode == "enforce"]
        places = range(len(backends))
        self.backends = backends
        self.price = price
        denials = [rule for rule in live if rule.policy.deny]
        self.gates = tuple(
            tuple(
                [(rule.asks[place], rule.policy.name) for rule in denials if rule.binds[place] is not False]
            )
            for place in places
        )
        allowing = [rule for rule in live if rule.policy.allow]
        sure = all(any(rule.binds[place] is True for rule in allowing) for place in places)
        self.grants = None
        if deny and not sure:
            self.grants = tuple(tuple([rule.asks[place] for rule in allowing]) for place in places)
        self.others = tuple(rule for rule in live if rule.policy.require or rule.policy.set)
        self.shadows = tuple(rule for rule in rules if rule.policy.mode == "shadow" and not rule.policy.allow)
        watching = [rule for rule in live if not rule.policy.allow or deny]
        self.watched = frozenset(name for rule in watching for name in members(rule.policy))
        self.deep = inside(self.watched)
        self.idle = not (denials or self.others or self.shadows or self.grants is not None)


_IDLE = Compiled([], ("",), None, False)  # shared: with many keys most have nothing left


class Policies(Stage):
    """Refuses, demands and sets what `[[policies]]` say. Raises `PolicyError` (403, or 400 for a demand).

    A denial wins over everything. Towards a backend that it denies the call is not sent: such targets are
    taken out of the plan, and a call that has none left is refused. Settings come before demands, which
    see what would be forwarded. What depends on the caller, model, endpoint and tags alone is worked out
    once and remembered, bounded.
    """

    def __init__(self, options: Any, parts: Parts) -> None:
        self._policies = parts.policies
        self._levels = parts.access.classifications
        self._deny = parts.access.default == "deny"
        self._backends = parts.backends
        self._prices = parts.prices
        self._counts = parts.counts
        self._models = {rule.name: rule for rule in parts.models}
        used = {name for policy in parts.policies for name in policy.when.attributes()}
        self._by_backend, self._by_key = "backend" in used, "key" in used
        self._by_tags = "tags" in used or "classification" in used
        self._by_caller = [name for name in ("tenant", "team", "user", "roles") if name in used]
        self._known: dict[tuple[Any, ...], Compiled] = {}
        self.needed = bool(parts.policies) or self._deny

    def admit(self, call: Call) -> Reply | None:  # type: ignore[override]
        """Refuse, change the call, or let it pass as it is."""
        compiled = self.compiled(call)
        if not compiled.idle:
            self._judge(call, compiled)
        return None

    def compiled(self, call: Call) -> Compiled:
        """What is left of the policies for a call like this."""
        principal, endpoint, path = call.principal, call.endpoint, call.path
        assert principal is not None, "auth comes first"
        memo = principal.memo.get("policy")
        if memo is None or memo[0] is not self:  # another revision's policies
            memo = principal.memo["policy"] = (self, self._caller(principal.key))
        where = endpoint if len(path) == len(endpoint) + 1 else path
        tags = call.tags if self._by_tags else ()
        question: tuple[Any, ...] = (memo[1], call.model, where, kind_of(call), tags)
        if self._by_backend and call.plan is not None:
            question = (*question, *[target.backend for target in call.plan.targets])
        compiled = self._known.get(question)
        if compiled is None:
            backends, rules = self.bound(call)
            compiled = Compiled(rules, backends, self.price(call), self._deny)
            compiled = _IDLE if compiled.idle else compiled
            if len(self._known) >= _MOST_COMPILED:
                self._known.clear()
            if len(call.model) + len(where) <= _LONGEST:
                self._known[question] = compiled
        return compiled

    def _caller(self, key: KeyEntry) -> tuple[Any, ...]:
        """What the policies look at of a caller: those who are alike in it are judged alike."""
        named = tuple([getattr(key, name) for name in self._by_caller])
        return (*named, key.name, key.id) if self._by_key else named

    def bound(self, call: Call) -> tuple[tuple[str, ...], list[Rule]]:
        """The backends that matter, and the policies that may apply to a call like this."""
        principal = call.principal
        assert principal is not None, "auth comes first"
        backends: tuple[str, ...] = ("",)
        if self._by_backend:
            backends = tuple(dict.fromkeys(target.backend for target in self._candidates(call)))
        names = (call.endpoint, call.path[1:])
        fixed = Fixed(principal.key, call.model, names, call.tags, kind_of(call), self._levels)
        rules = []
        for policy in self._policies:
            binds = []
            for backend in backends:
                fixed.names["backend"] = (backend,)
                binds.append(bind(policy.when, fixed))
            if any(each is not False for each in binds):
                rules.append(Rule(policy, tuple(binds), tuple(map(_ask, binds))))
        return backends, rules

    def price(self, call: Call) -> Price | None:
        """The dearest prices among the targets that may be drawn; None where one has none that is known."""
        found = []
        for target in self._candidates(call, fallbacks=False):
            backend = self._backends.get(target.backend)
            price = self._prices.find(target.model or call.model) or self._prices.find(call.alias)
            if backend is not None and backend.kind == "echo":
                found.append((0, 0, 0))
            elif price is None:
                return None
            else:
                found.append((max(price.rates[:4]), max(price.rates[4:]), price.request))
        return tuple(map(max, *found)) if len(found) > 1 else found[0]

    def _candidates(self, call: Call, fallbacks: bool = True) -> list[Target]:
        """The plan's targets (or its first alone), then the others that its model has."""
        plan = call.plan
        assert plan is not None and plan.targets, "route comes first"
        rule = self._models.get(plan.alias)
        planned = plan.targets if fallbacks else plan.targets[:1]
        return list(dict.fromkeys((*planned, *(rule.targets if rule is not None else ()))))

    # -- one call

    def _judge(self, call: Call, compiled: Compiled) -> None:
        seen = Seen(call, compiled.price)
        if compiled.watched:
            unambiguous(call, compiled.watched, compiled.deep)
        places = self._open(call, compiled, seen)
        shadows = [rule.policy for rule in compiled.shadows if rule.applies(seen, places)]
        if compiled.others:
            self._change(call, compiled, seen, places)
        for policy in shadows:
            if policy.deny:
                self._note(call, policy.name, "shadow_deny")
            if policy.require is not None and unmet(policy.require, seen) is not None:
                self._note(call, policy.name, "shadow_require")
            if any(edit_of(setting, seen) is not None for setting in policy.set):
                self._note(call, policy.name, "shadow_set")

    def _change(self, call: Call, compiled: Compiled, seen: Seen, places: list[int]) -> None:
        """Settings, then demands on what would be forwarded."""
        asked = [rule.policy for rule in compiled.others if rule.applies(seen, places)]
        if any([policy.set for policy in asked]):
            self._set(call, asked, seen)
        for policy in asked:
            if policy.require is not None and (missing := unmet(policy.require, seen)) is not None:
                self._note(call, policy.name, "require")
                raise _lacking(policy, missing)

    def _open(self, call: Call, compiled: Compiled, seen: Seen) -> list[int]:
        """The places of the backends that the call may go to; its plan has no others afterwards."""
        places, denied, grants = [], "", compiled.grants
        for place, gates in enumerate(compiled.gates):
            for holds, name in gates:
                if holds(seen) is not False:
                    denied = denied or name
                    break
            else:
                if grants is None or any([allows(seen) is True for allows in grants[place]]):
                    places.append(place)
                else:
                    denied = denied or DEFAULT
        if denied:
            if not (places and self._narrowed(call, {compiled.backends[place] for place in places})):
                self._note(call, denied, "deny")
                raise self._denied(denied)
            self._note(call, denied, "reroute")
        return places

    def _narrowed(self, call: Call, backends: set[str]) -> bool:
        """Leave only targets at these backends in the plan; whether there are any."""
        plan = call.plan
        assert plan is not None, "route comes first"
        left = [target for target in plan.targets if target.backend in backends]
        left = left or [target for target in self._candidates(call) if target.backend in backends]
        if tuple(left) != plan.targets:
            call.plan = Plan(tuple(left), "policy", plan.alias, plan.steady)
        return bool(left)

    def _denied(self, name: str) -> PolicyError:
        if name == DEFAULT:
            return PolicyError("No policy allows this call.", code="policy_denied")
        text = next(policy.deny for policy in self._policies if policy.name == name)
        return PolicyError(f"The policy `{name}` refuses this call: {text}", code="policy_denied")

    def _set(self, call: Call, policies: list[Policy], seen: Seen) -> None:
        """Exact values first, in the order of the file, then ceilings: no ceiling is ever exceeded."""
        changed: dict[str, None] = {}
        draft: Draft | None = None
        for ceilings in (False, True):
            for policy in policies:
                for setting in policy.set:
                    if (setting.at_most is not None) is not ceilings:
                        continue
                    edit = edit_of(setting, seen)
                    if isinstance(edit, Unmet):
                        self._note(call, policy.name, "require")
                        raise _lacking(policy, edit)
                    if edit is not None:
                        draft = draft or Draft(call)
                        edit(draft)
                        changed[policy.name] = None
                        seen.changed()
        for name in changed:
            self._note(call, name, "set")

    def _note(self, call: Call, name: str, decision: str) -> None:
        counted = ("policies", name, decision)
        self._counts[counted] = self._counts.get(counted, 0) + 1
        reason = "policy_shadow" if decision.startswith("shadow") else "policy"
        past = call.reasons.get(reason)
        if past is None:
            call.reasons[reason] = name
        elif name not in past.split(",") and len(past) + len(name) < _MOST_NOTED:
            call.reasons[reason] = f"{past},{name}"


def _lacking(policy: Policy, missing: Unmet) -> PolicyError:
    message = f"The policy `{policy.name}` requires {missing.what}."
    return PolicyError(message, code="policy_requirement", status=400, param=missing.param)
