"""May they, now? A reservation before the call, what was really used after it."""

from __future__ import annotations

from collections.abc import Awaitable
from fnmatch import fnmatchcase
from operator import itemgetter
from typing import Any

from gateway.core.call import Call
from gateway.core.cost import SCALE, Price
from gateway.core.errors import PolicyError
from gateway.core.limit import UNITS, Bucket, Denial, Hold, LimitRule, scope_value
from gateway.core.parts import Parts
from gateway.core.ports import Leases, Stage
from gateway.core.principal import Principal
from gateway.core.reply import Reply
from gateway.core.tokens import estimate
from gateway.core.usage import UNKNOWN

DEFAULT_OUTPUT = 1024  # tokens reserved for an answer whose length the caller does not bound

_MAX_OUTPUT = 1 << 31
_MAX_ANSWERS = 128

_REQUESTS, _TOKENS = 0, 1
_CODES = (
    "policy_rate_limited",
    "policy_rate_limited",
    "policy_budget_exceeded",
    "policy_concurrency_limited",
    "policy_rate_limited",
    "policy_rate_limited",
)
_MAX_COMPILED = 256

Charges = tuple[tuple[Bucket, int], ...]
_GENERATING = frozenset(("chat/completions", "completions", "responses", "messages"))
_BOUNDS = ("max_completion_tokens", "max_tokens", "max_output_tokens")


class _Compiled:
    """The rules that hold for one principal, model and backend: their buckets, and what money they need.

    `dearest` is the highest price of input and output tokens (`Price.rates`) and the price of a call.
    `amounts` picks a call's amounts for `buckets` out of those of all units. `shown` are the buckets that
    x-ratelimit-* tell of, by unit.
    """

    __slots__ = ("amounts", "buckets", "dearest", "priced", "shown")

    def __init__(self, buckets: list[Bucket], price: Price | None, leases: Leases) -> None:
        units = [UNITS.index(bucket.rule.unit) for bucket in buckets]
        self.buckets = tuple(buckets)
        # Always of two or more, so that it gives a tuple; `zip` stops at the last bucket.
        self.amounts = itemgetter(*units, _REQUESTS, _REQUESTS)
        enforced = [pair for pair in zip(buckets, units, strict=True) if pair[0].rule.mode == "enforce"]
        told = ([bucket for bucket, unit in enforced if unit == u] for u in (_REQUESTS, _TOKENS))
        self.shown = tuple([_Shown(leases, *each) for each in told if each])
        self.priced = price is not None
        self.dearest = (0, 0, 0)
        if price is not None:
            self.dearest = max(price.rates[:4]), max(price.rates[4:]), price.request


class _Shown:
    """A bucket as `x-ratelimit-*` headers: what never changes of them is made once."""

    __slots__ = ("amount", "any", "bucket", "part", "rivals", "sole", "whole")

    def __init__(self, leases: Leases, bucket: Bucket, *others: Bucket) -> None:
        rule = bucket.rule
        name = b"x-ratelimit-%%b-%b: " % rule.unit.encode()
        limit, remaining, reset = (name % what for what in (b"limit", b"remaining", b"reset"))
        self.bucket = bucket
        self.amount = rule.amount
        self.rivals = [_Shown(leases, other) for other in others]  # of the same unit: the tightest is told
        # What is left can be read off the bucket itself.
        self.sole = not others and not rule.calendar and leases.standing(bucket) is not None
        known = b"%b%d\r\n%b" % (limit, rule.amount, remaining)
        self.any = known + b"%d\r\n" + reset + b"%ds\r\n"
        self.whole = self.any % (rule.amount, 0)
        self.part = known + b"%d\r\n" + reset + b"%ds\r\n" % (_up(rule.seconds) if rule.amount else 0)


