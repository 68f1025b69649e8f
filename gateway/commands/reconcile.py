"""`penstock usage reconcile FILE`: what a provider says was used, beside what the ledger says."""

from __future__ import annotations

import re
from argparse import Namespace
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from gateway.commands.export import ALIASES, FIGURES, Export, Unreadable, read
from gateway.commands.ledger import opened
from gateway.commands.output import Misused, Refused, load, refuse, say_json, say_table
from gateway.core.limit import MICROS
from gateway.core.ports import Ledger
from gateway.core.usage import KINDS

_ASKED = ("ok", "client_gone", "truncated", "abandoned")  # outcomes of calls that a provider has served
# Providers tell snapshots apart that callers need not name.
_SNAPSHOT = re.compile(r"-(\d{4}-\d{2}-\d{2}|20\d{6})$")
_FIELDS = tuple(name for name in ALIASES if name != "currency")

Key = tuple[str, str]  # day, model
Sums = dict[str, int]


@dataclass(slots=True)
class Drift:
    """One figure of one day and model: what the provider says, and what the ledger says."""

    day: str
    model: str
    figure: str
    provider: int
    ledger: int

    @property
    def percent(self) -> float | None:
        """Of what the provider says; None where that is nothing."""
        if self.provider == self.ledger:
            return 0.0
        return (self.ledger - self.provider) / self.provider * 100 if self.provider else None

    def above(self, tolerance: float) -> bool:
        """Whether it is more than so many percent, either way."""
        return self.percent is None or abs(self.percent) > tolerance


def run(args: Namespace) -> int:
    """Compare; 1 where something is above the tolerance, or a row was not understood."""
    try:
        tolerance = _tolerance(args.tolerance)
        mapped = _mapped(args.map)
        if args.file is None:
            raise Misused("reconcile: name the provider's export, a CSV file")
        try:
            export = read(Path(args.file), mapped)
        except Unreadable as error:
            raise Refused(f"{args.file}: {error}") from None
        with opened(load(args)) as ledger:
            ours, unknown = _booked(ledger, export, args.backend)
    except Refused as refused:
        return refuse(args, refused)
    drifts = compare(export.sums, ours, export.known)
    totals = _totals(drifts, export.known)
    found = sum(each.above(tolerance) for each in (*drifts, *totals))
    if args.json:
        say_json(_document(export, drifts, totals, tolerance, found, unknown))
    else:
        _show(args.file, export, drifts, totals, tolerance, unknown)
    return 1 if found or export.bad else 0


def _tolerance(text: str) -> float:
    try:
        found = float(text.removesuffix("%"))
    except ValueError:
        found = -1.0
    if not 0 <= found <= 100:
        raise Misused("--tolerance: write percent, from 0 to 100: 0.5")
    return found


def _mapped(given: Sequence[str]) -> dict[str, str]:
    mapped = {}
    for each in given:
        column, equals, name = each.rpartition("=")
        if not equals or not column or name not in _FIELDS:
            raise Misused(f"--map: write COLUMN=FIELD; fields are {', '.join(_FIELDS)}")
        mapped[column] = name
    return mapped


def _booked(ledger: Ledger | None, export: Export, backend: str | None) -> tuple[dict[Key, Sums], int]:
    """What the ledger has of the export's days, and how many of these calls have no known usage."""
    days = sorted({day for day, _ in export.sums})
    if ledger is None or not days:
        return {}, 0
    since = datetime.fromisoformat(days[0]).replace(tzinfo=UTC)
    until = datetime.fromisoformat(days[-1]).replace(tzinfo=UTC) + timedelta(1)
    only = {"outcome": _ASKED} | ({"backend": backend.split(",")} if backend else {})
    ours: dict[Key, Sums] = {}
    unknown = 0
    for row in ledger.usage(("day", "target"), since, until, only):
        unknown += row["unknown"]
        kinds = [row[kind] for kind in KINDS]
        figures = (row["calls"], sum(kinds[:4]), sum(kinds[4:]), sum(kinds), row["cost_micros"])
        ours[row["day"], row["target"]] = dict(zip(FIGURES, figures, strict=True))
    return ours, unknown


