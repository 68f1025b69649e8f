"""Who should answer? From the model's name to a plan: targets in the order they will be tried."""

from __future__ import annotations

import re
from bisect import bisect
from fnmatch import translate
from itertools import accumulate
from random import Random
from typing import Any

from gateway.core.call import Call
from gateway.core.errors import CallerError, FaultError
from gateway.core.parts import Parts
from gateway.core.ports import Stage
from gateway.core.reply import Reply
from gateway.core.route import ModelRule, Plan, Target

_MAX_REMEMBERED = 1024
_MAX_NAME = 256  # longer names are looked up each time


class _Choice:
    """One rule, ready to be drawn from: a plan for each target, and the running sum of their weights."""

    def __init__(self, rule: ModelRule, reason: str) -> None:
        weighted = [target for target in rule.targets if target.weight > 0] or list(rule.targets)
        steady = len(weighted) == 1
        self.plans = [_plan(target, rule, reason, steady) for target in weighted]
        self.sums = list(accumulate(target.weight or 1.0 for target in weighted))

    def pick(self, random: Random) -> Plan:
        """A plan, drawn by weight."""
        if len(self.plans) == 1:
            return self.plans[0]
        return self.plans[min(bisect(self.sums, random.random() * self.sums[-1]), len(self.plans) - 1)]


def _plan(first: Target, rule: ModelRule, reason: str, steady: bool) -> Plan:
    rest = tuple(target for target in rule.fallback if target != first)
    return Plan((first, *rest), reason, rule.name, steady)


class Route(Stage):
    """Sets `call.plan` and `call.alias`. Exact names win over globs, a longer glob over a shorter one.

    Nothing a caller sends names an address or a credential: the body is not looked at, and
    `x-penstock-route` chooses among the backends that the rule gives anyway. Plans are shared between calls.
    """

    steady = True

    def __init__(self, options: Any, parts: Parts, random: Random | None = None) -> None:
        self._random = random or Random()
        self._exact = {rule.name: _Choice(rule, "exact") for rule in parts.models if not rule.glob}
        globs = sorted((rule for rule in parts.models if rule.glob), key=lambda rule: -len(rule.name))
        self._globs = [(re.compile(translate(rule.name)), _Choice(rule, "glob")) for rule in globs]
        self._seen: dict[str, _Choice | None] = {}
        self._backends = tuple(parts.backends)
        self._default = self._first(parts.models)

    def admit(self, call: Call) -> Reply | None:  # type: ignore[override]
        """Choose."""
        choice = self._choice(call.model) if call.model else None
        plan = choice.pick(self._random) if choice is not None else self._default
        if plan is None:
            raise FaultError("No backend is configured.", code="gateway_no_backend")
        wanted = call.memo.get("route")
        if wanted is not None:
            plan = self._wanted(wanted, plan, choice)
        call.plan = plan
        call.alias = plan.alias
        return None

    def _choice(self, model: str) -> _Choice:
        choice = self._exact.get(model) or self._match(model)
        if choice is None:
            raise CallerError(
                f"The model `{model[:128]}` does not exist or you do not have access to it.",
                status=404,
                code="caller_model_not_found",
                param="model",
            )
        return choice

    def _match(self, model: str) -> _Choice | None:
        if model in self._seen:
            return self._seen[model]
        choice = next((choice for glob, choice in self._globs if glob.match(model)), None)
        if len(model) <= _MAX_NAME:
            if len(self._seen) >= _MAX_REMEMBERED:
                self._seen.clear()
            self._seen[model] = choice
        return choice

    def _first(self, rules: tuple[ModelRule, ...]) -> Plan | None:
        """Where calls go that name no model: the first target of `*`, else the first backend."""
        for rule in rules:
            if rule.name == "*":
                return Plan((Target(rule.targets[0].backend),), "default", "")
        return Plan((Target(self._backends[0]),), "default", "") if self._backends else None

    def _wanted(self, backend: str, plan: Plan, choice: _Choice | None) -> Plan:
        """The plan with the backend the caller asks for in front, if it may be asked at all."""
        if choice is None:
            if backend in self._backends:
                return Plan((Target(backend),), "asked", "")
        else:
            offered = dict.fromkeys(target for each in [plan, *choice.plans] for target in each.targets)
            first = next((target for target in offered if target.backend == backend), None)
            if first is not None:
                rest = tuple(target for target in plan.targets if target != first)
                return Plan((first, *rest), "asked", plan.alias)
        raise CallerError(
            "x-penstock-route names no backend that serves this call.", code="caller_route_not_found"
        )
