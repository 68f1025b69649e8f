"""`penstock usage`: what was used and what it cost, from the ledger."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from gateway.commands.ledger import opened
from gateway.commands.moment import parse_moment
from gateway.commands.output import Misused, Refused, load, refuse, say_json, say_table
from gateway.core.errors import LedgerError
from gateway.core.limit import MICROS

_ALWAYS = ("calls", "input", "output", "cost_micros")
FILTERS = ("tenant", "team", "user", "key", "model", "backend", "target", "tag", "prompt", "arm", "outcome")


def run(args: Namespace) -> int:
    """Sums of the calls, grouped as asked; or the comparison with a provider's export."""
    if args.action is not None:
        from gateway.commands import reconcile

        return reconcile.run(args)
    try:
        settings = load(args)
        by = [part.strip() for part in args.by.split(",") if part.strip()]
        if args.file is not None or not by or len(set(by)) < len(by):
            raise Misused("--by: name some columns, each once: key,model,day")
        _known(by)
        since, until = moments(args)
        only = filters(args)
        with opened(settings) as ledger:
            rows = ledger.usage(_named(by), since, until, only) if ledger else []
    except Refused as refused:
        return refuse(args, refused)
    if args.top:
        rows = sorted(rows, key=_size, reverse=True)[: args.top]
    if args.json:
        say_json(rows)
    elif not rows:
        print("No calls were recorded in this time.")
    else:
        _table(by, rows)
    return 0


def moments(args: Namespace) -> tuple[datetime | None, datetime | None]:
    """`--since` and `--until`; `--month` names both. Raises `Misused`."""
    if args.month is None:
        since = parse_moment("--since", args.since) if args.since else None
        return since, parse_moment("--until", args.until) if args.until else None
    if args.since or args.until:
        raise Misused("--month stands alone: it names the beginning and the end")
    try:
        first = datetime.strptime(args.month, "%Y-%m").replace(tzinfo=UTC)
    except ValueError:
        raise Misused("--month: write a month like 2026-11") from None
    return first, first.replace(year=first.year + first.month // 12, month=first.month % 12 + 1)


def filters(args: Namespace) -> dict[str, list[str]]:
    """What is asked for, by column: each may have several values, by commas; keys by id or by name."""
    only: dict[str, list[str]] = {}
    for name in FILTERS:
        given: str | None = getattr(args, name)
        if given is not None:
            values = [value.strip() for value in given.split(",")]
            ids = name == "key" and all(value.startswith("key_") for value in values)
            only["key_name" if name == "key" and not ids else name] = values
    return only


def _known(by: Sequence[str]) -> None:
    """Refuse a column that there is none of, also where there is no ledger yet. Raises `Misused`."""
    from gateway.stores.base.usage import named

    try:
        for name in by:
            named(name)
    except LedgerError as error:
        raise Misused(f"--by: {error}") from None


def _size(row: Mapping[str, Any]) -> tuple[int, int, int]:
    return row["cost_micros"], row["tokens"], row["calls"]


def _named(by: Sequence[str]) -> list[str]:
    """Beside a key's id, which is its identity, its name, which people know it by."""
    return list(
        dict.fromkeys(name for part in by for name in ((part, "key_name") if part == "key" else (part,)))
    )


def _table(by: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
    """For people: keys by name, and only the sums that are not zero everywhere."""
    groups = ["key_name" if part == "key" else part for part in by]
    sums = [name for name in rows[0] if name not in _named(by)]
    sums = [name for name in sums if name in _ALWAYS or any(row[name] for row in rows)]
    head = [*by, *("usd" if name == "cost_micros" else name.replace("_", " ") for name in sums)]
    cells = [[str(row[name]) for name in groups] + [_sum(name, row[name]) for name in sums] for row in rows]
    say_table(head, cells, numbers=len(sums))


def _sum(name: str, value: Any) -> str:
    if name.endswith("_micros") and isinstance(value, int):
        return f"{value // MICROS}.{value % MICROS:06d}"
    return f"{value:,}" if isinstance(value, int) else str(value)
