"""`penstock keys`: keys that live in the ledger; a running gateway knows of each change at once."""

from __future__ import annotations

import time
from argparse import Namespace
from typing import Any

from gateway.commands.client import Client, Document, Told, every, misused, plain
from gateway.commands.connect import connected
from gateway.commands.moment import parse_moment
from gateway.commands.output import Misused, Refused, cell, refuse, say_json, say_members, say_table, several
from gateway.control import body
from gateway.core.errors import CallerError
from gateway.core.moment import iso

_OPTIONS = {"name": "NAME"}
_LISTS = ("roles", "models", "endpoints", "tags", "networks")
_FILTERS = ("tenant", "team", "user", "state")


def run(args: Namespace) -> int:
    """Do one of add, list, show, rotate, revoke."""
    does = {"add": _add, "list": _list, "show": _show, "rotate": _rotate, "revoke": _revoke}
    try:
        does[args.action](args)
    except Refused as refused:
        return refuse(args, refused)
    return 0


def _add(args: Namespace) -> None:
    document: Document = {"name": args.name}
    document |= {name: text for name in ("tenant", "team", "user") if (text := getattr(args, name))}
    document |= {name: listed for name in _LISTS if (listed := several(getattr(args, name)))}
    if args.expires:
        document["expires"] = _expiry(args.expires)
    try:
        body.read(body.NEW_KEY, document)
    except CallerError as error:
        raise misused(Told(error.message, error.code, error.param or ""), _OPTIONS) from None
    with connected(args, create=True) as client:
        if any(key.name == args.name for key in client.settings.keys):
            path = client.settings.path
            raise Refused(f"{path} has a key named {args.name} already; choose another name")
        try:
            made = plain(client.ask("POST", "keys", body=document))
        except Told as told:
            if told.code == "caller_conflict":
                raise Told(f"{told}: choose another name, or revoke it", told.code) from None
            raise misused(told, _OPTIONS) from None
    if args.json:
        say_json(made)
    else:
        print(f"{made['key']}\n\nThis is the key {made['name']}; it is shown only now.")


def _expiry(text: str) -> str | None:
    moment = parse_moment("--expires", text, ahead=True)
    if moment.timestamp() <= time.time():
        raise Misused(f"--expires: {text} is in the past")
    return iso(moment.timestamp())


def _list(args: Namespace) -> None:
    asked = {name: value for name in _FILTERS if (value := getattr(args, name))}
    with connected(args) as client:
        found = every(client, "keys", **asked)
    found.sort(key=lambda key: (key["from"] != "file", key["created"] or "", key["name"]))
    if args.json:
        say_json(found)
    elif not found and asked:
        print("There are no such keys.")
    elif not found:
        print("There are no keys yet; penstock keys add NAME makes one.")
    else:
        head = ("name", "id", "state", "from", "tenant", "team", "user", "models", "expires")
        say_table(head, [[cell(key[name]) for name in head] for key in found])


def _show(args: Namespace) -> None:
    with connected(args) as client:
        found = plain(_asked(client, "GET", args.name))
    if args.json:
        say_json(found)
    else:
        say_members(found)


def _rotate(args: Namespace) -> None:
    with connected(args) as client:
        try:
            made = plain(_asked(client, "POST", args.name, "rotate", document={"overlap": args.overlap}))
        except Told as told:
            raise misused(told, _OPTIONS) from None
    if args.json:
        say_json(made)
        return
    until = made["previous_until"]
    before = f"the one before works until {until}" if until else "the one before does not work any more"
    print(f"{made['key']}\n\nThis is the new secret of the key {made['name']}; it is shown only now.")
    print(f"{before[0].upper()}{before[1:]}.")


def _revoke(args: Namespace) -> None:
    with connected(args) as client:
        _asked(client, "DELETE", args.name)
    if args.json:
        say_json({"revoked": args.name})
    else:
        print(f"{args.name} is revoked.")


def _asked(
    client: Client, method: str, name: str, *more: str, document: dict[str, Any] | None = None
) -> Document:
    """One operation on one key, by its name or id. Raises `Refused` in the words of the command line."""
    if not name or "/" in name:
        raise Misused("NAME: a key's name or id is needed")
    try:
        return client.ask(method, "keys", name, *more, body=document)
    except Told as told:
        if told.code == "caller_not_found":
            but = str(told).partition("; ")[2]  # that it is revoked
            shown = f"{but}; " if but else ""
            raise Refused(f"there is no key named {name}; {shown}penstock keys list shows them") from None
        if told.code == "caller_read_only":
            verb = "remove" if method == "DELETE" else "change"
            raise Refused(f"{name} stands in {client.settings.path}: {verb} it there") from None
        raise
