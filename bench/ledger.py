"""The ledger with a million rows: how quickly they are booked, and how long `penstock usage` takes.

    python -m bench.ledger [--rows 1000000] [--keys 1000] [--models 2] [--postgres]

Rows are made as lines of a journal, spread over a month, and booked in batches as the supervisor does; then
the command is run as a user runs it, a process of its own each time. `--postgres` starts a server too.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from gateway.core.codec import dumps
from gateway.core.keep import Keep
from gateway.core.limit import LimitRule
from gateway.core.sheet import gathered
from gateway.stores.postgres import PostgresLedger
from gateway.stores.sqlite import SqliteLedger

_BATCH = 2000  # as the supervisor's
_MODELS = (
    "gpt-4o",
    "gpt-4o-mini",
    "gpt-4.1",
    "o3",
    "claude-sonnet-4",
    "gemini-2.5-pro",
    "llama-3",
    "mistral",
)
_DAY = 86_400_000
_FIRST = 1_790_812_800_000  # 2026-10-01T00:00:00Z in ms
_TARGET = 2.0  # seconds
_ASKED = (
    "--by key",
    "--by model,day",
    "--by tenant,team",
    "--by tag",
    "--by tag,model",
    "--by day --tenant tenant-3",
    "--by key --top 10",
    "--by hour",
)


def main() -> None:
    """Book, ask, print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--keys", type=int, default=1000)
    parser.add_argument("--models", type=int, default=2, help="that one key uses")
    parser.add_argument("--postgres", action="store_true", help="on a PostgreSQL server too")
    args = parser.parse_args()
    with ExitStack() as stack:
        for name in ("sqlite", *(["postgresql"] if args.postgres else [])):
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            url = _server(stack) if name == "postgresql" else ""
            (folder / "gateway.toml").write_text(f'[state]\nledger = "{url}"\n' if url else "")
            (folder / "data").mkdir()
            ledger = PostgresLedger(url, "bench") if url else SqliteLedger(folder / "data" / "ledger.sqlite")
            ledger.open()
            print(f"\n{name}: {args.rows:,} rows, {args.keys:,} keys, {args.models} models each")
            _book(ledger, args.rows, args.keys, args.models)
            _restore(ledger)
            ledger.close()
            _ask(folder)


def _server(stack: ExitStack) -> str:
    from tests.servers.postgres import serving

    return stack.enter_context(serving()).url


def _lines(rows: int, keys: int, models: int) -> Iterator[bytes]:
    """Lines as workers write them: what calls have in common first."""
    choose = random.Random(7)
    heads = {}
    for n in range(rows):
        key = choose.randrange(keys)
        model = _MODELS[(key + choose.randrange(models)) % len(_MODELS)]
        head = heads.get((key, model))
        if head is None:
            head = heads[key, model] = dumps(_common(key, model))[:-1] + b","
        ts = _FIRST + int(n / rows * 30 * _DAY)
        own = {"id": f"req_{n:016x}", "ts": ts, "client": "10.0.0.1", "status": 200, "total_us": 900_000}
        own |= {"queue_us": 40, "overhead_us": 400, "hold_tokens": 800, "hold_micros": 90}
        own |= {"input": choose.randrange(2000), "output": choose.randrange(500), "cost_micros": 700}
        if n % 5 == 0:
            own["tags"] = [f"project-{n % 40}", "nightly"]
        yield head + dumps(own)[1:]


def _common(key: int, model: str) -> dict[str, Any]:
    who = {"key": f"key_{key:06d}", "key_name": f"name-{key}", "tenant": f"tenant-{key % 20}"}
    who |= {"team": f"team-{key % 50}", "user": f"user-{key % 300}"}
    what = {"method": "POST", "endpoint": "chat/completions", "model": model, "alias": model, "stream": False}
    how = {"revision": "0123456789ab", "worker": 0, "backend": "openai", "target": model}
    return {**what, **how, **who, "outcome": "ok", "code": "", "usage_source": "provider", "tries": 1}


def _book(ledger: SqliteLedger | PostgresLedger, rows: int, keys: int, models: int) -> None:
    lines = list(_lines(rows, keys, models))
    slowest = 0.0
    began = time.perf_counter()
    for offset in range(0, rows, _BATCH):
        start = time.perf_counter()
        ledger.book(gathered(lines[offset : offset + _BATCH]), {"bench-0": offset + _BATCH})
        slowest = max(slowest, time.perf_counter() - start)
    took = time.perf_counter() - began
    _say("booked", f"{took / rows * 1e6:.1f} us a row, slowest batch {slowest * 1000:.0f} ms")
    began, steps = time.perf_counter(), 1
    while ledger.tidy_calls(Keep(), _FIRST / 1000 + 30 * 86_400):
        steps += 1
    _say("summed up", f"{time.perf_counter() - began:.2f} s in {steps} steps")


def _restore(ledger: SqliteLedger | PostgresLedger) -> None:
    """What a start reads for the budget of a month, and for a rolling one."""
    for name, rule in (
        ("budget per key, calendar month", LimitRule("r", ("key",), "usd", 1, calendar="month")),
        (
            "budget per tenant and tag, 30 d",
            LimitRule("r", ("tenant", "tag"), "usd", 1, seconds=30 * 86_400.0),
        ),
    ):
        _say(name, _timed(lambda rule=rule: list(ledger.spent(rule, _FIRST))))


def _timed(work: Callable[[], Any]) -> str:
    began = time.perf_counter()
    work()
    return f"{time.perf_counter() - began:.2f} s"


def _ask(folder: Path) -> None:
    environ = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    for words in _ASKED:
        command = [sys.executable, "-m", "gateway", "usage", "--month", "2026-10", *words.split()]
        times = []
        for _ in range(3):
            began = time.perf_counter()
            subprocess.run(command, cwd=folder, env=environ, check=True, stdout=subprocess.DEVNULL)
            times.append(time.perf_counter() - began)
        verdict = "within" if min(times) <= _TARGET else "ABOVE"
        _say(f"usage {words}", f"{min(times):.2f} s  ({verdict} {_TARGET:g} s)")


def _say(what: str, figure: str) -> None:
    print(f"  {what:<40} {figure}", flush=True)


if __name__ == "__main__":
    main()