def _up(number: float) -> int:
    return -int(-number // 1)


class Limits(Stage):
    """Holds what a call may use, and settles it: requests, tokens, money, calls at once.

    Money is reserved by the dearest price of the first target; where nobody stated one it is 0,
    and the call says so (`reasons["price"]`). A rule over `backend` counts for the plan's first one.
    """

    def __init__(self, options: Any, parts: Parts) -> None:
        self._rules = parts.limits
        self._leases = parts.leases
        self._prices = parts.prices
        self._backends = parts.backends
        self._counts = parts.counts

    def admit(self, call: Call) -> Reply | Awaitable[None] | None:  # type: ignore[override]
        """Reserve; an awaitable only where the authority has to be asked. Raises `PolicyError` (429)."""
        principal, plan, model = call.principal, call.plan, call.model
        assert principal is not None and plan is not None, "auth and route come first"
        seen = principal.memo.get("limits")
        known = seen[1] if seen is not None and seen[0] is self else None
        compiled = known.get((model, plan.targets[0].backend)) if known is not None else None
        if compiled is None:
            compiled = self._compiled(principal, call)
        if not compiled.priced and model:
            call.reasons["price"] = "unknown"
        tokens, micros = _claim(call, compiled) if model and call.document is not None else (0, 0)
        if not compiled.buckets:
            call.hold = Hold(tokens, micros)
            return None
        charges = tuple(zip(compiled.buckets, compiled.amounts((1, tokens, micros, 1, tokens, tokens)), strict=False))
        taken = self._leases.try_take(charges, tokens, micros)
        if taken is None:
            return self._ask(call, compiled, charges, tokens, micros)
        self._decide(call, compiled, charges, taken)
        return None

    async def _ask(self, call: Call, compiled: _Compiled, charges: Charges, tokens: int, micros: int) -> None:
        self._decide(call, compiled, charges, await self._leases.take(charges, tokens, micros))

    def _decide(self, call: Call, compiled: _Compiled, charges: Charges, taken: Hold | Denial) -> None:
        """Keep the hold or refuse, and tell how the buckets stand: as a wire block."""
        wire = b""
        for each in compiled.shown:
            if each.sole:  # as `Leases.standing` says, without the frames
                left = each.bucket.left + each.bucket.free
                wire += each.whole if left >= each.amount else each.part % (left if left > 0 else 0)
            else:
                wire += self._tightest(each)
        if type(taken) is Denial:
            counted = ("limits", taken.rule.id, "refused")
            self._counts[counted] = self._counts.get(counted, 0) + 1
            raise _refused(taken, charges, wire)
        call.hold = taken  # type: ignore[assignment]
        if wire:
            call.memo["ratelimit"] = wire

    def settle(self, call: Call) -> None:  # type: ignore[override]
        """What was used replaces what was held. Where nobody knows the usage, the hold stands."""
        hold = call.hold
        if hold is None or hold.settled:
            return
        usage = call.usage
        if usage.source == UNKNOWN:
            self._leases.settle(hold, hold.tokens, hold.micros)
        else:
            self._leases.settle(hold, usage.total, call.cost)

    # -- which rules

    def _compiled(self, principal: Principal, call: Call) -> _Compiled:
        memo = principal.memo.get("limits")
        if memo is None or memo[0] is not self:  # another revision's rules
            memo = principal.memo["limits"] = (self, {})
        known: dict[tuple[str, str], _Compiled] = memo[1]
        target = call.plan.targets[0]  # type: ignore[union-attr]
        model = call.model[:128]
        compiled = known.get((model, target.backend))
        if compiled is None:
            if len(known) >= _MAX_COMPILED:
                known.clear()
            compiled = known[model, target.backend] = self._compile(principal, call, model)
        return compiled

    def _compile(self, principal: Principal, call: Call, model: str) -> _Compiled:
        target = call.plan.targets[0]  # type: ignore[union-attr]
        key = principal.key
        values = {"tenant": key.tenant, "team": key.team, "user": key.user, "key": key.id}
        values |= {"model": model, "backend": target.backend}
        names = {**values, "key": key.name}  # counted by id, which never changes; matched by name as well
        buckets = []
        for rule in self._rules:
            if all(values.get(scope, "global") for scope in rule.scope):
                value, named = scope_value(rule, values), scope_value(rule, names)
                if fnmatchcase(named, rule.match) or fnmatchcase(value, rule.match):
                    buckets.append(self._leases.bucket(rule, value))
        free = self._backends[target.backend].kind == "echo"
        price = self._prices.find(target.model or call.model) or self._prices.find(call.alias)
        return _Compiled(buckets, Price.of({}) if free else price, self._leases)

    # -- x-ratelimit-*

    def _tightest(self, shown: _Shown) -> bytes:
        """Of several buckets the one with the least left; one whose standing nobody knows says nothing."""
        known = [(self._leases.standing(each.bucket), each) for each in (shown, *shown.rivals)]
        stated = [(standing, each) for standing, each in known if standing is not None]
        if not stated:
            return b""
        standing, best = min(stated, key=lambda pair: pair[0].remaining)
        return best.any % (standing.remaining, _up(standing.reset))


def _claim(call: Call, compiled: _Compiled) -> tuple[int, int]:
    """What to reserve: tokens, and the most they can cost in micro-dollars (as `Price.ceiling`)."""
    prompt = estimate(call.body, call.document)
    output = _output(call.document) if call.endpoint in _GENERATING else 0  # type: ignore[arg-type]
    dearest_in, dearest_out, request = compiled.dearest
    return prompt + output, request - (-(prompt * dearest_in + output * dearest_out) // SCALE)


def _output(document: dict[str, Any]) -> int:
    """The longest answer the caller allows, times the number of answers."""
    most = 0
    for name in _BOUNDS:
        if name in document:
            given = document[name]
            if type(given) is int and given > most:
                most = given
    most = min(most, _MAX_OUTPUT) if most else DEFAULT_OUTPUT
    if "n" in document:
        answers = document["n"]
        if type(answers) is int and answers > 1:
            return most * min(answers, _MAX_ANSWERS)
    return most


def _refused(denial: Denial, charges: Charges, wire: bytes) -> PolicyError:
    rule = denial.rule
    unit = UNITS.index(rule.unit)
    needed = next(
        (amount for bucket, amount in charges if bucket.rule.id == rule.id and bucket.value == denial.value),
        1,
    )
    scope = "/".join(rule.scope)
    message = f"The limit of {_amount(rule, rule.amount)}{_window(rule)} per {scope} leaves no room: "
    if scope == "global":
        message = f"The gateway's limit of {_amount(rule, rule.amount)}{_window(rule)} leaves no room: "
    message += f"{_amount(rule, denial.remaining)} left, {_amount(rule, needed)} needed. "
    retry_after: float | None = max(denial.retry_after, 1.0)
    if needed > rule.amount:
        message += "This call is larger than the limit itself; ask for fewer tokens."
        retry_after = None
    else:
        message += f"Try again in {-int(-retry_after // 1)} s."  # type: ignore[operator]
    pairs = [line.partition(b": ") for line in wire.splitlines()]
    headers = tuple([(name, value) for name, _, value in pairs])
    return PolicyError(message, status=429, code=_CODES[unit], retry_after=retry_after, headers=headers)


def _amount(rule: LimitRule, amount: int) -> str:
    if rule.unit == "usd":
        return f"${amount / 1e6:.6f}".rstrip("0").rstrip(".")
    if rule.unit == "concurrent":
        return f"{amount} calls at once"
    return f"{amount} {rule.unit}"


def _window(rule: LimitRule) -> str:
    if rule.calendar:
        return f" per calendar {rule.calendar}"
    return f" in {rule.seconds:g} s" if rule.seconds else ""
