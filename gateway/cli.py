"""The command line: what can be asked for. Each command's work is in `gateway/commands`."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from gateway import __version__
from gateway.commands.arguments import ADMINISTER, EXIT, Commands, command, count, group

DONE, REFUSED, USAGE = 0, 1, 2


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; gives the exit status."""
    args = _parser().parse_args(argv)
    asked = importlib.import_module(f"gateway.commands.{args.command}")
    try:
        return int(asked.run(args))
    except BrokenPipeError:  # the reader of our output has gone: `penstock usage | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return REFUSED
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="penstock", description="An LLM gateway: keys, limits, routing and a ledger.", epilog=EXIT
    )
    top.add_argument("--version", action="version", version=f"penstock {__version__}")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for add in (_serve, _check, _explain, *ADMINISTER, _usage, _audit, _captures, _compile):
        add(commands)
    return top


def _serve(commands: Commands[argparse.ArgumentParser]) -> None:
    parser = command(
        commands,
        "serve",
        "run the gateway",
        "\n\nSIGTERM drains and stops, a second one stops at once; SIGHUP or a changed file reloads.",
        json="tell in JSON why it does not start",
    )
    parser.add_argument("--listen", metavar="ADDR", help='data port: "HOST:PORT" or "unix:PATH"')
    parser.add_argument("--admin", metavar="ADDR", help="control port; the same forms")
    parser.add_argument("--workers", metavar="N", help='worker processes, or "auto": one per core')


def _check(commands: Commands[argparse.ArgumentParser]) -> None:
    parser = command(
        commands,
        "check",
        "say everything that is wrong with the configuration",
        "\n\nOne line per fault: file:line:column  path  what is wrong and what would be right.",
    )
    parser.add_argument("--schema", action="store_true", help="print the JSON Schema of the file instead")


def _compile(commands: Commands[argparse.ArgumentParser]) -> None:
    parser = command(
        commands,
        "compile",
        "make the hot path machine code, which takes a minute or two and a C compiler",
        "\n\nOnce for an environment. What has changed since runs as Python until it is done again.",
    )
    parser.add_argument("--force", action="store_true", help="also where nothing has changed")


def _explain(commands: Commands[argparse.ArgumentParser]) -> None:
    parser = command(commands, "explain", "show what the configuration means, or what it does to a request")
    parser.add_argument(
        "request", nargs="?", metavar="REQUEST.json", help="a request body; - reads it from stdin"
    )
    parser.add_argument("--key", metavar="NAME", help="as if sent with this key")
    for option in ("tenant", "team", "user"):
        parser.add_argument(f"--{option}", metavar="NAME", help=f"as if the key had this {option}")
    parser.add_argument("--roles", metavar="ROLES", help='as if the key had these: "caller,automation"')
    parser.add_argument("--tags", metavar="TAGS", help='as if sent with these x-penstock-tags: "a,b"')
    parser.add_argument("--client", metavar="IP", help="as if sent from this address")
    parser.add_argument("--at", metavar="WHEN", help="as if sent at this date-time (UTC)")
    parser.add_argument(
        "--header", metavar="NAME:VALUE", action="append", help="with this header; repeatable"
    )
    parser.add_argument("--endpoint", metavar="PATH", default="chat/completions", help="default: %(default)s")


def _usage(commands: Commands[argparse.ArgumentParser]) -> None:
    parser = command(
        commands,
        "usage",
        "show what was used and what it cost",
        "\n\npenstock usage reconcile FILE.csv compares with a provider's export, per model and day.",
    )
    parser.add_argument("action", nargs="?", choices=["reconcile"], metavar="reconcile", help="compare")
    parser.add_argument("file", nargs="?", metavar="FILE.csv", help="the provider's export of usage or costs")
    parser.add_argument(
        "--by", default="key", metavar="COLUMNS", help='"key,model,day"; default: %(default)s'
    )
    parser.add_argument("--since", metavar="DATE", help='from this date or date-time on (UTC), or "7d" ago')
    parser.add_argument("--until", metavar="DATE", help="before this date or date-time (UTC)")
    parser.add_argument("--month", metavar="MONTH", help="of this month: 2026-11")
    parser.add_argument("--top", type=count, default=0, metavar="N", help="only the N that cost most")
    for name in (
        "tenant",
        "team",
        "user",
        "key",
        "model",
        "backend",
        "target",
        "tag",
        "prompt",
        "arm",
        "outcome",
    ):
        parser.add_argument(f"--{name}", metavar="NAMES", help=f"only calls of this {name}, or these: a,b")
    parser.add_argument("--tolerance", default="1", metavar="PERCENT", help="reconcile: default %(default)s")
    parser.add_argument(
        "--map", action="append", default=[], metavar="COLUMN=FIELD", help="reconcile: what a column holds"
    )


def _audit(commands: Commands[argparse.ArgumentParser]) -> None:
    what = "show what was changed and refused, and prove that the record of it is whole"
    actions = group(commands, "audit", what)
    show = command(actions, "list", "show records, the newest first")
    show.add_argument(
        "--limit", type=int, default=50, metavar="N", help="at most so many; default: %(default)s"
    )
    prove = command(
        actions,
        "verify",
        "find records that were altered, removed, put in or cut off",
        "\n\nPrints each chain's newest record as CHAIN:NUMBER:HASH. Noted where nobody who can reach the"
        "\nledger can reach it, and given with --expect later, it proves that nothing before it was changed.",
    )
    prove.add_argument(
        "file", nargs="?", type=Path, metavar="FILE", help="an export instead of the ledger; - is stdin"
    )
    prove.add_argument(
        "--expect", action="append", default=[], metavar="CHAIN:N:HASH", help="a record that must be there"
    )
    copy = command(actions, "export", "print records as JSON lines, by chain and number")
    for parser in (show, copy):
        parser.add_argument(
            "--since", metavar="DATE", help='from this date or date-time on (UTC), or "7d" ago'
        )
        parser.add_argument("--until", metavar="DATE", help="before this date or date-time (UTC)")
    for parser in (show, prove, copy):
        parser.add_argument("--chain", default="", metavar="NAME", help="only this chain: one replica's")


def _captures(commands: Commands[argparse.ArgumentParser]) -> None:
    actions = group(commands, "captures", "show texts of calls that tenants wanted to be kept")
    show = command(actions, "list", "list captures, the newest first")
    show.add_argument(
        "--limit", type=int, default=50, metavar="N", help="at most so many; default: %(default)s"
    )
    copy = command(actions, "export", "print captures as JSON lines, the newest first")
    for parser in (show, copy):
        parser.add_argument("--tenant", default="", metavar="NAME", help="only this tenant's")
        parser.add_argument(
            "--since", metavar="DATE", help='from this date or date-time on (UTC), or "7d" ago'
        )
        parser.add_argument("--until", metavar="DATE", help="before this date or date-time (UTC)")
    one = command(actions, "show", "show the texts of one call")
    one.add_argument("id", metavar="ID", help="the call's id, as in x-request-id and the ledger")
    forget = command(actions, "forget", "remove all that was kept of a tenant")
    forget.add_argument("tenant", metavar="TENANT", help="whose")
