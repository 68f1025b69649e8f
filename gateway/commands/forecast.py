"""`penstock explain REQUEST.json`: what would happen to a request, by the real stages, with nothing sent."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable
from copy import copy
from types import SimpleNamespace
from typing import Any, cast

from gateway import registry
from gateway.commands.description import limit, shown, stages, target, words
from gateway.commands.output import say_json, say_table
from gateway.commands.supposed import call_of, key_of
from gateway.core.call import Call
from gateway.core.cost import PriceList
from gateway.core.credential import expired, revoked
from gateway.core.errors import CallerError, GatewayError
from gateway.core.hold import Hold
from gateway.core.keys import Keys
from gateway.core.limit import MICROS, Bucket, Charges, Denial, LimitRule, Standing
from gateway.core.parts import Parts
from gateway.core.principal import ANYONE, KeyEntry
from gateway.front import body
from gateway.settings.schema import Settings
from gateway.stages.policy.stage import Policies

STAGES = ("access", "route", "policy", "limits")  # those that decide without asking anybody


class Tally:
    """Leases that always have room, and note what was asked of them."""

    def __init__(self) -> None:
        self.charges: Charges = ()
        self.degraded = self.unusual = False

    def bucket(self, rule: LimitRule, value: str) -> Bucket:
        """A bucket without an account."""
        return SimpleNamespace(rule=rule, value=value, left=rule.amount, free=0)

    def try_take(self, charges: Charges, tokens: int = 0, micros: int = 0) -> Hold | Denial | None:
        """Note the charges."""
        self.charges = charges
        return Hold(tokens, micros, charges)

    async def take(self, charges: Charges, tokens: int = 0, micros: int = 0) -> Hold | Denial:
        """Never needed: `try_take` always gives a Hold."""
        return Hold(tokens, micros, charges)

    def top_up(self, hold: Hold, charges: Charges, done: Callable[[Denial | None], None]) -> None:
        """Always granted."""
        done(None)

    def settle(self, hold: Hold, tokens: int, micros: int, input: int = 0, output: int = 0) -> None:
        """Nothing was used."""

    def standing(self, bucket: Bucket) -> Standing | None:
        """Unknown: the running gateway knows."""
        return None


def run(args: Namespace, settings: Settings) -> int:
    """0 when the request would be sent, 1 when it would be refused."""
    key = key_of(args, settings)
    try:
        call = call_of(args, key, settings)
    except CallerError as error:
        told = _begun(args.endpoint, key, settings) | {"stage": "head", "limits": [], "refused": _said(error)}
    else:
        told = forecast(call, key, settings)
    if args.json:
        say_json(told)
    else:
        _print(told)
    return 1 if "refused" in told else 0


def forecast(call: Call, key: KeyEntry, settings: Settings) -> dict[str, Any]:
    """What would happen, as a JSON document; `refused` says why nothing would be sent."""
    tally = Tally()
    told = _begun(call.endpoint, key, settings)
    try:
        told["stage"] = "auth"
        _usable(key, call.wall)
        told["stage"] = "body"
        body.read(call, settings.server.bounds.body)
        told |= {"model": call.model or None, "stream": call.stream}
        for name, use in registry.STAGES:
            if name in STAGES:
                told["stage"] = name
                stage = registry.load(use)({}, _parts(settings, tally))
                if name == "policy":
                    _judged(stage, call, told)
                else:
                    stage.admit(call)
    except GatewayError as error:
        told["refused"] = _said(error)
        if error.code == "policy_address_not_allowed" and not call.client:
            told["refused"]["message"] += " Name the one it would come from with --client."
    else:
        del told["stage"]
    if call.plan is not None:
        told |= _route(call, settings)
    if plugins := _unasked(settings):
        told["not_asked"] = plugins
    told["limits"] = [_limit(bucket, amount) for bucket, amount in tally.charges]
    if call.hold is not None:
        told["reserved"] = {"tokens": call.hold.tokens, "usd": call.hold.micros / MICROS}
    return told


def _judged(stage: Policies, call: Call, told: dict[str, Any]) -> None:
    """Every policy that meets the call, then what they do to it together."""
    from gateway.stages.policy.account import account, changes

    before = copy(call)
    before.document = dict(call.document or {})
    told["policies"] = account(stage, call)
    stage.admit(call)
    told["set"] = changes(before, call)


def _unasked(settings: Settings) -> list[str]:
    """Plugins that could refuse, change or answer a call: some would ask others, so none is run."""
    uses = {use for use, _ in settings.plugins}
    return [stage["use"] for stage in stages(settings) if stage["use"] in uses and "admit" in stage["verbs"]]


def _begun(endpoint: str, key: KeyEntry, settings: Settings) -> dict[str, Any]:
    name = key.name if key.origin != ANYONE.origin else None
    return {"revision": settings.revision, "endpoint": endpoint, "key": name}


def _said(error: GatewayError) -> dict[str, Any]:
    return {"status": error.status, "code": error.code, "message": error.message}


def _usable(key: KeyEntry, at: float) -> None:
    if key.revoked:
        raise revoked()
    if key.expires is not None and key.expires <= at:
        raise expired()


def _parts(settings: Settings, tally: Tally) -> Parts:
    return Parts(
        revision=settings.revision,
        worker=0,
        keys=Keys(),
        leases=tally,
        journal=cast(Any, None),  # these stages write nothing
        backends=cast(Any, settings.backends),  # and look at names and kinds only
        models=settings.models,
        limits=settings.limits,
        prices=PriceList(settings.prices),
        auth_mode=settings.auth.mode,
        access=settings.access,
        policies=settings.policies,
    )


def _route(call: Call, settings: Settings) -> dict[str, Any]:
    """The rule that matched, and the plan of each of its targets with its share of the calls."""
    assert call.plan is not None
    rule = next((rule for rule in settings.models if rule.name == call.alias), None)
    if rule is None:
        return {"rule": None, "reason": call.plan.reason, "plans": [_plan(call.plan.targets, 1.0)]}
    if call.plan.reason == "policy":  # targets were left out
        return {"rule": rule.name, "reason": "policy", "plans": [_plan(call.plan.targets, 1.0)]}
    total = sum(item.weight for item in rule.targets)
    plans = [
        _plan((item, *(later for later in rule.fallback if later != item)), item.weight / total)
        for item in rule.targets
    ]
    return {"rule": rule.name, "reason": call.plan.reason, "plans": plans}


def _plan(targets: Any, share: float) -> dict[str, Any]:
    return {"share": round(share, 4), "targets": [target(item) for item in targets]}


def _limit(bucket: Bucket, amount: int) -> dict[str, Any]:
    rule = bucket.rule
    return limit(rule) | {"value": bucket.value, "needs": amount / MICROS if rule.unit == "usd" else amount}


def _print(told: dict[str, Any]) -> None:
    key = told["key"] or "(none given: one that may do everything)"
    print(f"revision {told['revision']}, {told['endpoint']}, key {key}")
    if told.get("model"):
        print(f"model {told['model']}{', streamed' if told['stream'] else ''}")
    if "plans" in told:
        print(f"rule {told['rule'] or '-'} ({told['reason']})\n")
        rows = [
            (f"{plan['share']:.0%}", ", then ".join(map(shown, plan["targets"]))) for plan in told["plans"]
        ]
        say_table(("share", "asked in this order"), rows)
    if told.get("policies"):
        print()
        policies = [(p["policy"], p["effect"], p["mode"], _outcome(p)) for p in told["policies"]]
        say_table(("policy", "effect", "mode", "what it does"), policies)
    if told["limits"]:
        print()
        limits = [(" + ".join(r["scope"]), r["value"], words(r), f"{r['needs']:g}") for r in told["limits"]]
        say_table(("limit", "of", "amount", "reserved"), limits, numbers=1)
    if "refused" in told:
        refused = told["refused"]
        print(f"\nrefused by {told['stage']}: {refused['status']} {refused['code']}: {refused['message']}")
    elif "reserved" in told:
        print(f"\nreserves {told['reserved']['tokens']} tokens, at most {told['reserved']['usd']:.6f} USD")
    if told.get("not_asked"):
        print(f"plugins are not asked here: {', '.join(told['not_asked'])}")


def _outcome(entry: dict[str, Any]) -> str:
    """What one policy does to the request, in words."""
    told = []
    if "refuses" in entry:
        told.append(f"refuses: {entry['refuses']}")
    if entry.get("missing"):
        told.append(f"refuses: requires {entry['missing']}")
    elif "missing" in entry:
        told.append("is met")
    if "sets" in entry:
        told.append(
            ", ".join(f"{name} = {value}" for name, value in entry["sets"].items()) or "sets nothing new"
        )
    if "backends" in entry:
        told.append(f"towards {', '.join(entry['backends'])}")
    if entry["holds"] is None:
        told.append("can't be told, so it holds")
    what = "; ".join(told) or "lets it pass"
    return f"would, but for its mode: {what}" if entry["mode"] == "shadow" else what
