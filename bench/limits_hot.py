"""What limits cost in a worker that really serves: `python -m bench.limits_hot`.

Four gateways stand in front of the same upstream and are loaded in turns: one key or 10,000, which all
call evenly, without limits and with 20 of which 6 apply. Printed is the CPU time of the worker process per
call, system calls included; not that of the supervisor, in which the limits' authority runs.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from bench import load, reference
from bench.gateway import ROOT, workers_of
from bench.process import Server, cpu_seconds, free_port

KEYS = 10_000
_GATEWAY = """
[server]
listen = "127.0.0.1:{port}"
admin = "127.0.0.1:{admin}"
workers = 1

[backends.provider]
kind = "openai"
base_url = "http://127.0.0.1:{upstream}/v1"
api_key = "sk-provider-bench"
connections = 4096

[models."gpt-*"]
targets = [ {{ backend = "provider" }} ]
"""
_SIX = """
limits = [
  { scope = "global", requests = 1_000_000_000, per = "1m" },
  { scope = "tenant", usd = 1_000_000_000, per = "calendar month" },
  { scope = "key", requests = 1_000_000_000, per = "1m" },
  { scope = "key", tokens = 1_000_000_000_000, per = "1m" },
  { scope = "key", usd = 10_000_000, per = "calendar month" },
  { scope = "key", concurrent = 1_000_000 },
"""
# Another key for each call, in an order that no cache foresees.
_LUA = """
wrk.method = "POST"
local file = io.open(os.getenv("BENCH_BODY"), "rb")
wrk.body = file:read("*a")
file:close()
wrk.headers["Content-Type"] = "application/json"
local keys, calls = tonumber(os.getenv("BENCH_KEYS")), 0
function request()
  calls = calls + 1
  wrk.headers["Authorization"] = "Bearer " .. string.format("sk-bench-%08d", (calls * 7919) % keys)
  return wrk.format()
end
function done(summary, latency, requests)
  local e = summary.errors
  print("RESULT " .. summary.requests .. " " .. (e.connect + e.read + e.write + e.status + e.timeout))
end
"""


def gateway(directory: Path, upstream: int, keys: int, limits: bool) -> Server:
    """One that serves. Raises `RuntimeError` where it does not start."""
    name = f"{keys}-{limits}"
    home = directory / name
    home.mkdir()
    port, admin = free_port(), free_port()
    text = _SIX + "".join(
        f'  {{ scope = "tenant", match = "other-{n}", requests = 1_000_000, per = "1m" }},\n'
        for n in range(14)
    )
    entries = [
        f'[[keys]]\nname = "k{n}"\nhash = "sha256:{_digest(n)}"\ntenant = "acme"\n' for n in range(keys)
    ]
    config = home / "gateway.toml"
    head = _GATEWAY.format(port=port, admin=admin, upstream=upstream)
    config.write_text((text + "]\n" if limits else "") + head + "\n".join(entries))
    server = Server(
        name,
        [sys.executable, "-m", "gateway", "serve", "-c", str(config)],
        port,
        cores="0",
        cwd=home,
        env={"PYTHONPATH": os.environ.get("BENCH_PATH", "") or str(ROOT)},
        log=home / "out.log",
    )
    server.admin = admin
    server.wait_ready(f"http://127.0.0.1:{admin}/readyz", 60.0)
    return server


def _digest(number: int) -> str:
    return hashlib.sha256(b"sk-bench-%08d" % number).hexdigest()


def cost(server: Server, directory: Path, keys: int, seconds: float) -> float:
    """Microseconds of the worker's CPU per call. Raises `load.Void` where calls failed."""
    script, body = directory / "load.lua", directory / "body"
    script.write_text(_LUA)
    body.write_bytes(load.chat_body(1024))
    (worker,) = workers_of(server)
    before = cpu_seconds(worker)
    url = f"http://127.0.0.1:{server.port}/v1/chat/completions"
    done = subprocess.run(
        ["taskset", "-c", "1", "wrk", "-t1", "-c32", f"-d{seconds:.0f}s", "-s", str(script), url],
        env={**os.environ, "BENCH_BODY": str(body), "BENCH_KEYS": str(keys)},
        capture_output=True,
        text=True,
        check=True,
    )
    line = next((each for each in done.stdout.splitlines() if each.startswith("RESULT ")), "RESULT 0 1")
    _, calls, errors = line.split()
    if int(errors) or not int(calls):
        raise load.Void(f"{errors} of {calls} requests failed\n{server.tail()}")
    return (cpu_seconds(worker) - before) / int(calls) * 1e6


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
            servers = {kind: gateway(directory, upstream.port, *kind) for kind in kinds}
            try:
                for kind in kinds:
                    cost(servers[kind], directory, kind[0], given.seconds)  # warm
                for _ in range(given.rounds):
                    for kind in kinds:
                        found[kind].append(cost(servers[kind], directory, kind[0], given.seconds))
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
