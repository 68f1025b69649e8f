"""Two workers against one: what the second brings, by CPU time and by requests per second."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from bench import load, reference
from bench.gateway import KEY, gateway, workers_of
from bench.process import Server
from bench.row import CHAT, Options, Row

BODY = load.chat_body(700)
BOTH = "0,1"


def scaling(options: Options, row: Row) -> Row:
    """Two workers against one, in two ways, each with nginx of as many processes beside it.

    `× CPU`: what two workers of one gateway lose to each other. They are compared with two gateways of one
    worker each: the same load from both cores, the same upstream with a process on each, both cores as busy;
    so what the machine takes for its second core (its clock, its caches, waking the other core) is the same
    on both sides. Twice the CPU time of all processes per request with one worker, ÷ that with two.

    `× rps`: requests per second where everything is doubled: each worker has a core, shared with a
    generator and an upstream of its own. One worker has all of it on one core, wakes nobody on another and
    has the machine for itself, so this holds what the machine takes. `apart`, two gateways of one worker
    each, everything of each on its own core, tells how much of that is not even for crossing cores.
    """
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        shared, singles = _shared(stack, directory, options)
        doubled = _doubled(stack, directory, options)
        for number in range(options.rounds):
            for name, servers in {**singles, **shared}.items():
                row.add(f"{name} µs", _cost(servers, options.seconds))
            for name, servers in {**doubled, **shared}.items():
                row.add(f"{name} rps", _rate(servers, options.seconds))
            one, two = row.values["1 µs"][-1], row.values["2 µs"][-1]
            options.say(
                f"  {row.key} round {number + 1}: {one:.1f} µs a request with one, {two:.1f} with two"
            )
    for label, name in (("× CPU", ""), ("× CPU nginx", "nginx ")):
        row.divide(f"{name}1 µs", f"{name}2 µs", label)
        row.measured[label] = [2 * ratio for ratio in row.measured[label]]
    row.divide("2 rps", "1 rps", "× rps")
    row.divide("nginx 2 rps", "nginx 1 rps", "× rps nginx")
    row.divide("apart rps", "1 rps", "× rps two gateways apart")
    return row


Servers = dict[str, list[Server]]


def _shared(stack: ExitStack, directory: Path, options: Options) -> tuple[Servers, Servers]:
    """Two workers of one gateway, and two gateways of one; each worker has a core. Nginx likewise."""
    upstream = stack.enter_context(reference.upstream(directory / "both", BOTH, workers=2))
    shared: Servers = {}
    singles: Servers = {"1": [], "nginx 1": []}
    for cores in ("0", "1", BOTH):
        workers = len(cores.split(","))
        home = directory / f"on{cores}"
        server = gateway(home, BOTH, upstream.port, workers=workers, python=options.python)
        proxy = reference.proxy(home, cores, upstream.port, workers=workers)
        for name, each in (("", stack.enter_context(server)), ("nginx ", stack.enter_context(proxy))):
            if workers == 2:
                shared[f"{name}2"] = [each, each]
            else:
                singles[f"{name}1"].append(each)
        for core, pid in zip(cores.split(","), workers_of(server), strict=True):
            os.sched_setaffinity(pid, {int(core)})
    return shared, singles


def _doubled(stack: ExitStack, directory: Path, options: Options) -> Servers:
    """Gateways and nginx that have everything of theirs on one core: the first alone, and both at once."""
    alone: list[Server] = []
    for core in BOTH.split(","):
        home = directory / f"all{core}"
        upstream = stack.enter_context(reference.upstream(home, core))
        alone.append(stack.enter_context(gateway(home, core, upstream.port, python=options.python)))
        if core == "0":
            proxy = stack.enter_context(reference.proxy(home, core, upstream.port))
    return {"1": alone[:1], "nginx 1": [proxy], "apart": alone}


def _cost(servers: list[Server], seconds: float) -> float:
    """CPU microseconds per request of all processes of both `servers`, each loaded from both cores."""

    def run(seconds: float) -> list[load.Load]:
        urls = [_url(server) for server in servers]
        return load.together(urls * 2, KEY, BODY, seconds, cores="0011", connections=16)

    def spent() -> float:
        return sum(server.settled_cpu() for server in dict.fromkeys(servers))

    run(1)
    before = spent()
    runs = run(seconds)
    return (spent() - before) / sum(run.requests for run in runs) * 1e6


def _rate(servers: Sequence[Server], seconds: float) -> float:
    """Requests per second of all `servers` together; each has a load of its own, from core 0 up."""
    urls = [_url(server) for server in servers]
    load.together(urls, KEY, BODY, 1)
    return sum(run.rate for run in load.together(urls, KEY, BODY, seconds))


def _url(server: Server) -> str:
    return f"http://127.0.0.1:{server.port}{CHAT}"
