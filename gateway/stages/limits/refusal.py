"""What a refused caller is told: which limit, what is left of it, and when to come back."""

from __future__ import annotations

from gateway.core.errors import PolicyError
from gateway.core.limit import Charges, Denial, LimitRule
from gateway.stages.limits.told import up

_CODES = {"usd": "policy_budget_exceeded", "concurrent": "policy_concurrency_limited"}
_TOLD = ("requests", "tokens")  # units whose x-ratelimit-* stand on every answer


def code(rule: LimitRule) -> str:
    """The error code of a refusal by this rule."""
    return _CODES.get(rule.unit, "policy_rate_limited")


def refused(denial: Denial, charges: Charges, wire: bytes) -> PolicyError:
    """For a call that has not been sent. `wire` are its x-ratelimit-* headers."""
    rule = denial.rule
    needed = next((n for bucket, n in charges if bucket.rule is rule and bucket.value == denial.value), 1)
    message = f"{_named(denial)} leaves no room: {_amount(rule, denial.remaining)} left, "
    message += f"{_amount(rule, needed)} needed. "
    retry_after: float | None = max(denial.retry_after, 1.0)
    if needed > (rule.burst or rule.amount + denial.raised):
        message += "This call is larger than the limit itself; ask for fewer tokens."
        retry_after = None
    else:
        message += f"Try again in {up(retry_after)} s."  # type: ignore[arg-type]
    headers = _no_earlier(wire, rule, retry_after or 0.0) + _headers(denial)
    return PolicyError(message, status=429, code=code(rule), retry_after=retry_after, headers=headers)


def _no_earlier(wire: bytes, rule: LimitRule, retry_after: float) -> tuple[tuple[bytes, bytes], ...]:
    """The headers; none of this rule's unit says that it is whole before a retry may work."""
    reset = b"x-ratelimit-reset-%b" % rule.unit.replace("_", "-").encode()
    found = []
    for line in wire.splitlines():
        name, _, value = line.partition(b": ")
        if name == reset and int(value.removesuffix(b"s")) < retry_after:
            value = b"%ds" % up(retry_after)
        found.append((name, value))
    return tuple(found)


def cut(denial: Denial, left: int, whole: float, stated: bool) -> PolicyError:
    """For a call that is being answered, and has outgrown what is left.

    `left` is what remains once it is charged, in the unit of the rule. `whole`: seconds until what it used
    counts no more, where it has used all of the limit by itself, else 0.0. `stated`: by the provider's count.
    """
    rule = denial.rule
    retry_after = max(denial.retry_after, whole, 1.0)
    message = f"{_named(denial)} was reached while this answer was streaming: {_amount(rule, left)} left, "
    message += "by what its provider has counted. " if stated else "by what its text comes to. "
    message += f"What came so far is charged. Try again in {up(retry_after)} s."
    return PolicyError(message, status=429, code=code(rule), retry_after=retry_after)


def unpriced(rule: LimitRule, model: str) -> PolicyError:
    """For a call whose cost nobody knows, under a limit of money that lets no such call pass."""
    message = (
        f"The model `{model[:128]}` has no price here, and the limit {rule.id} lets no call without one "
    )
    return PolicyError(message + "pass: its cost could not be counted.", code="policy_model_unpriced")


def _named(denial: Denial) -> str:
    rule = denial.rule
    amount = f"limit {rule.id} of {_amount(rule, rule.amount + denial.raised)}{_window(rule)}"
    scope = "/".join(rule.scope)
    return f"The gateway's {amount}" if scope == "global" else f"The {amount} per {scope}"


def _amount(rule: LimitRule, amount: int) -> str:
    if rule.unit == "usd":
        return f"${_dollars(amount)}"
    if rule.unit == "concurrent":
        return f"{amount} call{'s' * (amount != 1)} at once"
    unit = rule.unit.replace("_", " ")
    return f"{amount} {unit.removesuffix('s') if amount == 1 else unit}"


def _dollars(micros: int) -> str:
    return f"{micros / 1e6:.6f}".rstrip("0").rstrip(".")


def _window(rule: LimitRule) -> str:
    if rule.calendar:
        zone = f" ({rule.zone})" if rule.zone != "UTC" else ""
        return f" per calendar {rule.calendar}{zone}"
    return f" in {rule.seconds:g} s" if rule.seconds else ""


def _headers(denial: Denial) -> tuple[tuple[bytes, bytes], ...]:
    """x-ratelimit-* of the rule that refused, where its unit is not told with every answer."""
    rule = denial.rule
    if rule.unit in _TOLD:
        return ()
    show = _dollars if rule.unit == "usd" else str
    told = {"limit": show(rule.amount + denial.raised), "remaining": show(max(denial.remaining, 0))}
    told |= {"reset": f"{up(max(denial.retry_after, 1.0))}s"} if rule.unit != "concurrent" else {}
    unit = rule.unit.replace("_", "-")
    return tuple([(f"x-ratelimit-{what}-{unit}".encode(), value.encode()) for what, value in told.items()])
