"""`penstock config`: what serves, drafts, the history of it, and the way back."""

from __future__ import annotations

import sys
from argparse import Namespace
from pathlib import Path

from gateway.commands.client import Client, Document, Told
from gateway.commands.connect import connected
from gateway.commands.output import Misused, Refused, cell, refuse, say_json, say_table
from gateway.control.body import LARGEST


def run(args: Namespace) -> int:
    """Do one of show, validate, apply, history, diff, rollback."""
    does = {
        "show": _show, "validate": _validate, "apply": _apply, "history": _history, "diff": _diff,
        "rollback": _rollback,
    }  # fmt: skip
    try:
        return does[args.action](args)
    except Refused as refused:
        return refuse(args, refused)


def _show(args: Namespace) -> int:
    with connected(args) as client:
        found = client.ask("GET", "config") if not args.revision else _kept(client, args.revision)
    if args.json:
        say_json(found)
        return 0
    print(f"# revision {found['revision']}")
    if not found["files"]:
        print("# no file: what is found in the environment")
    for path, text in sorted(found["files"].items()):
        print(f"\n# {path}\n\n{text.rstrip()}")
    return 0


def _kept(client: Client, revision: str) -> Document:
    try:
        return client.ask("GET", "config", "history", _named(revision))
    except Told as told:
        raise _unknown(told, revision) from None


# ---------------------------------------------------------------------- drafts


def _draft(name: str) -> str:
    try:
        data = sys.stdin.buffer.read(LARGEST + 1) if name == "-" else Path(name).read_bytes()
        if len(data) > LARGEST // 2:
            raise Refused(f"{name} is larger than {LARGEST // 2} bytes")
        return data.decode()
    except OSError as error:
        raise Refused(f"{name} can't be read: {(error.strerror or str(error)).lower()}") from None
    except UnicodeDecodeError:
        raise Refused(f"{name} is not UTF-8") from None


def _validate(args: Namespace) -> int:
    toml = _draft(args.file)
    with connected(args) as client:
        found = client.ask("POST", "config", "validate", body={"toml": toml})
    if args.json:
        say_json(found)
    else:
        _tell(found)
        if found["valid"]:
            print(f"{args.file}: valid")
    return 0 if found["valid"] else 1


def _tell(checked: Document) -> None:
    for fault in checked["faults"]:
        print(f"{fault['file']}:{fault['line']}:{fault['column']}  {fault['path']}  {fault['message']}")
    for warning in checked["warnings"]:
        print(f"warning: {warning}", file=sys.stderr)


def _apply(args: Namespace) -> int:
    toml = _draft(args.file)
    with connected(args, create=True) as client:
        checked = client.ask("POST", "config", "validate", body={"toml": toml})
        if not checked["valid"]:
            if args.json:
                say_json(checked)
            else:
                _tell(checked)
                print(f"{args.file} has faults: nothing is changed", file=sys.stderr)
            return 1
        done = client.ask("POST", "config", "apply", body={"toml": toml, **_note(args)})
    return _done(args, done)


def _done(args: Namespace, done: Document) -> int:
    if args.json:
        say_json(done)
    else:
        print(f"Revision {done['revision']} is in place.")
        for path in done.get("set_aside", ()):
            print(f"Set aside, as it was no part of it: {path}")
    return 0


def _note(args: Namespace) -> dict[str, str]:
    return {"note": args.note} if args.note else {}


# ---------------------------------------------------------------------- the history


def _history(args: Namespace) -> int:
    found: list[Document] = []
    with connected(args) as client:
        after: dict[str, str] = {}
        while len(found) < args.limit:
            query = {"limit": str(min(args.limit - len(found), 1000)), **after}
            page = client.ask("GET", "config", "history", query=query)
            found += page["data"]
            if page["next"] is None:
                break
            after = {"after": page["next"]}
    if args.json:
        say_json(found)
    elif not found:
        print("No configuration has served yet.")
    else:
        head = ("n", "revision", "at", "by", "note")
        say_table(head, [[str(each["n"]), *map(cell, _row(each))] for each in found])
    return 0


def _row(kept: Document) -> tuple[object, ...]:
    return kept["revision"], kept["at"], kept["actor"].get("name") or kept["actor"]["kind"], kept["note"]


def _diff(args: Namespace) -> int:
    with connected(args) as client:
        wanted = args.revision or _before(client)
        against = {"against": args.against} if args.against else {}
        try:
            found = client.ask("GET", "config", "history", _named(wanted), "diff", query=against)
        except Told as told:
            raise _unknown(told, wanted) from None
    if args.json:
        say_json(found)
    else:
        print(found["diff"].rstrip("\n") or f"No difference between {found['from']} and {found['to']}.")
    return 0


def _before(client: Client) -> str:
    """The one before, as the way back has it: another text than what serves, and not another replica's."""
    serving = client.ask("GET", "config")
    for each in client.ask("GET", "config", "history", query={"limit": "500"})["data"]:
        if each["revision"] != serving["revision"] and serving["path"] in each["files"]:
            kept = client.ask("GET", "config", "history", str(each["n"]))
            if kept["files"] != serving["files"]:
                return str(each["n"])
    raise Refused("there is no revision before this one; penstock config history shows them")


def _rollback(args: Namespace) -> int:
    body = {**({"to": _named(args.revision)} if args.revision else {}), **_note(args)}
    with connected(args) as client:
        try:
            seen = client.ask("GET", "config")["revision"]  # asked twice, it goes back once
            done = client.ask("POST", "config", "rollback", body=body, version=seen)
        except Told as told:
            raise _unknown(told, args.revision or "before this one") from None
    return _done(args, done)


def _named(revision: str) -> str:
    if not revision or "/" in revision:
        raise Misused("REV: a revision, or its number, is needed; penstock config history shows them")
    return revision


def _unknown(told: Told, revision: str) -> Refused:
    if told.code == "caller_not_found":
        return Refused(f"there is no revision {revision}; penstock config history shows them")
    return told
