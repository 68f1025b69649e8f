"""What limits cost in a worker that really serves: `python -m bench.limits_hot`.

Four gateways stand in front of the same upstream and are loaded in turns: one key or 10,000, which all
call evenly, without limits and with 20 of which 6 apply. Printed is the CPU time of the worker process per
call, system calls included; not that of the supervisor, in which the limits' authority runs.
"""

from __future__ import annotations

import argparse
import hashlib
import statistics
import tempfile
from pathlib import Path

from bench import load, reference
from bench.gateway import gateway, workers_of
from bench.process import Server, cpu_seconds

KEYS = 10_000
_SIX = """
[[limits]]
scope = "global"
requests = 1_000_000_000
per = "1m"
[[limits]]
scope = "tenant"
usd = 1_000_000_000
per = "calendar month"
[[limits]]
scope = "key"
requests = 1_000_000_000
per = "1m"
[[limits]]
scope = "key"
tokens = 1_000_000_000_000
per = "1m"
[[limits]]
scope = "key"
usd = 10_000_000
per = "calendar month"
[[limits]]
scope = "key"
concurrent = 1_000_000
"""
_OTHERS = """
[[limits]]
scope = "tenant"
match = "other-{}"
requests = 1_000_000
per = "1m"
"""
# Another key for each call, in an order that no cache foresees.
_TURNS = """
local calls = 0
function request()
  calls = calls + 1
  wrk.headers["Authorization"] = "Bearer " .. string.format("sk-bench-%08d", (calls * 7919) % {})
  return wrk.format()
end
"""


def rules(keys: int, limits: bool) -> str:
    """So many keys, and 20 limits or none."""
    entries = [
        f'[[keys]]\nname = "k{n}"\nhash = "sha256:{_digest(n)}"\ntenant = "acme"\n' for n in range(keys)
    ]
    text = _SIX + "".join(_OTHERS.format(n) for n in range(14)) if limits else ""
    return text + "\n".join(entries)


def _digest(number: int) -> str:
    return hashlib.sha256(b"sk-bench-%08d" % number).hexdigest()


def cost(server: Server, keys: int, seconds: float) -> float:
    """Microseconds of the worker's CPU per call. Raises `load.Void` where calls failed."""
    (worker,) = workers_of(server)
    before = cpu_seconds(worker)
    url = f"http://127.0.0.1:{server.port}/v1/chat/completions"
    seen = load.wrk(url, "", load.chat_body(1024), seconds=seconds, more=_TURNS.format(keys))
    return (cpu_seconds(worker) - before) / seen.requests * 1e6


def main() -> None:
    """Measure in turns, print medians."""
    parser = argparse.ArgumentParser(prog="python -m bench.limits_hot", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=6.0)
    given = parser.parse_args()
    kinds = [(keys, limits) for keys in (1, KEYS) for limits in (False, True)]
    found: dict[tuple[int, bool], list[float]] = {kind: [] for kind in kinds}
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        with reference.upstream(directory, "1") as upstream:
            servers = {
                (keys, limits): gateway(
                    directory, "0", upstream.port, name=f"{keys}-{limits}", rules=rules(keys, limits)
                )
                for keys, limits in kinds
            }
            try:
                for kind in kinds:
                    cost(servers[kind], kind[0], given.seconds)  # warm
                for _ in range(given.rounds):
                    for kind in kinds:
                        found[kind].append(cost(servers[kind], kind[0], given.seconds))
            finally:
                for server in servers.values():
                    server.stop()
    for keys in (1, KEYS):
        without, with_ = (statistics.median(found[keys, limits]) for limits in (False, True))
        pairs = sorted(b - a for a, b in zip(found[keys, False], found[keys, True], strict=True))
        print(
            f"20 limits, 6 apply, {keys:,} keys: {statistics.median(pairs):.1f} us of the worker per call "
            f"({pairs[0]:.1f} to {pairs[-1]:.1f}; {without:.1f} without, {with_:.1f} with), <= 15"
        )


if __name__ == "__main__":
    main()
