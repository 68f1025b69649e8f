"""May they, now? A reservation before the call, what was really used after it."""

from __future__ import annotations

from collections.abc import Awaitable
from fnmatch import fnmatchcase
from typing import Any

from gateway.core.call import Call
from gateway.core.cost import SCALE, Price
from gateway.core.errors import PolicyError
from gateway.core.limit import UNITS, Bucket, Denial, Hold, LimitRule, Standing, scope_value
from gateway.core.parts import Parts
from gateway.core.ports import Stage
from gateway.core.principal import Principal
from gateway.core.reply import Reply
from gateway.core.tokens import estimate
from gateway.core.usage import UNKNOWN

DEFAULT_OUTPUT = 1024  # tokens reserved for an answer whose length the caller does not bound

_MAX_OUTPUT = 1 << 31
_MAX_ANSWERS = 128

_REQUESTS, _TOKENS, _USD, _CONCURRENT = range(len(UNITS))
_WHAT = (b"limit", b"remaining", b"reset")
_CODES = (
    "policy_rate_limited",
    "policy_rate_limited",
    "policy_budget_exceeded",
    "policy_concurrency_limited",
)
_MAX_COMPILED = 256
_GENERATING = frozenset(("chat/completions", "completions", "responses", "messages"))
_BOUNDS = ("max_completion_tokens", "max_tokens", "max_output_tokens")


class _Compiled:
    """The rules that hold for one principal, model and backend: their buckets, and what money they need.

    `dearest` is the highest price of input and output tokens (`Price.rates`) and the price of a call.
    """

    __slots__ = ("buckets", "dearest", "priced", "shown")

    def __init__(self, buckets: list[Bucket], price: Price | None) -> None:
        self.buckets = tuple((bucket, UNITS.index(bucket.rule.unit)) for bucket in buckets)
        shown = [[_Shown(b) for b, unit in self.buckets if unit == told] for told in (_REQUESTS, _TOKENS)]
        self.shown = [each for each in shown if each]
        self.priced = price is not None
        self.dearest = (0, 0, 0)
        if price is not None:
            self.dearest = max(price.rates[:4]), max(price.rates[4:]), price.request


class _Shown:
    """A bucket as `x-ratelimit-*` headers: what never changes of them is made once."""

    __slots__ = ("bucket", "limit", "names", "reset")

    def __init__(self, bucket: Bucket) -> None:
        rule = bucket.rule
        names = [b"x-ratelimit-%b-%b" % (what, rule.unit.encode()) for what in _WHAT]
        self.bucket = bucket
        self.names = names
        self.limit = (names[0], b"%d" % rule.amount)
        self.reset = {at: (names[2], _seconds(at)) for at in (0.0, rule.seconds)}

    def add(self, found: list[tuple[bytes, bytes]], standing: Standing) -> None:
        """Limit, what is left of it, and when it is whole again."""
        _, remaining, reset = standing
        found.append(self.limit)
        found.append((self.names[1], b"%d" % remaining))
        found.append(self.reset.get(reset) or (self.names[2], _seconds(reset)))


def _seconds(time: float) -> bytes:
    return b"%ds" % -int(-time // 1)


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

    def admit(self, call: Call) -> Reply | Awaitable[None] | None:  # type: ignore[override]
        """Reserve; an awaitable only where the authority has to be asked. Raises `PolicyError` (429)."""
        principal = call.principal
        assert principal is not None and call.plan is not None, "auth and route come first"
        compiled = self._compiled(principal, call)
        tokens, micros = _claim(call, compiled)
        if not compiled.buckets:
            call.hold = Hold(tokens, micros)
            return None
        amounts = (1, tokens, micros, 1)
        charges = tuple([(bucket, amounts[unit]) for bucket, unit in compiled.buckets])
        taken = self._leases.try_take(charges, tokens, micros)
        if taken is None:
            return self._ask(call, compiled, charges, tokens, micros)
        self._decide(call, compiled, charges, taken)
        return None

    async def _ask(
        self,
        call: Call,
        compiled: _Compiled,
        charges: tuple[tuple[Bucket, int], ...],
        tokens: int,
        micros: int,
    ) -> None:
        self._decide(call, compiled, charges, await self._leases.take(charges, tokens, micros))

    def _decide(
        self, call: Call, compiled: _Compiled, charges: tuple[tuple[Bucket, int], ...], taken: Hold | Denial
    ) -> None:
        headers = self._headers(compiled)
        if type(taken) is Denial:
            raise _refused(taken, charges, headers)
        call.hold = taken  # type: ignore[assignment]
        if headers:
            call.memo["ratelimit"] = headers

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
        model = call.model if len(call.model) <= 128 else call.model[:128]
        compiled = known.get((model, target.backend))
        if compiled is None:
            if len(known) >= _MAX_COMPILED:
                known.clear()
            compiled = known[model, target.backend] = self._compile(principal, call, model)
        if not compiled.priced and model:
            call.reasons["price"] = "unknown"
        return compiled

    def _compile(self, principal: Principal, call: Call, model: str) -> _Compiled:
        target = call.plan.targets[0]  # type: ignore[union-attr]
        key = principal.key
        values = {"tenant": key.tenant, "team": key.team, "user": key.user, "key": key.id}
        values |= {"model": model, "backend": target.backend}
        buckets = []
        for rule in self._rules:
            if all(values.get(scope, "global") for scope in rule.scope):
                value = scope_value(rule, values)
                if fnmatchcase(value, rule.match):
                    buckets.append(self._leases.bucket(rule, value))
        free = self._backends[target.backend].kind == "echo"
        price = self._prices.find(target.model or call.model) or self._prices.find(call.alias)
        return _Compiled(buckets, Price.of({}) if free else price)

    # -- x-ratelimit-*

    def _headers(self, compiled: _Compiled) -> list[tuple[bytes, bytes]]:
        """Those of the tightest bucket of each kind; a bucket whose standing nobody knows has none."""
        found: list[tuple[bytes, bytes]] = []
        for each in compiled.shown:
            tightest = None
            for shown in each:
                standing = self._leases.standing(shown.bucket)
                if standing and (tightest is None or standing.remaining < tightest.remaining):
                    tightest, told = standing, shown
            if tightest is not None:
                told.add(found, tightest)
        return found


def _claim(call: Call, compiled: _Compiled) -> tuple[int, int]:
    """What to reserve: tokens, and the most they can cost in micro-dollars (as `Price.ceiling`)."""
    document = call.document
    if document is None or not call.model:
        return 0, 0
    prompt = estimate(call.body)
    output = _output(document) if call.endpoint in _GENERATING else 0
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


def _refused(
    denial: Denial, charges: tuple[tuple[Bucket, int], ...], headers: list[tuple[bytes, bytes]]
) -> PolicyError:
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
    return PolicyError(
        message, status=429, code=_CODES[unit], retry_after=retry_after, headers=tuple(headers)
    )


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
