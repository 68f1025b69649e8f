"""May they, now? A reservation before the call, what was really used after it."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any

from gateway.core.call import Call
from gateway.core.hold import Bill, Hold
from gateway.core.limit import Charges, Denial
from gateway.core.parts import Parts
from gateway.core.ports import Stage
from gateway.core.principal import Principal
from gateway.core.reply import Reply
from gateway.core.route import Plan
from gateway.core.usage import PROVIDER, UNKNOWN
from gateway.stages.limits.ample import Lesson, ample, bounds
from gateway.stages.limits.claim import Claim
from gateway.stages.limits.form import Form
from gateway.stages.limits.growth import Growth
from gateway.stages.limits.refusal import refused, unpriced
from gateway.stages.limits.terms import MODEL, Compiler, Terms
from gateway.stages.limits.told import anew, wire


class Limits(Stage):
    """Holds what a call may use, and settles it: requests, tokens, money, calls at once.

    Money is reserved by the dearest prices of the plan's targets; where nobody stated one it is 0,
    and the call says so (`reasons["price"]`). A rule over `backend` counts for the plan's first one.
    """

    def __init__(self, options: Any, parts: Parts) -> None:
        self._leases = parts.leases
        self._counts = parts.counts
        self._compiler = Compiler(parts)
        self._tagged = self._compiler.tagged

    def admit(self, call: Call) -> Reply | Awaitable[None] | None:  # type: ignore[override]
        """Reserve; an awaitable only where the authority has to be asked. Raises `PolicyError` (429, 403)."""
        principal, plan, model = call.principal, call.plan, call.model
        assert principal is not None and plan is not None, "auth and route come first"
        # As a rule the call is like the caller's last one.
        seen = principal.memo.get("limits")
        if (
            seen is None
            or seen[0] is not self
            or (terms := seen[2]).plan is not plan
            or terms.model != model
            or (self._tagged and terms.tags != call.tags)
        ):
            terms = self._terms(principal, call, plan)
        form: Form = terms.form
        if model and not form.priced:
            call.reasons["price"] = "unknown"
        if form.unpriced and model:
            self._unpriced(call, form)
        if not model or call.document is None:
            return self._unmeasured(call, terms)
        if form.measured:
            lesson, most = None, ample(call, terms)
            if most is None and not terms.habits[0].turn & 3 and (most := bounds(call, terms)) is not None:
                lesson = Lesson(call, terms)
            if most is not None:
                charges = Bill(terms.buckets, form.amounts(most))
                taken = self._leases.try_take(charges, most[1], most[2])
                if type(taken) is Hold:
                    taken.output = most[5]
                    call.hold = taken
                    call.memo["ratelimit"] = wire(form.shown, terms.buckets)
                    if lesson is not None:
                        call.memo["claim"] = lesson
                    if self._leases.unusual:
                        self._remark(call, terms)
                    return None
        claim = Claim(call, terms)
        if not terms.buckets:
            call.hold = Hold(claim.tokens, claim.micros())
            return None
        amounts = (1, claim.tokens, claim.micros(), 1, claim.input, claim.output)
        if form.measured and not claim.plenty(amounts):
            claim.moderate(call)
            amounts = (1, claim.tokens, claim.micros(), 1, claim.input, claim.output)
        charges = Bill(terms.buckets, form.amounts(amounts))
        taken = self._leases.try_take(charges, amounts[1], amounts[2])
        if type(taken) is Hold:
            taken.output = claim.output
            self._keep(call, terms, claim, taken)
            return None
        return self._haggle(call, terms, claim, charges, taken)

    def _terms(self, principal: Principal, call: Call, plan: Plan) -> Terms:
        """Looked up or compiled; those of another revision's rules are forgotten."""
        name: Any = (call.model[:MODEL], plan.targets[0].backend)
        if self._tagged:
            name = (*name, call.tags)
        seen = principal.memo.get("limits")
        known: dict[object, Terms] = seen[1] if seen is not None and seen[0] is self else {}
        terms = known.get(name)
        if terms is None or terms.plan is not plan:
            terms = self._compiler.compile(principal, call, known, name)
        principal.memo["limits"] = (self, known, terms)
        return terms

    def _unpriced(self, call: Call, form: Form) -> None:
        for rule in form.unpriced:
            counted = ("limits", rule.id, "unpriced")
            self._counts[counted] = self._counts.get(counted, 0) + 1
        call.reasons["limits"] = "unpriced"
        if form.barred is not None:
            call.reasons["limit"] = form.barred.id
            raise unpriced(form.barred, call.model)

    def _unmeasured(self, call: Call, terms: Terms) -> Awaitable[None] | None:
        """A call that nobody can say anything of beforehand but that it is one."""
        charges = Bill(terms.buckets, terms.form.amounts((1, 0, 0, 1, 0, 0)))
        taken = self._leases.try_take(charges) if terms.buckets else Hold(0, 0)
        if not isinstance(taken, Hold):
            return self._haggle(call, terms, None, charges, taken)
        self._keep(call, terms, None, taken)
        return None

    # -- where the first claim did not fit

    def _haggle(
        self, call: Call, terms: Terms, claim: Claim | None, charges: Charges, taken: Hold | Denial | None
    ) -> Awaitable[None] | None:
        """Claim less, as long as less could do; an awaitable where the authority has to be asked."""
        while isinstance(taken, Denial):
            charges = self._reduced(call, terms, claim, charges, taken)
            taken = self._leases.try_take(charges, *_held(claim))
        if taken is None:
            return self._ask(call, terms, claim, charges)
        self._keep(call, terms, claim, taken)
        return None

    async def _ask(self, call: Call, terms: Terms, claim: Claim | None, charges: Charges) -> None:
        taken = await self._leases.take(charges, *_held(claim))
        while isinstance(taken, Denial):
            charges = self._reduced(call, terms, claim, charges, taken)
            taken = await self._leases.take(charges, *_held(claim))
        self._keep(call, terms, claim, taken)

    def _reduced(
        self, call: Call, terms: Terms, claim: Claim | None, charges: Charges, denial: Denial
    ) -> Charges:
        """The charges of a smaller claim. Raises `PolicyError` where there is none."""
        unit = denial.rule.unit
        if claim is not None and unit not in ("requests", "concurrent") and claim.less(call):
            amounts = (1, claim.tokens, claim.micros(), 1, claim.input, claim.output)
            return Bill(terms.buckets, terms.form.amounts(amounts))
        counted = ("limits", denial.rule.id, "refused")
        self._counts[counted] = self._counts.get(counted, 0) + 1
        call.reasons["limit"] = denial.rule.id
        if self._leases.degraded:
            _say_lost(call)
        raise refused(denial, charges, anew(terms.form.shown, terms.buckets))

    # -- the hold

    def _keep(self, call: Call, terms: Terms, claim: Claim | None, hold: Hold) -> None:
        """Keep the hold, have the answer stay within it, and tell how the limits stand."""
        call.hold = hold
        if terms.form.shown:
            call.memo["ratelimit"] = wire(terms.form.shown, terms.buckets)
        if self._leases.unusual:
            self._remark(call, terms)
        if claim is None or not terms.form.measured:
            return
        call.memo["claim"] = claim
        hold.output = claim.output
        if claim.output < claim.most or not claim.most:
            claim.restrain(call)
        if call.stream and terms.form.growing:
            call.memo["growth"] = Growth(call, hold, claim, self._leases, self._counts)

    def _remark(self, call: Call, terms: Terms) -> None:
        """The store that replicas share is lost, or some limit is raised: that is told, too."""
        if self._leases.degraded:
            _say_lost(call)
        if terms.form.shown:
            call.memo["ratelimit"] = anew(terms.form.shown, terms.buckets)

    def settle(self, call: Call) -> None:  # type: ignore[override]
        """What was used replaces what was held. Where nobody knows the usage, the hold stands."""
        hold = call.hold
        growth: Growth | None = call.memo.pop("growth", None)
        if growth is not None:
            growth.leave()
        if hold is None or hold.settled:
            return
        usage = call.usage
        if usage.source == UNKNOWN:
            self._leases.settle(hold, hold.tokens, hold.micros, hold.tokens - hold.output, hold.output)
            return
        input, output = usage.input_total, usage.output_total
        self._leases.settle(hold, input + output, call.cost, input, output)
        claim: Claim | Lesson | None = call.memo.get("claim")
        if claim is not None and usage.source == PROVIDER and call.outcome == "ok":
            claim.learn(input, output)
            if growth is not None:
                growth.learn(output)


def _held(claim: Claim | None) -> tuple[int, int]:
    return (claim.tokens, claim.micros()) if claim is not None else (0, 0)


def _say_lost(call: Call) -> None:
    """The store that replicas share is lost."""
    before = call.reasons.get("limits")
    call.reasons["limits"] = f"{before},store_lost" if before else "store_lost"
