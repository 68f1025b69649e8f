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

    `× CPU`: one worker and two under the same load, 32 connections from each core, and in front of the
    same upstream with a process on each; how much more two cores can serve, from the CPU time of all
    processes of the gateway per request. That is the figure that does not move with who else uses a core.

    `× rps`: requests per second where everything is doubled: each worker has a core, shared with a
    generator and an upstream of its own. One worker has all of it on one core and wakes nobody on
    another, so this holds what crossing cores costs. `apart`, two gateways of one worker each, everything
    of each on its own core, tells what the machine makes of its second core without crossing.
    """
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        alike = _alike(stack, directory, options)
        whole, proxies = _doubled(stack, directory, options, alike)
        beside = stack.enter_context(reference.upstream(directory / "beside", "1"))
        other = gateway(directory, "1", beside.port, name="beside", python=options.python)
        apart = [whole[1], stack.enter_context(other)]
        for number in range(options.rounds):
            for name, server in alike.items():
                row.add(f"{name} µs", _cost(server, options.seconds))
            for count in (1, 2):
                row.add(f"{count} rps", _rate([whole[count]] * count, options.seconds))
                row.add(f"nginx {count} rps", _rate([proxies[count]] * count, options.seconds))
            row.add("apart rps", _rate(apart, options.seconds))
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


def _alike(stack: ExitStack, directory: Path, options: Options) -> dict[str, Server]:
    """One and two workers, and nginx, in front of the same upstream; each worker has a core."""
    upstream = stack.enter_context(reference.upstream(directory / "both", BOTH, workers=2))
    found = {}
    for count, cores in ((1, "0"), (2, BOTH)):
        name = f"workers{count}"
        server = gateway(directory, BOTH, upstream.port, name=name, workers=count, python=options.python)
        found[f"{count}"] = stack.enter_context(server)
        for core, pid in enumerate(workers_of(server)):
            os.sched_setaffinity(pid, {core})
        home = directory / name
        proxy = reference.proxy(home, cores, upstream.port, workers=count)
        found[f"nginx {count}"] = stack.enter_context(proxy)
    return found


def _doubled(
    stack: ExitStack, directory: Path, options: Options, alike: dict[str, Server]
) -> tuple[dict[int, Server], dict[int, Server]]:
    """The gateway and nginx, by their number of workers: everything of the one is on core 0."""
    upstream = stack.enter_context(reference.upstream(directory / "single", "0"))
    one = gateway(directory, "0", upstream.port, name="single", python=options.python)
    proxy = reference.proxy(directory / "single", "0", upstream.port)
    gateways = {1: stack.enter_context(one), 2: alike["2"]}
    return gateways, {1: stack.enter_context(proxy), 2: alike["nginx 2"]}


def _cost(server: Server, seconds: float) -> float:
    """CPU microseconds per request of all processes of `server`, loaded from both cores."""
    _rate([server] * 2, 1)
    before = server.settled_cpu()
    runs = load.together([_url(server)] * 2, KEY, BODY, seconds)
    return (server.settled_cpu() - before) / sum(run.requests for run in runs) * 1e6


def _rate(servers: Sequence[Server], seconds: float) -> float:
    """Requests per second of all `servers` together; each has a load of its own, from core 0 up."""
    urls = [_url(server) for server in servers]
    load.together(urls, KEY, BODY, 1)
    return sum(run.rate for run in load.together(urls, KEY, BODY, seconds))


def _url(server: Server) -> str:
    return f"http://127.0.0.1:{server.port}{CHAT}"
