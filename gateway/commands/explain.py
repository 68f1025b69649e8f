"""`penstock explain`: what the configuration means, or what it would do to a request."""

from __future__ import annotations

from argparse import Namespace
from typing import Any

from gateway.commands.description import describe, shown, words
from gateway.commands.output import Refused, load, refuse, say_json, say_table

# Options that say how a request would come.
WHAT_IF = ("key", "tenant", "team", "user", "roles", "tags", "client", "at", "header")


def run(args: Namespace) -> int:
    """Explain the configuration, or what it does to one request."""
    try:
        settings = load(args)
        if args.request is not None:
            from gateway.commands.forecast import run as forecast

            return forecast(args, settings)
        given = next((name for name in WHAT_IF if getattr(args, name)), None)
        if given is not None:
            raise Refused(f"--{given} needs a request: penstock explain REQUEST.json --{given} …")
        told = describe(settings)
    except Refused as refused:
        return refuse(args, refused)
    if args.json:
        say_json(told)
    else:
        _print(told)
    return 0


def _print(told: dict[str, Any]) -> None:
    server = told["server"]
    print(f"revision {told['revision']}  {told['file'] or '(no file: zero configuration)'}")
    print(f"data port {server['listen']}, admin port {server['admin']}, workers {server['workers']}")
    print(f"data in {server['data_dir']}, auth by {told['auth']}, {told['prices']} prices\n")
    say_table(
        ("stage", "verbs", "use"), [(s["name"], " ".join(s["verbs"]), s["use"]) for s in told["stages"]]
    )
    print()
    backends = [(b["name"], b["kind"], b["base_url"], ", ".join(b["keys"])) for b in told["backends"]]
    say_table(("backend", "kind", "address", "keys"), backends)
    print()
    say_table(("model", "targets", "fallback"), [_row(rule) for rule in told["models"]])
    if told["limits"]:
        print()
        limits = [(" + ".join(r["scope"]), r["match"], words(r), r["id"]) for r in told["limits"]]
        say_table(("limit for each", "match", "amount", "id"), limits)
    if told["policies"] or told["access"]["default"] == "deny":
        print()
        rows = [(p["name"], p["effect"], p["mode"], ", ".join(p["looks_at"])) for p in told["policies"]]
        rows.append(("default", told["access"]["default"], "enforce", ""))
        say_table(("policy", "effect", "mode", "looks at"), rows)
    print("\nbounds  " + "  ".join(f"{name} {value}" for name, value in told["bounds"].items()))
    for warning in told["warnings"]:
        print(f"warning: {warning}")


def _row(rule: dict[str, Any]) -> tuple[str, str, str]:
    many = len(rule["targets"]) > 1
    targets = [shown(item) + (f" x{item['weight']:g}" if many else "") for item in rule["targets"]]
    return rule["name"], ", ".join(targets), ", ".join(shown(item) for item in rule["fallback"])
