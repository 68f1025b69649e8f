"""`penstock audit`: what was changed and refused, whether its record is whole, and a copy for elsewhere."""

from __future__ import annotations

import json
import re
import sys
from argparse import Namespace
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any, cast

from gateway.commands.ledger import opened
from gateway.commands.moment import parse_moment
from gateway.commands.output import Misused, Refused, load, refuse, say_json, say_table
from gateway.core.audit import ChainState, members, record_of, verify
from gateway.core.codec import canonical, loads
from gateway.core.moment import iso
from gateway.core.records import AuditRecord, Records
from gateway.settings.schema import Settings
from gateway.supervisor.audit import HEAD, noted_heads

Head = tuple[str, int, str]

_EXPECT = re.compile(r"([^:\s]+):([1-9]\d{0,17}):([0-9a-f]{64})")


def run(args: Namespace) -> int:
    """Do one of list, verify, export."""
    try:
        return {"list": _list, "verify": _verify, "export": _export}[args.action](args)
    except Refused as refused:
        return refuse(args, refused)


# ---------------------------------------------------------------------- reading


def _list(args: Namespace) -> int:
    if args.limit < 1:
        raise Misused("--limit: must be 1 or more")
    with opened(load(args)) as ledger:
        query = _query(args)
        found = cast(Records, ledger).audit(newest=True, most=args.limit, **query) if ledger else ()
        records = list(found)
    if args.json:
        say_json([members(record) for record in records])
    elif not records:
        print("Nothing was changed or refused in this time.")
    else:
        say_table(("when", "who", "action", "target", "record"), [_row(record) for record in records])
    return 0


def _query(args: Namespace) -> dict[str, Any]:
    return {
        "chain": args.chain,
        "since_ms": _ms(parse_moment("--since", args.since)) if args.since else 0,
        "until_ms": _ms(parse_moment("--until", args.until)) if args.until else 0,
    }


def _ms(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)


def _row(record: AuditRecord) -> tuple[str, ...]:
    who = record.actor.get("name") or record.actor.get("id") or record.actor.get("kind", "")
    count = (record.detail or {}).get("count")
    action = f"{record.action} ({count:,})" if isinstance(count, int) else record.action
    when = str(iso(record.ts_ms // 1000))
    return when, str(who), action, record.target, f"{record.chain}:{record.n}"


def _export(args: Namespace) -> int:
    """JSON lines, by chain and number: what `verify FILE` takes, where no span of time was asked for."""
    with opened(load(args)) as ledger:
        for record in cast(Records, ledger).audit(**_query(args)) if ledger else ():
            sys.stdout.write(canonical(members(record)).decode() + "\n")
    return 0


# ---------------------------------------------------------------------- is it whole?


def _verify(args: Namespace) -> int:
    expected = [_expected(text) for text in args.expect]
    states = _of_file(args.file, expected) if args.file else _of_ledger(load(args), expected)
    if args.chain:
        states = {name: state for name, state in states.items() if name == args.chain}
        if not states:
            raise Refused(f"there is no audit chain named {args.chain}")
    whole = not any(state.faults for state in states.values())
    if args.json:
        say_json({"whole": whole, "chains": {name: asdict(state) for name, state in states.items()}})
    else:
        _tell(states)
    return 0 if whole else 1


def _expected(text: str) -> Head:
    found = _EXPECT.fullmatch(text)
    if found is None:
        raise Misused(f"--expect: {text!a} is not CHAIN:NUMBER:HASH, as audit verify prints it")
    return found[1], int(found[2]), found[3]


def _of_ledger(settings: Settings, expected: list[Head]) -> dict[str, ChainState]:
    """Against what was noted, too: in data_dir, and in the ledger beside the records."""
    try:
        noted = noted_heads(Path(settings.server.data_dir) / HEAD)
    except (OSError, ValueError) as error:
        raise Refused(str(error)) from None
    with opened(settings) as ledger:
        if ledger is None:
            return verify((), [*expected, *noted])
        records = cast(Records, ledger)
        # Before the records are read: they only become more.
        beside = [(chain, n, hash) for chain, (n, hash) in records.chains().items()]
        if beside and not noted:
            file = Path(settings.server.data_dir) / HEAD
            print(f"{file} is not there: only the ledger itself says where chains end", file=sys.stderr)
        return verify(records.audit(), [*expected, *noted, *beside])


def _of_file(file: Path, expected: list[Head]) -> dict[str, ChainState]:
    try:
        if str(file) == "-":
            return verify(_parsed("stdin", sys.stdin.buffer), expected)
        with file.open("rb") as lines:
            return verify(_parsed(str(file), lines), expected)
    except OSError as error:
        raise Refused(f"{file} can't be read: {(error.strerror or str(error)).lower()}") from None


def _parsed(name: str, lines: Iterable[bytes]) -> Iterator[AuditRecord]:
    for number, line in enumerate(lines, 1):
        try:
            document = loads(line)
            if canonical(document) != line.strip():  # written anew, or with more than is read
                json.loads(line, object_pairs_hook=_once)
            yield record_of(document)
        except (ValueError, TypeError) as error:
            raise Refused(f"{name}:{number}: not a line of penstock audit export: {error}") from None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object whose members are there once: of two, another reader might take the other."""
    members = dict(pairs)
    if len(members) < len(pairs):
        raise ValueError("a member is there twice")
    return members


def _tell(states: dict[str, ChainState]) -> None:
    if not states:
        print("There is no audit yet.")
    for name, state in states.items():
        for fault in state.faults:
            print(f"chain {name}: {fault}")
        if not state.faults:
            before = f", {state.removed} before them removed by retention" if state.removed else ""
            print(f"chain {name}: {state.records} records, {state.first} to {state.last}, whole{before}")
            print(f"  {name}:{state.last}:{state.hash}")
