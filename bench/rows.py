"""The rows of the budget: what is measured, how, and what must come out."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from bench import latency, load, peers, reference, streams
from bench.gateway import KEY, gateway, workers_of
from bench.process import Server, queued_seconds, rss
from bench.row import CHAT, Options, Row
from bench.scaling import scaling

SERVER_CORE, LOAD_CORE = "0", "1"


def cpu_per_request(options: Options, size: int, row: Row) -> Row:
    """CPU microseconds per non-streamed request, in turns: nginx, the gateway, each peer."""
    body = load.chat_body(size)
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        upstream = stack.enter_context(reference.upstream(directory, LOAD_CORE))
        servers = [
            stack.enter_context(reference.proxy(directory, SERVER_CORE, upstream.port)),
            stack.enter_context(gateway(directory, SERVER_CORE, upstream.port, python=options.python)),
        ]
        if row.key == "request":
            servers.append(
                stack.enter_context(reference.bare(directory, SERVER_CORE, upstream.port, options.python))
            )
        if options.peers and row.key == "request":
            servers += [
                stack.enter_context(peer) for peer in peers.start(directory, SERVER_CORE, upstream.port)
            ]
        in_turns(options, row, servers, lambda server: _request_cost(server, body, options))
    row.divide()
    if "bare" in row.values:
        row.divide(base="bare", label="÷ a bare proxy in Python")
    return row


def _request_cost(server: Server, body: bytes, options: Options) -> float:
    def run(seconds: float) -> load.Load:
        return load.wrk(f"http://127.0.0.1:{server.port}{CHAT}", KEY, body, seconds=seconds, cores=LOAD_CORE)

    run(5 if server.name in peers.KNOWN else 1)
    before = server.settled_cpu()
    result = run(options.seconds)
    return (server.settled_cpu() - before) / result.requests * 1e6


def cpu_per_chunk(options: Options, row: Row) -> Row:
    """CPU microseconds per streamed chunk: 64 streams at once, a chunk each 10 ms, 100 chunks a reply."""
    body = load.chat_body(700, stream=True)
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        provider = stack.enter_context(streams.stream_provider(directory, LOAD_CORE, chunks=100, pace=0.01))
        servers = [
            stack.enter_context(reference.proxy(directory, SERVER_CORE, provider.port, buffering=False)),
            stack.enter_context(gateway(directory, SERVER_CORE, provider.port, python=options.python)),
        ]
        servers[0].name = "nginx"
        in_turns(options, row, servers, lambda server: _chunk_cost(server, provider, body, options))
    row.divide()
    return row


def _chunk_cost(server: Server, provider: Server, body: bytes, options: Options) -> float:
    def run(seconds: float) -> None:
        url = f"http://127.0.0.1:{server.port}{CHAT}"
        load.wrk(url, KEY, body, seconds=seconds, connections=64, cores=LOAD_CORE)

    run(2)
    before, sent = server.settled_cpu(), streams.sent(provider)
    run(options.seconds + 2)
    return (server.settled_cpu() - before) / (streams.sent(provider) - sent) * 1e6


def added_latency(options: Options, row: Row) -> Row:
    """Milliseconds added at 200 requests a second, against the upstream directly, in turns of a second."""
    os.sched_setaffinity(0, {int(LOAD_CORE)})
    request = latency.request_bytes(load.chat_body(700), KEY)
    try:
        with ExitStack() as stack:
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            upstream = stack.enter_context(reference.upstream(directory, LOAD_CORE))
            nginx = stack.enter_context(reference.proxy(directory, SERVER_CORE, upstream.port))
            ours = stack.enter_context(gateway(directory, SERVER_CORE, upstream.port, python=options.python))
            ports = {"direct": upstream.port, "nginx": nginx.port, "penstock": ours.port}
            for number in range(options.rounds):
                worker = workers_of(ours)[0]
                queued = queued_seconds(worker)
                found = latency.measure(ports, request, seconds=2 * options.seconds)
                waited = (queued_seconds(worker) - queued) / len(found["penstock"])
                row.add("waiting for a core, mean", waited * 1e3)  # because of neighbours on the machine
                for share, label in ((0.5, "p50"), (0.99, "p99")):
                    base = latency.percentile(found["direct"], share)
                    row.add(f"direct {label}", base * 1e3)
                    for name in ("nginx", "penstock"):
                        added = (latency.percentile(found[name], share) - base) * 1e3
                        row.add(f"{name} {label}", added)
                options.say(f"  {row.key} round {number + 1}: {row.values['penstock p50'][-1]:.3f} ms p50")
    finally:
        os.sched_setaffinity(0, range(os.cpu_count() or 1))
    row.measured = {label: row.values[f"penstock {label}"] for label in ("p50", "p99")}
    return row


def memory(options: Options, row: Row) -> Row:
    """Resident memory of an idle worker (MB), and of one more open stream (KB)."""
    for _ in range(options.rounds):
        with ExitStack() as stack:
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            provider = stack.enter_context(
                streams.stream_provider(directory, LOAD_CORE, chunks=1_000_000, pace=1.0)
            )
            ours = stack.enter_context(gateway(directory, SERVER_CORE, provider.port, python=options.python))
            row.add("worker idle MB", sum(map(rss, workers_of(ours))) / 1e6)
            row.add("supervisor MB", rss(ours.pid) / 1e6)
            found = streams.hold(ours, options.streams)
            row.add("per stream KB", found["per_stream_bytes"] / 1e3)
            row.notes.setdefault("lost streams", []).append(found["lost"])
    row.measured = {"idle MB": row.values["worker idle MB"], "stream KB": row.values["per stream KB"]}
    return row


def ready(options: Options, row: Row) -> Row:
    """Seconds from starting `penstock serve` to /readyz answering 200."""
    with tempfile.TemporaryDirectory() as name:
        for number in range(options.rounds + 1):
            with gateway(Path(name, str(number)), "", 9, python=options.python) as ours:
                if number:  # the first one may still compile byte code
                    row.add("penstock", ours.ready)
    row.measured = {"s": row.values["penstock"]}
    return row


def in_turns(options: Options, row: Row, servers: list[Server], cost: Callable[[Server], float]) -> None:
    """Measure every server in each round; a failure voids the row of that server."""
    for number in range(options.rounds):
        for server in servers:
            if server.name in row.void:
                continue
            try:
                row.add(server.name, cost(server))
            except load.Void as fault:
                row.void[server.name] = str(fault)
                row.values.pop(server.name, None)
                options.say(f"  {row.key} {server.name}: void, {fault}")
            else:
                figure = row.values[server.name][-1]
                options.say(f"  {row.key} round {number + 1} {server.name}: {figure:.1f} {row.unit}")
            time.sleep(0.2)


def table() -> dict[str, tuple[Row, Callable[[Options, Row], Row]]]:
    """Every row by its short name, in the order of the budget."""
    rows = (
        (Row("request", "CPU per non-streamed request ÷ nginx", "≤ 4.0", "≤ 2.5", "µs"), _small),
        (Row("chunk", "CPU per streamed chunk ÷ nginx", "≤ 3.0", "≤ 2.0", "µs"), cpu_per_chunk),
        (
            Row("latency", "added latency at 200 req/s, p50 / p99", "≤ 1 / ≤ 3 ms", "≤ 0.4 / ≤ 1.5", "ms"),
            added_latency,
        ),
        (
            Row("memory", "worker idle / per open stream", "≤ 80 MB / ≤ 40 KB", "≤ 60 / ≤ 20", ""),
            memory,
        ),
        (Row("ready", "penstock serve to ready", "≤ 1.5 s", "≤ 0.8 s", "s"), ready),
        (Row("scaling", "two workers against one", "≥ 1.8 ×", "≥ 1.95 ×", "µs, req/s"), scaling),
        (Row("large", "100 KB bodies, CPU ÷ nginx", "≤ 5", "≤ 3", "µs"), _large),
    )
    return {row.key: (row, measure) for row, measure in rows}


def _small(options: Options, row: Row) -> Row:
    return cpu_per_request(options, 700, row)


def _large(options: Options, row: Row) -> Row:
    return cpu_per_request(options, 100 * 1024, row)
