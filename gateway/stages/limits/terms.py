"""The rules that hold for one caller, model and plan, compiled: what each call there is measured by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from gateway.core.call import Call
from gateway.core.cost import Price, PriceList
from gateway.core.generations import Generations
from gateway.core.limit import Bucket, LimitRule, counted
from gateway.core.parts import Parts
from gateway.core.ports import Backend
from gateway.core.principal import Principal
from gateway.core.prompt import Prompt
from gateway.core.route import Plan
from gateway.stages.limits.form import Form
from gateway.stages.limits.habit import Habit, Habits

MODEL: Final = 128  # characters of a model's name that count
_MOST: Final = 256  # of one principal: callers choose names of models, and tags
_MOST_HABITS: Final = 64
_MOST_GROUPS: Final = 1024  # twice
_MOST_FORMS: Final = 1024  # twice


class Terms:
    """Of one principal, model, plan and set of tags; `form` is what it has in common with others.

    `cap` is the most an answer can have (0: not known). `habits` are the key's, its tenant's, all callers'.
    """

    __slots__ = ("buckets", "cap", "form", "habits", "model", "plan", "tags")

    def __init__(self, call: Call, plan: Plan, buckets: Sequence[Bucket], form: Form, cap: int) -> None:
        self.plan = plan
        self.model = call.model[:MODEL]
        self.tags = call.tags
        self.buckets = tuple(buckets)
        self.form = form
        self.cap = cap
        self.habits: tuple[Habit, ...] = ()

    def usual(self) -> int:
        """The learned length of an answer: the key's, the tenant's, that of all; 0 where nobody knows."""
        for habit in self.habits:
            if habit.output:
                return habit.output
        return 0

    def learn(self, prompt: Prompt, input: int, output: int, linked: bool = False) -> None:
        """A call with such a prompt took so many tokens, and its answer so many."""
        own = self.habits[0]
        own.observe(output)
        if own.seen < 64 or not own.seen & 15:
            for habit in self.habits[1:]:
                habit.observe(output)
        if not prompt.attached:
            own.prompted(prompt.size, input, linked)


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
        self._forms: Generations[object, Form] = Generations(_MOST_FORMS)
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
        buckets = self._buckets(principal, call)
        form, cap = self._form(call, plan, buckets), self._caps.get(plan.alias, 0)
        terms = known[name] = Terms(call, plan, buckets, form, cap)
        terms.habits = self._taken(principal, terms.model)
        return terms

    def _form(self, call: Call, plan: Plan, buckets: Sequence[Bucket]) -> Form:
        name = (plan.targets, call.model, call.alias, *[bucket.rule.id for bucket in buckets])
        form = self._forms.young.get(name) or self._forms.find(name)
        if form is None:
            form = Form(buckets, self._priced(call, plan), self._leases)
            if len(call.model) <= MODEL:
                self._forms.keep(name, form)
        return form

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
        values |= {"model": call.model[:MODEL], "backend": backend}
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
