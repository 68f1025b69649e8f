"""`penstock limits`: the rules, how they stand, and raises for a while."""

from __future__ import annotations

from argparse import Namespace
from typing import Any

from gateway.commands.client import Document, Told, every, misused, plain
from gateway.commands.connect import connected
from gateway.commands.moment import parse_moment
from gateway.commands.output import Misused, Refused, cell, refuse, say_json, say_table
from gateway.control import body
from gateway.core.errors import CallerError
from gateway.core.moment import iso

_OPTIONS = {"for": "--for", "by": "--by"}


def run(args: Namespace) -> int:
    """Do one of list, show, raise, raises, unraise."""
    does = {"list": _list, "show": _show, "raise": _raise, "raises": _raises, "unraise": _unraise}
    try:
        does[args.action](args)
    except Refused as refused:
        return refuse(args, refused)
    return 0


# ---------------------------------------------------------------------- reading


def _list(args: Namespace) -> None:
    with connected(args) as client:
        found = every(client, "limits")
    if args.json:
        say_json(found)
    elif not found:
        print("The configuration has no limits.")
    else:
        head = ("id", "scope", "match", "amount", "unit", "per", "burst", "mode")
        say_table(head, [[_cell(name, limit[name]) for name in head] for limit in found])


def _cell(name: str, value: Any) -> str:
    return "+".join(value) if name == "scope" else cell(value)


def _show(args: Namespace) -> None:
    with connected(args) as client:
        try:
            found = client.ask("GET", "limits", _named(args), query={"limit": "1000"})
            buckets, following = found["buckets"]["data"], found["buckets"]["next"]
            while following is not None:
                query = {"limit": "1000", "after": following}
                more = client.ask("GET", "limits", args.id, query=query)["buckets"]
                buckets, following = buckets + more["data"], more["next"]
        except Told as told:
            raise _unknown(told, args) from None
    found["buckets"] = buckets
    if args.json:
        say_json(found)
    else:
        _tell(found)


def _tell(limit: Document) -> None:
    per = f" per {limit['per']}" if limit["per"] else ""
    zone = f" ({limit['zone']})" if limit["zone"] else ""
    burst = f", {cell(limit['burst'])} at once" if limit["burst"] else ""
    shadow = ", refuses nothing (shadow)" if limit["mode"] == "shadow" else ""
    amount = f"{cell(limit['amount'])} {limit['unit']}"
    whom = "all calls together" if limit["scope"] == ["global"] else f"each {'+'.join(limit['scope'])}"
    print(f"{limit['id']}: {amount}{per}{zone}{burst} for {whom}{shadow}")
    head = ("value", "amount", "used", "leased", "left", "reset_s")
    if limit["buckets"]:
        print()
        rows = [[cell(bucket[name]) for name in head] for bucket in limit["buckets"]]
        rows = [[value or "all", *rest] for value, *rest in rows]
        say_table([*head[:-1], "reset in s"], rows, numbers=5)
    else:
        print("Nothing counts against it now.")
    if limit["raises"]:
        print()
        _table(limit["raises"])


def _raises(args: Namespace) -> None:
    with connected(args) as client:
        found = every(client, "raises")
    if args.json:
        say_json(found)
    elif not found:
        print("No limit is raised.")
    else:
        _table(found)


def _table(raises: list[Document]) -> None:
    head = ("id", "rule", "value", "by", "until")
    say_table(head, [[cell(each[name]) for name in head] for each in raises])


# ---------------------------------------------------------------------- writing


def _raise(args: Namespace) -> None:
    document: Document = {"by": args.by}
    if args.until:
        document["until"] = iso(parse_moment("--until", args.until, ahead=True).timestamp())
    else:
        document["for"] = getattr(args, "for")
    document |= {name: given for name in ("value", "reason") if (given := getattr(args, name))}
    try:
        body.read(body.NEW_RAISE, document)
    except CallerError as error:
        raise misused(Told(error.message, error.code, error.param or ""), _OPTIONS) from None
    with connected(args, create=True) as client:
        try:
            made = plain(client.ask("POST", "limits", _named(args), "raises", body=document))
        except Told as told:
            raise _unknown(told, args) from None
    if args.json:
        say_json(made)
    else:
        which = "" if made["value"] == "*" else f" for {cell(made['value'])}"
        print(f"{made['rule']} is raised by {cell(made['by'])}{which} until {made['until']}: {made['id']}")


def _unraise(args: Namespace) -> None:
    with connected(args) as client:
        try:
            client.ask("DELETE", "raises", _named(args))
        except Told as told:
            if told.code == "caller_not_found":
                raise Refused(f"there is no raise {args.id}; penstock limits raises shows them") from None
            raise
    if args.json:
        say_json({"ended": args.id})
    else:
        print(f"{args.id} is over.")


def _named(args: Namespace) -> str:
    if not args.id or "/" in args.id:
        raise Misused("ID: the id that the list shows is needed")
    return str(args.id)


def _unknown(told: Told, args: Namespace) -> Refused:
    if told.code == "caller_not_found":
        return Refused(f"there is no limit {args.id}; penstock limits list shows them")
    return misused(told, _OPTIONS)
