"""`penstock explain REQUEST.json`: what would happen to a request, by the real stages, with nothing sent."""

from __future__ import annotations

import sys
import time
from argparse import Namespace
from collections.abc import Callable
from copy import copy
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from gateway import registry
from gateway.commands.description import limit, shown, target, words
from gateway.commands.ledger import opened
from gateway.commands.moment import parse_moment
from gateway.commands.output import Misused, Refused, say_json, say_table
from gateway.core.call import Call
from gateway.core.cost import PriceList
from gateway.core.errors import GatewayError
from gateway.core.group import groups_of, tenant_of
from gateway.core.keys import Keys
from gateway.core.limit import MICROS, Bucket, Denial, Hold, LimitRule, Standing
from gateway.core.parts import Parts
from gateway.core.principal import ANYONE, KeyEntry, Principal
from gateway.core.records import TENANT, Records
from gateway.front import body
from gateway.front.request import place
from gateway.settings.faults import quote
from gateway.settings.schema import Settings
from gateway.stages.policy.stage import Policies

STAGES = ("access", "route", "policy", "limits")  # those that decide without asking anybody


class Tally:
    """Leases that always have room, and note what was asked of them."""

    def __init__(self) -> None:
        self.charges: tuple[tuple[Bucket, int], ...] = ()
        self.degraded = False

    def bucket(self, rule: LimitRule, value: str) -> Bucket:
        """A bucket without an account."""
        return SimpleNamespace(rule=rule, value=value, left=rule.amount, free=0)

    def try_take(
        self, charges: tuple[tuple[Bucket, int], ...], tokens: int = 0, micros: int = 0
    ) -> Hold | Denial | None:
        """Note the charges."""
        self.charges = charges
        return Hold(tokens, micros, charges)

    async def take(
        self, charges: tuple[tuple[Bucket, int], ...], tokens: int = 0, micros: int = 0
    ) -> Hold | Denial:
        """Never needed: `try_take` always gives a Hold."""
        return Hold(tokens, micros, charges)

    def top_up(
        self, hold: Hold, charges: tuple[tuple[Bucket, int], ...], done: Callable[[Denial | None], None]
    ) -> None:
        """Always granted."""
        done(None)

    def settle(self, hold: Hold, tokens: int, micros: int, input: int = 0, output: int = 0) -> None:
        """Nothing was used."""

    def standing(self, bucket: Bucket) -> Standing | None:
        """Unknown: the running gateway knows."""
        return None


def run(args: Namespace, settings: Settings) -> int:
    """0 when the request would be sent, 1 when it would be refused."""
    key = _as_if(args, _key(args.key, settings))
    call = _call(args, _read(args.request, settings), _principal(key, settings))
    told = forecast(call, key, settings)
    if args.json:
        say_json(told)
    else:
        _print(told)
    return 1 if "refused" in told else 0


def _read(name: str, settings: Settings) -> bytes:
    most = settings.server.bounds.body
    try:
        if name == "-":
            data = sys.stdin.buffer.read(most + 1)
        else:
            with Path(name).open("rb") as stream:
                data = stream.read(most + 1)
    except OSError as error:
        raise Refused(f"{name} can't be read: {(error.strerror or str(error)).lower()}") from None
    if len(data) > most:
        raise Refused(str(body.too_large(most)))
    return data


def _key(name: str | None, settings: Settings) -> KeyEntry:
    if name is None:
        return ANYONE
    with opened(settings) as ledger:
        known: list[KeyEntry] = [*settings.keys, *(ledger.keys() if ledger else ())]
    for key in known:
        if name in (key.name, key.id):
            return key
    raise Refused(f"there is no key named {name}; penstock keys list shows them")


def _as_if(args: Namespace, key: KeyEntry) -> KeyEntry:
    """The key with what the options put in place of its own."""
    given = {name: value for name in ("tenant", "team", "user") if (value := getattr(args, name)) is not None}
    if args.roles is not None:
        given["roles"] = tuple(role.strip() for role in args.roles.split(",") if role.strip())
    return replace(key, **given) if given else key


def _principal(key: KeyEntry, settings: Settings) -> Principal:
    """The caller in its groups; a tenant that is not in the file may be in the ledger."""
    tenants = dict(settings.tenants)
    if key.tenant and key.tenant not in tenants:
        with opened(settings) as ledger:
            entity = cast(Records, ledger).entity(TENANT, key.tenant) if ledger else None
        if entity is not None and not entity.deleted:
            tenants[key.tenant] = tenant_of(entity.document)
    return Principal(key, groups_of(tenants, key.tenant, key.team, key.user))


def _call(args: Namespace, data: bytes, caller: Principal) -> Call:
    """The request as the front would make it."""
    path, known = place(f"/{args.endpoint.strip('/')}")
    headers = [(b"content-type", b"application/json")]
    for line in [*(args.header or ()), *([f"x-penstock-tags: {args.tags}"] if args.tags else ())]:
        name, colon, value = line.partition(":")
        if not colon or not line.isascii() or not line.isprintable():
            raise Misused(f"--header: {quote(line)} is not NAME:VALUE in printable ASCII")
        headers.append((name.strip().lower().encode(), value.strip().encode()))
    call = Call("POST", path, known, headers, data)
    call.principal = caller
    call.client = args.client or ""
    call.wall = parse_moment("--at", args.at).timestamp() if args.at else time.time()
    return call


def forecast(call: Call, key: KeyEntry, settings: Settings) -> dict[str, Any]:
    """What would happen, as a JSON document; `refused` says why nothing would be sent."""
    tally = Tally()
    told: dict[str, Any] = {
        "revision": settings.revision,
        "endpoint": call.endpoint,
        "key": key.name if key.origin != ANYONE.origin else None,
    }
    try:
        told["stage"] = "auth"
        _usable(key)
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
        told["refused"] = {"status": error.status, "code": error.code, "message": error.message}
    else:
        del told["stage"]
    if call.plan is not None:
        told |= _route(call, settings)
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


def _usable(key: KeyEntry) -> None:
    if key.revoked or (key.expires is not None and key.expires <= time.time()):
        state = "revoked" if key.revoked else "expired"
        raise GatewayError(f"This key is {state}.", status=401, code=f"caller_{state}_key")


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
