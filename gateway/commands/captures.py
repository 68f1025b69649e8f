"""`penstock captures`: texts of calls that a tenant wanted to be kept, redacted as they were written."""

from __future__ import annotations

import sys
from argparse import Namespace
from dataclasses import asdict
from typing import Any, cast

from gateway.commands.ledger import opened
from gateway.commands.moment import parse_moment
from gateway.commands.output import Misused, Refused, load, refuse, say_json, say_table
from gateway.core.captured import Captured, Captures
from gateway.core.codec import dumps
from gateway.core.moment import iso
from gateway.core.records import Actor, Deed, Records

_SHOWN = 60  # characters of a text in the list


def run(args: Namespace) -> int:
    """Do one of list, show, export, forget."""
    try:
        return {"list": _list, "show": _show, "export": _export, "forget": _forget}[args.action](args)
    except Refused as refused:
        return refuse(args, refused)


def _query(args: Namespace) -> dict[str, Any]:
    since = parse_moment("--since", args.since) if args.since else None
    until = parse_moment("--until", args.until) if args.until else None
    return {
        "tenant": args.tenant,
        "since_ms": int(since.timestamp() * 1000) if since else 0,
        "until_ms": int(until.timestamp() * 1000) if until else 0,
    }


def _list(args: Namespace) -> int:
    if args.limit < 1:
        raise Misused("--limit: must be 1 or more")
    with opened(load(args)) as ledger:
        found = cast(Captures, ledger).captures(most=args.limit, **_query(args)) if ledger else ()
        captures = list(found)
    if args.json:
        say_json([asdict(each) for each in captures])
    elif not captures:
        print("No texts were kept in this time.")
    else:
        say_table(("id", "when", "tenant", "key", "model", "prompt"), [_row(each) for each in captures])
    return 0


def _row(each: Captured) -> tuple[str, ...]:
    prompt = " ".join(each.prompt.split())
    prompt = prompt if len(prompt) <= _SHOWN else prompt[: _SHOWN - 1] + "…"
    shown = "".join(c for c in prompt if c.isprintable())
    return each.id, str(iso(each.ts_ms // 1000)), each.tenant, each.key_name, each.model, shown


def _show(args: Namespace) -> int:
    with opened(load(args)) as ledger:
        found = cast(Captures, ledger).capture(args.id) if ledger else None
    if found is None:
        raise Refused(f"no texts were kept of a call {args.id!a}")
    if args.json:
        say_json(asdict(found))
        return 0
    taken = ", ".join(f"{count} {kind}" for kind, count in found.redactions.items()) or "nothing"
    print(
        f"{found.id}  {iso(found.ts_ms // 1000)}  tenant {found.tenant}, key {found.key_name}, {found.model}"
    )
    print(f"redacted: {taken}; kept until {iso(found.until_ms // 1000)}")
    for name, text in (("prompt", found.prompt), ("response", found.response)):
        # What a terminal would obey rather than show is left out.
        print(f"\n--- {name}\n" + "".join(c for c in text if c.isprintable() or c in "\n\t"))
    return 0


def _export(args: Namespace) -> int:
    """JSON lines, the newest first."""
    with opened(load(args)) as ledger:
        for each in cast(Captures, ledger).captures(**_query(args)) if ledger else ():
            sys.stdout.write(dumps(asdict(each)).decode() + "\n")
    return 0


def _forget(args: Namespace) -> int:
    """Remove all that was kept of a tenant, now."""
    with opened(load(args)) as ledger:
        count = cast(Captures, ledger).forget_captures(args.tenant) if ledger else 0
        if ledger:
            deed = Deed(Actor("cli"), "captures.forget", f"tenant/{args.tenant}", detail={"removed": count})
            cast(Records, ledger).note([deed])
    if args.json:
        say_json({"tenant": args.tenant, "removed": count})
    else:
        print(f"{count} captures of tenant {args.tenant} were removed")
    return 0
