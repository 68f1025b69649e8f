"""Arguments: what commands have in common, and those that administer."""

from __future__ import annotations

import argparse
from pathlib import Path

EXIT = "Exit status: 0 done, 1 refused or failed, 2 wrong usage."
Commands = argparse._SubParsersAction  # the type has no public name


def command(
    commands: Commands[argparse.ArgumentParser],
    name: str,
    what: str,
    more: str = "",
    json: str = "answer in JSON",
) -> argparse.ArgumentParser:
    """A command with the options that all of them have."""
    parser = commands.add_parser(
        name,
        help=what,
        description=f"{what[0].upper()}{what[1:]}.{more}",
        epilog=EXIT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "-c",
        "--config",
        metavar="FILE",
        type=Path,
        help="the configuration; without it ./gateway.toml, or none if there is no such file",
    )
    parser.add_argument("--json", action="store_true", help=json)
    return parser


def group(
    commands: Commands[argparse.ArgumentParser], name: str, what: str
) -> Commands[argparse.ArgumentParser]:
    """A command that is several: its actions."""
    parser = commands.add_parser(name, help=what, description=f"{what.capitalize()}.", epilog=EXIT)
    return parser.add_subparsers(dest="action", required=True, metavar="ACTION")


def _keys(commands: Commands[argparse.ArgumentParser]) -> None:
    actions = group(commands, "keys", "make, list, rotate and revoke keys")
    add = command(actions, "add", "make a key; its secret is printed once and never kept")
    add.add_argument("name", metavar="NAME", help="a name no other key has")
    for option in ("tenant", "team", "user"):
        add.add_argument(f"--{option}", default="", metavar="NAME", help=f"the {option} its calls count for")
    for option, example in (("models", "gpt-*,o3"), ("endpoints", "chat/*")):
        add.add_argument(f"--{option}", default="", metavar="GLOBS", help=f'"{example}"; without it all')
    add.add_argument("--tags", default="", metavar="TAGS", help='noted with each call: "nightly,batch"')
    add.add_argument("--roles", default="", metavar="ROLES", help='"caller,viewer"; without it caller')
    add.add_argument("--networks", default="", metavar="RANGES", help='"10.0.0.0/8"; without it anywhere')
    add.add_argument("--expires", default="", metavar="WHEN", help="2027-01-01, a date-time, or 90d from now")
    every = command(actions, "list", "list all keys, those of the file too")
    for option in ("tenant", "team", "user"):
        every.add_argument(f"--{option}", default="", metavar="NAME", help=f"only keys of this {option}")
    every.add_argument(
        "--state", default="", choices=("active", "expired", "revoked"), help="only keys in this state"
    )
    show = command(actions, "show", "show one key")
    rotate = command(actions, "rotate", "give a key a new secret; the one before works for a while longer")
    rotate.add_argument(
        "--overlap",
        default="24h",
        metavar="SPAN",
        help="for so long; 0s ends it at once; default: %(default)s",
    )
    revoke = command(actions, "revoke", "revoke a key, at once on a running gateway")
    for parser in (show, rotate, revoke):
        parser.add_argument("name", metavar="NAME", help="the key's name or id")


def _tenants(commands: Commands[argparse.ArgumentParser]) -> None:
    actions = group(commands, "tenants", "make, list and change tenants, their teams and users")
    add = command(actions, "add", "make a tenant")
    command(actions, "list", "list all tenants, those of the file too")
    show = command(actions, "show", "show one tenant, with its teams and users")
    change = command(
        actions,
        "set",
        "change a tenant, or what it says of a team or user",
        '\n\nAn empty text is the default: --models ""',
    )
    remove = command(actions, "remove", "remove a tenant; its keys stay")
    for parser in (add, show, change, remove):
        parser.add_argument("name", metavar="NAME", help="the tenant's name")
    for parser in (change, remove):
        for option in ("team", "user"):
            parser.add_argument(f"--{option}", default="", metavar="NAME", help=f"only this {option} of it")
    for parser in (add, change):
        for option, example in (("models", "gpt-*,o3"), ("endpoints", "chat/*"), ("networks", "10.0.0.0/8")):
            parser.add_argument(f"--{option}", metavar="LIST", help=f'what is allowed: "{example}"')
        parser.add_argument("--tags", metavar="TAGS", help="noted with each call")
        parser.add_argument("--description", metavar="TEXT", help="for those who read this")
        parser.add_argument(
            "--disable", dest="disabled", action="store_true", default=None, help="refuse all"
        )
        parser.add_argument("--enable", dest="disabled", action="store_false", help="refuse them no more")
        parser.add_argument(
            "--document", metavar="FILE.json", help="members as the admin API takes them; - is stdin"
        )


def _limits(commands: Commands[argparse.ArgumentParser]) -> None:
    actions = group(commands, "limits", "show limits, and raise them for a while")
    command(actions, "list", "list all limits")
    show = command(actions, "show", "show one limit, and how much of it is used")
    more = command(actions, "raise", "raise a limit for a while")
    for parser in (show, more):
        parser.add_argument("id", metavar="LIMIT", help="its name or id, as the list shows it")
    more.add_argument(
        "--by", type=_amount, required=True, metavar="N", help="so much more, in the limit's unit"
    )
    until = more.add_mutually_exclusive_group(required=True)
    until.add_argument("--for", metavar="SPAN", help='for so long: "2h"')
    until.add_argument("--until", metavar="WHEN", help="a date, or a date-time (UTC)")
    more.add_argument(
        "--value",
        metavar="GLOB",
        help="only for these: a tenant, a key's id or name, tenant/model …; without it all",
    )
    more.add_argument("--reason", metavar="TEXT", help="why, for the audit")
    command(actions, "raises", "list raises in force")
    less = command(actions, "unraise", "end a raise early")
    less.add_argument("id", metavar="RAISE", help="its id, as limits raises shows it")


def _config(commands: Commands[argparse.ArgumentParser]) -> None:
    actions = group(commands, "config", "show, check and change the configuration; go back to an earlier one")
    show = command(actions, "show", "show the configuration that serves, without secrets")
    show.add_argument("revision", nargs="?", metavar="REV", help="an earlier one: a revision, or its number")
    check = command(actions, "validate", "say what is wrong with a draft; nothing is changed")
    put = command(actions, "apply", "put a draft in the file's place and serve it")
    for parser in (check, put):
        parser.add_argument("file", metavar="FILE", help="the draft; - is stdin")
    past = command(actions, "history", "list what has served, the newest first")
    past.add_argument(
        "--limit", type=count, default=20, metavar="N", help="at most so many; default: %(default)s"
    )
    diff = command(actions, "diff", "show what has changed since a revision, or between two")
    diff.add_argument("revision", nargs="?", metavar="REV", help="from this one; without it the one before")
    diff.add_argument("against", nargs="?", metavar="REV2", help="to this one; without it what serves")
    back = command(actions, "rollback", "serve an earlier revision again")
    back.add_argument("revision", nargs="?", metavar="REV", help="this one; without it the one before")
    for parser in (put, back):
        parser.add_argument("--note", default="", metavar="TEXT", help="why, for the history")


def _amount(text: str) -> float:
    try:
        found = float(text)
    except ValueError:
        found = -1.0
    if not 0 < found < 1e15:
        raise argparse.ArgumentTypeError("a number above 0 is needed")
    return int(found) if found.is_integer() else found


def count(text: str) -> int:
    """A whole number from 1 on, for argparse."""
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError("a number from 1 on is needed")
    return int(text)


ADMINISTER = (_keys, _tenants, _limits, _config)
