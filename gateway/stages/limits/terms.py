"""The rules that hold for one caller, model and plan, compiled: what each call there is measured by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from operator import itemgetter
from typing import NamedTuple

from gateway.core.call import Call
from gateway.core.cost import Price, PriceList
from gateway.core.generations import Generations
from gateway.core.limit import UNITS, Bucket, LimitRule, counted
from gateway.core.parts import Parts
from gateway.core.ports import Backend, Leases
from gateway.core.principal import Principal
from gateway.core.route import Plan
from gateway.stages.limits.habit import Habit, Habits
from gateway.stages.limits.told import Shown

REQUESTS, TOKENS, USD, CONCURRENT, INPUT, OUTPUT = range(len(UNITS))
_MEASURED = frozenset((TOKENS, USD, INPUT, OUTPUT))
_MOST = 256  # of one principal: callers choose names of models, and tags
_MOST_HABITS = 64
_MOST_GROUPS = 1024  # twice


class Rates(NamedTuple):
    """The dearest prices of a plan's targets: 1e-6 micro-dollars a token, micro-dollars a call."""

    input: int = 0
    output: int = 0
    request: int = 0


class Terms:
    """Of one principal, model, plan and set of tags.

    `amounts` picks a call's amounts for `buckets` out of those of all units (`core.limit.UNITS`). `measured`
    are those buckets, with the place of their unit, that hold tokens or money and refuse what does not fit;
    `growing` those that a longer answer takes more of. `cap` is the most an answer can have (0: not known).
    `unpriced` are rules of money that the plan escapes, as a model in it has no price; `barred` is one of
    them that refuses such calls.
    """

    __slots__ = (
        "amounts", "barred", "buckets", "cap", "growing", "habits", "measured", "plan", "priced", "rates",
        "shown", "unpriced",
    )  # fmt: skip

    def __init__(
        self, plan: Plan, buckets: Sequence[Bucket], prices: Sequence[Price | None], leases: Leases
    ) -> None:
        units = [UNITS.index(bucket.rule.unit) for bucket in buckets]
        self.plan = plan
        self.buckets = tuple(buckets)
        # Always of two or more, so that it gives a tuple; `zip` stops at the last bucket.
        self.amounts = itemgetter(*units, REQUESTS, REQUESTS)
        enforced = [pair for pair in zip(buckets, units, strict=True) if pair[0].rule.mode == "enforce"]
        told = ([bucket for bucket, unit in enforced if unit == u] for u in (REQUESTS, TOKENS))
        self.shown = tuple([Shown(leases, *each) for each in told if each])
        self.measured = tuple([pair for pair in enforced if pair[1] in _MEASURED])
        self.growing = tuple(
            [pair for pair in zip(buckets, units, strict=True) if pair[1] in _MEASURED and pair[1] != INPUT]
        )
        self.cap = 0
        self.habits: tuple[Habit, ...] = ()
        self.priced = prices[0] is not None  # what the first target costs
        known = [price for price in prices if price is not None]
        self.rates = Rates(
            max([max(price.rates[:4]) for price in known], default=0),
            max([max(price.rates[4:]) for price in known], default=0),
            max([price.request for price in known], default=0),
        )
        rules = [bucket.rule for bucket, unit in zip(buckets, units, strict=True) if unit == USD]
        self.unpriced = tuple(dict.fromkeys(rules)) if None in prices else ()
        refusing = [rule for rule in self.unpriced if rule.unpriced == "refuse" and rule.mode == "enforce"]
        self.barred = refusing[0] if refusing else None

    def usual(self) -> int:
        """The learned length of an answer: the key's, the tenant's, that of all; 0 where nobody knows."""
        for habit in self.habits:
            if habit.output:
                return habit.output
        return 0


class Compiler:
    """Makes terms and remembers them with the principal, bounded."""

    def __init__(self, parts: Parts) -> None:
        self._rules = parts.limits
        self._leases = parts.leases
        self._prices: PriceList = parts.prices
        self._backends: Mapping[str, Backend] = parts.backends
        self._caps = {rule.name: rule.max_output for rule in parts.models}
        self._habits = Habits()
        # Of those who are alike but for their keys: buckets; None where the rule looks at the key.
        self._groups: Generations[object, list[tuple[LimitRule, list[Bucket] | None]]] = Generations(
            _MOST_GROUPS
        )
        self.tagged = any(["tag" in rule.scope for rule in parts.limits])

    def compile(self, principal: Principal, call: Call, known: dict[object, Terms], name: object) -> Terms:
        """Terms for a call, kept under `name`. The same rules over another plan of the same targets stay."""
        plan = call.plan
        assert plan is not None, "route comes first"
        terms = known.get(name)
        if terms is not None and terms.plan.targets == plan.targets:
            terms.plan = plan
            return terms
        if len(known) >= _MOST:
            known.clear()
        terms = known[name] = Terms(
            plan, self._buckets(principal, call), self._priced(call, plan), self._leases
        )
        terms.cap = self._caps.get(plan.alias, 0)
        terms.habits = self._taken(principal, call.model[:128])
        return terms

    def _taken(self, principal: Principal, model: str) -> tuple[Habit, ...]:
        own: dict[str, Habit] = principal.memo.setdefault("habits", {})
        if model not in own:
            if len(own) >= _MOST_HABITS:
                own.clear()
            own[model] = Habit()
        tenant = principal.key.tenant
        wider = (self._habits.of(tenant, model),) if tenant else ()
        return (own[model], *wider, self._habits.of("", model))

    def _buckets(self, principal: Principal, call: Call) -> list[Bucket]:
        key, backend = principal.key, call.plan.targets[0].backend  # type: ignore[union-attr]
        values = {"tenant": key.tenant, "team": key.team, "user": key.user, "key": key.id}
        values |= {"model": call.model[:128], "backend": backend}
        group = (key.tenant, key.team, key.user, values["model"], backend, call.tags)
        known = self._groups.find(group)
        if known is None:
            known = [
                (rule, None if "key" in rule.scope else self._of(rule, values, values, call))
                for rule in self._rules
            ]
            known = [each for each in known if each[1] != []]
            self._groups.keep(group, known)
        names = {**values, "key": key.name}  # counted by id, which never changes; matched by name as well
        found: list[Bucket] = []
        for rule, buckets in known:
            found += self._of(rule, values, names, call) if buckets is None else buckets
        return found

    def _of(
        self, rule: LimitRule, values: Mapping[str, str], names: Mapping[str, str], call: Call
    ) -> list[Bucket]:
        """The buckets of a rule for a call."""
        return [self._leases.bucket(rule, value) for value in counted(rule, values, names, call.tags)]

    def _priced(self, call: Call, plan: Plan) -> list[Price | None]:
        """What each target of the plan costs; the echo costs nothing."""
        found: list[Price | None] = []
        for target in plan.targets:
            free = self._backends[target.backend].kind == "echo"
            price = self._prices.find(target.model or call.model) or self._prices.find(call.alias)
            found.append(Price.of({}) if free else price)
        return found
