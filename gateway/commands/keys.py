"""`penstock keys`: keys that live in the ledger; a running gateway notices within a second."""

from __future__ import annotations

import time
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import replace

from gateway.commands.ledger import opened
from gateway.commands.moment import iso, parse_moment
from gateway.commands.output import Misused, Refused, load, refuse, say_json, say_table
from gateway.core.principal import KeyEntry, mint
from gateway.settings.callers import GLOB, LABEL
from gateway.settings.kinds import Text, Wrong
from gateway.settings.schema import Settings


def run(args: Namespace) -> int:
    """Do one of add, list, revoke."""
    try:
        settings = load(args)
        return {"add": _add, "list": _list, "revoke": _revoke}[args.action](args, settings)
    except Refused as refused:
        return refuse(args, refused)


def _add(args: Namespace, settings: Settings) -> int:
    secret, fresh = mint(_checked("NAME", LABEL, args.name))
    entry = replace(
        fresh,
        tenant=_checked("--tenant", LABEL, args.tenant, empty=True),
        team=_checked("--team", LABEL, args.team, empty=True),
        user=_checked("--user", LABEL, args.user, empty=True),
        models=_several("--models", GLOB, args.models),
        endpoints=_several("--endpoints", GLOB, args.endpoints),
        tags=_several("--tags", LABEL, args.tags),
        expires=_expiry(args.expires),
    )
    if any(key.name == entry.name for key in settings.keys):
        raise Refused(f"{settings.path} has a key named {entry.name} already; choose another name")
    with opened(settings, create=True) as ledger:
        assert ledger is not None
        ledger.add_key(entry)
    if args.json:
        say_json({"key": secret, **_shown(entry)})
    else:
        print(f"{secret}\n\nThis is the key {entry.name}; it is shown only now.")
    return 0


def _list(args: Namespace, settings: Settings) -> int:
    with opened(settings) as ledger:
        entries = [*settings.keys, *(ledger.keys() if ledger else ())]
    if args.json:
        say_json([_shown(entry) for entry in entries])
    elif not entries:
        print("There are no keys yet; penstock keys add NAME makes one.")
    else:
        head = ("name", "id", "state", "from", "tenant", "team", "user", "models", "expires")
        rows = [[_cell(_shown(entry)[name]) for name in head] for entry in entries]
        say_table(head, rows)
    return 0


def _revoke(args: Namespace, settings: Settings) -> int:
    if any(args.name in (key.name, key.id) for key in settings.keys):
        raise Refused(f"{args.name} stands in {settings.path}: remove it there")
    with opened(settings) as ledger:
        if ledger is None or not ledger.revoke_key(args.name):
            raise Refused(f"there is no key named {args.name}; penstock keys list shows them")
    if args.json:
        say_json({"revoked": args.name})
    else:
        print(f"{args.name} is revoked.")
    return 0


def _checked(option: str, kind: Text, text: str, empty: bool = False) -> str:
    if empty and not text:
        return ""
    try:
        return kind.check(text)
    except Wrong as wrong:
        raise Misused(f"{option}: {wrong}") from None


def _several(option: str, kind: Text, text: str) -> tuple[str, ...]:
    return tuple(_checked(option, kind, part.strip()) for part in text.split(",") if part.strip())


def _expiry(text: str) -> float | None:
    if not text:
        return None
    moment = parse_moment("--expires", text, ahead=True)
    if moment.timestamp() <= time.time():
        raise Misused(f"--expires: {text} is in the past")
    return moment.timestamp()


def _shown(entry: KeyEntry) -> dict[str, object]:
    """A key without anything that is secret."""
    expired = entry.expires is not None and entry.expires <= time.time()
    return {
        "name": entry.name,
        "id": entry.id,
        "state": "revoked" if entry.revoked else "expired" if expired else "active",
        "from": entry.origin,
        "tenant": entry.tenant,
        "team": entry.team,
        "user": entry.user,
        "roles": list(entry.roles),
        "models": list(entry.models),
        "endpoints": list(entry.endpoints),
        "tags": list(entry.tags),
        "expires": iso(entry.expires),
    }


def _cell(value: object) -> str:
    return (
        ",".join(map(str, value))
        if isinstance(value, Sequence) and not isinstance(value, str)
        else str(value or "")
    )
