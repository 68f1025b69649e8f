"""The budget table in one command: `make bench`, or `python -m bench --rows request,chunk --quick`."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from bench import machine, peers, report
from bench.gateway import POLICIES
from bench.row import Options
from bench.rows import table


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    known = ",".join(table())
    parser.add_argument("--rows", default=known, help=f"comma-separated, of {known}")
    parser.add_argument("--quick", action="store_true", help="one short round: to try, not to quote")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=6.0, help="of load per measurement")
    parser.add_argument("--python", default=sys.executable, help="the interpreter that runs the gateway")
    parser.add_argument("--no-peers", action="store_true", help="leave other gateways out")
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "results")
    parser.add_argument("--name", default="", help="of the files written; the date when not given")
    return parser.parse_args()


def main() -> int:
    """Measure the chosen rows, print the table, keep the figures."""
    given = arguments()
    options = Options(
        rounds=1 if given.quick else given.rounds,
        seconds=3.0 if given.quick else given.seconds,
        python=given.python,
        peers=not given.no_peers,
    )
    facts = machine.describe(given.python)
    facts |= {"policies": POLICIES, "rounds": options.rounds, "peers": peers.installed()}
    chosen = []
    for key in given.rows.split(","):
        row, measure = table()[key]
        print(f"{row.what} …", flush=True)
        chosen.append(measure(options, row))
    print("\n" + report.text(facts, chosen))
    if not given.quick:
        name = given.name or time.strftime("%Y-%m-%d")
        for path in report.save(given.results, name, facts, chosen):
            print(f"wrote {path}")
    return 1 if any("penstock" in row.void for row in chosen) else 0


if __name__ == "__main__":
    sys.exit(main())
