"""`penstock tenants`: tenants of the ledger, with their teams and users."""

from __future__ import annotations

import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

from gateway.commands.client import Client, Document, Told, every, misused, plain
from gateway.commands.connect import connected
from gateway.commands.output import Misused, Refused, cell, refuse, say_json, say_members, say_table, several
from gateway.control import body
from gateway.core.codec import JSONError, loads
from gateway.core.errors import CallerError

_OPTIONS = {"name": "NAME", "capture": "--document", "teams": "--document", "users": "--document"}
_LISTS = ("models", "endpoints", "networks", "tags")


def run(args: Namespace) -> int:
    """Do one of add, list, show, set, remove."""
    does = {"add": _add, "list": _list, "show": _show, "set": _set, "remove": _remove}
    try:
        does[args.action](args)
    except Refused as refused:
        return refuse(args, refused)
    return 0


# ---------------------------------------------------------------------- reading


def _list(args: Namespace) -> None:
    with connected(args) as client:
        found = every(client, "tenants")
    if args.json:
        say_json(found)
    elif not found:
        print("There are no tenants yet; penstock tenants add NAME makes one.")
    else:
        head = ("name", "from", "state", "models", "teams", "users", "description")
        say_table(head, [[cell(_row(tenant)[name]) for name in head] for tenant in found])


def _row(tenant: Document) -> Document:
    state = "disabled" if tenant["disabled"] else "active"
    return {**tenant, "state": state, "teams": sorted(tenant["teams"]), "users": sorted(tenant["users"])}


def _show(args: Namespace) -> None:
    with connected(args) as client:
        found = plain(_asked(client, "GET", args.name))
    _say(args, found)


def _say(args: Namespace, tenant: Document, told: str = "") -> None:
    if args.json:
        say_json(tenant)
    elif told:
        print(told)
    else:
        say_members(_flat(tenant))


def _flat(tenant: Document) -> Document:
    """Members of members as lines of their own; what says nothing of a team or user is left out."""
    found: Document = {}
    for name, value in tenant.items():
        if name in ("teams", "users"):
            for each, rules in sorted(value.items()):
                found |= {f"{name}.{each}.{rule}": given for rule, given in rules.items() if given}
        elif name == "capture":
            found |= {f"capture.{each}": given for each, given in value.items()}
        else:
            found[name] = value
    return found


# ---------------------------------------------------------------------- writing


def _add(args: Namespace) -> None:
    document = {"name": args.name, **{name: value for name, value in _members(args).items() if value}}
    _checked(body.NEW_TENANT, document)
    with connected(args, create=True) as client:
        made = plain(_written(client, "POST", args.name, document))
    _say(args, made, f"The tenant {args.name} is made.")


def _set(args: Namespace) -> None:
    members = _members(args)
    if not members:
        raise Misused("name what is to be changed: --models, --disable, --document …")
    kind, member = _member(args)
    with connected(args) as client:
        tenant = _asked(client, "GET", args.name)
        if kind:
            members = {
                kind: {**_others(tenant[kind], member), member: _joined(tenant[kind], member, members)}
            }
        _checked(body.CHANGED_TENANT, members)
        changed = _written(client, "PATCH", args.name, members, tenant["version"])
    _say(args, plain(changed), f"The tenant {args.name} is changed.")


def _remove(args: Namespace) -> None:
    kind, member = _member(args)
    with connected(args) as client:
        tenant = _asked(client, "GET", args.name)
        if kind and member not in tenant[kind]:
            raise Refused(f"the tenant {args.name} says nothing of the {kind[:-1]} {member}")
        if kind:
            rest = {kind: _others(tenant[kind], member)}
            _written(client, "PATCH", args.name, rest, tenant["version"])
        else:
            _written(client, "DELETE", args.name, version=tenant["version"])
    if args.json:
        say_json({"removed": args.name, **({kind[:-1]: member} if kind else {})})
    else:
        print(f"The {kind[:-1]} {member} of {args.name} is removed." if kind else f"{args.name} is removed.")


def _members(args: Namespace) -> Document:
    """What is given, as the API takes it: None takes a member back to its default."""
    members = _document(args.document) if args.document else {}
    if args.description is not None:
        members["description"] = args.description or None
    for name in _LISTS:
        if getattr(args, name) is not None:
            members[name] = several(getattr(args, name)) or None
    if args.disabled is not None:
        members["disabled"] = args.disabled or None
    return members


def _document(name: str) -> Document:
    try:
        data = sys.stdin.buffer.read(body.LARGEST + 1) if name == "-" else Path(name).read_bytes()
        found = loads(data)
    except OSError as error:
        raise Refused(f"{name} can't be read: {(error.strerror or str(error)).lower()}") from None
    except JSONError as error:
        raise Refused(f"{name} is not valid JSON: {error}") from None
    if not isinstance(found, dict):
        raise Misused(f"--document: {name} must hold a JSON object")
    return found


def _member(args: Namespace) -> tuple[str, str]:
    """The team or user that is meant: `teams` and its name; two empty texts where it is the tenant."""
    if args.team and args.user:
        raise Misused("--team and --user: one at a time")
    return ("teams", args.team) if args.team else ("users", args.user) if args.user else ("", "")


def _others(members: Document, name: str) -> Document:
    """All but one, as they are written."""
    return {each: _said(rules) for each, rules in members.items() if each != name}


def _joined(members: Document, name: str, given: Document) -> Document:
    return _said({**members.get(name, {}), **given})


def _said(rules: Document) -> Document:
    return {name: value for name, value in rules.items() if value}


def _checked(table: Any, document: Document) -> None:
    try:
        body.read(table, document)
    except CallerError as error:
        raise misused(Told(error.message, error.code, error.param or ""), _OPTIONS) from None


def _written(
    client: Client, method: str, name: str, document: Document | None = None, version: int | None = None
) -> Document:
    path = ("tenants",) if method == "POST" else ("tenants", name)
    try:
        return client.ask(method, *path, body=document, version=version)
    except Told as told:
        if told.code == "caller_read_only":
            raise Refused(f"{name} stands in {client.settings.path}: change it there") from None
        raise misused(told, _OPTIONS) from None


def _asked(client: Client, method: str, name: str) -> Document:
    if not name or "/" in name:
        raise Misused("NAME: a tenant's name is needed")
    try:
        return client.ask(method, "tenants", name)
    except Told as told:
        if told.code == "caller_not_found":
            raise Refused(f"there is no tenant named {name}; penstock tenants list shows them") from None
        raise