def compare(theirs: Mapping[Key, Sums], ours: Mapping[Key, Sums], known: Sequence[str]) -> list[Drift]:
    """Each figure of each day and model. A snapshot goes with its plain name where one side has only that."""
    names = {_SNAPSHOT.sub("", model) for side in (theirs, ours) for _, model in _plain(side)}
    theirs, ours = _merged(theirs, names), _merged(ours, names)
    return [
        Drift(*key, name, theirs.get(key, {}).get(name, 0), ours.get(key, {}).get(name, 0))
        for key in sorted(theirs.keys() | ours.keys())
        for name in known
    ]


def _plain(side: Iterable[Key]) -> list[Key]:
    """Those that name no snapshot."""
    return [key for key in side if not _SNAPSHOT.search(key[1])]


def _merged(side: Mapping[Key, Sums], names: set[str]) -> dict[Key, Sums]:
    merged: dict[Key, Sums] = {}
    for (day, model), sums in side.items():
        plain = _SNAPSHOT.sub("", model)
        total = merged.setdefault((day, plain if plain in names else model), dict.fromkeys(sums, 0))
        for name, figure in sums.items():
            total[name] += figure
    return merged


def _totals(drifts: Iterable[Drift], known: Sequence[str]) -> list[Drift]:
    totals = {name: Drift("all", "all", name, 0, 0) for name in known}
    for each in drifts:
        totals[each.figure].provider += each.provider
        totals[each.figure].ledger += each.ledger
    return list(totals.values())


def _document(
    export: Export, drifts: list[Drift], totals: list[Drift], tolerance: float, above: int, unknown: int
) -> dict[str, Any]:
    def shown(each: Drift) -> dict[str, Any]:
        figures = {"provider": each.provider, "ledger": each.ledger, "drift": each.ledger - each.provider}
        percent = None if each.percent is None else round(each.percent, 4)
        return {"figure": each.figure, **figures, "percent": percent, "above": each.above(tolerance)}

    return {
        "rows": export.rows,
        "bad_rows": export.bad,
        "faults": export.faults,
        "tolerance_percent": tolerance,
        "above": above,
        "unknown_calls": unknown,
        "drifts": [{"day": each.day, "model": each.model, **shown(each)} for each in drifts],
        "totals": [shown(each) for each in totals],
    }


def _show(
    file: str, export: Export, drifts: list[Drift], totals: list[Drift], tolerance: float, unknown: int
) -> None:
    for fault in export.faults:
        print(f"{file}: {fault}")
    if export.bad > len(export.faults):
        print(f"{file}: and {export.bad - len(export.faults):,} more rows like these")
    if not drifts:
        print("The export has no usage.")
        return
    shown = [each for each in drifts if each.above(tolerance)]
    say_table(
        ["day", "model", "figure", "provider", "ledger", "drift", "percent"],
        [_cells(each) for each in (*shown, *totals)],
        numbers=4,
    )
    same = len(drifts) - len(shown)
    print(f"{len(shown)} of {len(drifts)} figures are above {tolerance:g} %; {same} agree.")
    if unknown:
        print(f"Calls whose usage nobody knows: {unknown:,}. They count with none.")


def _cells(each: Drift) -> list[str]:
    percent = "none there" if each.percent is None else f"{each.percent:+.2f} %"
    figure = "usd" if each.figure == "cost_micros" else each.figure
    money = each.figure == "cost_micros"
    numbers = [_figure(value, money) for value in (each.provider, each.ledger, each.ledger - each.provider)]
    return [each.day, each.model, figure, *numbers, percent]


def _figure(value: int, money: bool) -> str:
    if not money:
        return f"{value:,}"
    sign = "-" if value < 0 else ""
    return f"{sign}{abs(value) // MICROS}.{abs(value) % MICROS:06d}"
