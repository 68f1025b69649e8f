"""Where a worker's CPU goes, under the load of `python -m bench`.

    python -m bench.profile                    # Python functions, by their own time
    python -m bench.profile --native           # what the kernel and the C code take (perf)
    python -m bench.profile --sample           # the same by sampling, where py-spy is installed
    python -m bench.profile --stream           # 100-chunk streams in place of whole replies

The Python view runs the worker under cProfile: it names functions and counts calls, but makes
small functions look dearer than they are. The native view samples and distorts nothing; it knows
Python functions by name on 3.12 and later (`-X perf`).
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

from bench import load, reference, streams
from bench.gateway import KEY, gateway, workers_of
from bench.process import Server
from bench.row import CHAT
from bench.rows import LOAD_CORE, SERVER_CORE

# Loaded by the interpreter's start-up (PYTHONPATH): every Python process of the gateway that is
# asked to end writes its profile; the worker's is the one with the data plane in it.
_SITE = """
import atexit, cProfile, os
profile = cProfile.Profile()
profile.enable()
def _save():
    profile.disable()
    profile.dump_stats(os.environ["BENCH_PROFILES"] + f"/{os.getpid()}.prof")
atexit.register(_save)
"""


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.profile", description=__doc__)
    parser.add_argument("--native", action="store_true", help="sample with perf")
    parser.add_argument("--sample", action="store_true", help="sample with py-spy")
    parser.add_argument("--stream", action="store_true")
    parser.add_argument("--size", type=int, default=700, help="bytes of the request body")
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--lines", type=int, default=45)
    parser.add_argument("--supervisor", action="store_true", help="the supervisor in place of the worker")
    parser.add_argument("--python", default=sys.executable)
    return parser.parse_args()


def drive(server: Server, given: argparse.Namespace, seconds: float) -> load.Load:
    """The load of the budget's rows."""
    body = load.chat_body(given.size, stream=given.stream)
    connections = 64 if given.stream else 32
    url = f"http://127.0.0.1:{server.port}{CHAT}"
    return load.wrk(url, KEY, body, seconds=seconds, connections=connections, cores=LOAD_CORE)


def native(server: Server, given: argparse.Namespace, directory: Path) -> None:
    """Sample one process with perf while the load runs, and print the heaviest symbols."""
    pid = server.pid if given.supervisor else workers_of(server)[0]
    data = str(directory / "perf.data")
    drive(server, given, 2)
    command = ["perf", "record", "-q", "-F", "999", "-e", "cpu-clock", "-g", "-p", str(pid), "-o", data]
    with subprocess.Popen(command) as recorder:
        result = drive(server, given, given.seconds)
        recorder.terminate()
    print(f"{result.requests} requests, {result.rate:.0f} a second")
    report = ["perf", "report", "-i", data, "--stdio", "-g", "none"]
    for title, extra in (
        ("By object", ["--no-children", "--sort", "dso"]),
        ("Own time", ["--no-children", "--sort", "dso,symbol"]),
        ("With what it calls", ["--children", "--sort", "symbol"]),
    ):
        shown = subprocess.run([*report, *extra], capture_output=True, text=True, check=True).stdout
        lines = [line for line in shown.splitlines() if line.strip() and not line.startswith("#")]
        print(f"\n{title}\n" + "\n".join(lines[: given.lines]))


def sampled(server: Server, given: argparse.Namespace, directory: Path) -> None:
    """Sample one process with py-spy while the load runs; print lines and functions by their own time."""
    pid = server.pid if given.supervisor else workers_of(server)[0]
    stacks = directory / "stacks.txt"
    drive(server, given, 2)
    command = ["py-spy", "record", "--native", "-r", "500", "-d", f"{given.seconds:.0f}", "-f", "raw"]
    with subprocess.Popen(
        [*command, "-p", str(pid), "-o", str(stacks)], stdout=subprocess.DEVNULL
    ) as recorder:
        result = drive(server, given, given.seconds + 1)
        recorder.wait()
    print(f"{result.requests} requests, {result.rate:.0f} a second")
    for title, counts in tallies(stacks.read_text()).items():
        total = sum(counts.values()) if title.startswith("Own") else counts.most_common(1)[0][1]
        print(f"\n{title}")
        for name, samples in counts.most_common(given.lines):
            print(f"  {samples / total:6.1%}  {name}")


def tallies(stacks: str) -> dict[str, Counter[str]]:
    """Samples by function, from py-spy's raw form: "frame;frame;frame number" on each line."""
    own, function, whole = Counter[str](), Counter[str](), Counter[str]()
    for line in stacks.splitlines():
        stack, _, number = line.rpartition(" ")
        frames = stack.split(";")
        python = [re.sub(r":\d+\)$", ")", frame) for frame in frames if ".py:" in frame]
        own[frames[-1]] += int(number)
        function[python[-1] if python else "no Python"] += int(number)
        for frame in set(python):
            whole[frame] += int(number)
    return {
        "Own time of Python functions, with the C code they call": function,
        "Own time of lines and C functions": own,
        "Python functions with all that they call": whole,
    }


def python_view(directory: Path, given: argparse.Namespace) -> None:
    """Print the profile of the process that did most of the forwarding."""
    import pstats

    found = [pstats.Stats(str(path)) for path in directory.glob("*.prof")]
    if not found:
        raise SystemExit("no process left a profile: did the worker end by a signal?")

    def forwarded(stats: pstats.Stats) -> float:
        table = stats.stats  # type: ignore[attr-defined]
        return float(sum(entry[2] for (file, _, _), entry in table.items() if "/gateway/front/" in file))

    found.sort(key=forwarded, reverse=not given.supervisor)
    for order in ("tottime", "cumtime"):
        found[0].sort_stats(order).print_stats(given.lines)


def main() -> None:
    """Start everything, load it, print where the time went."""
    given = arguments()
    tool = "perf" if given.native else "py-spy" if given.sample else "wrk"
    if shutil.which(tool) is None:
        raise SystemExit(f"{tool} is not on the PATH")
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        if given.stream:
            provider = streams.stream_provider(directory, LOAD_CORE, chunks=100, pace=0.01)
        else:
            provider = reference.upstream(directory, LOAD_CORE)
        stack.enter_context(provider)
        if given.native:
            flags = {"PYTHONPERFSUPPORT": "1"}
        elif given.sample:
            flags = {}
        else:
            (directory / "sitecustomize.py").write_text(_SITE)
            flags = {"BENCH_PROFILES": str(directory), "BENCH_PATH": str(directory)}
        os.environ |= flags
        server = stack.enter_context(gateway(directory, SERVER_CORE, provider.port, python=given.python))
        if given.native or given.sample:
            (native if given.native else sampled)(server, given, directory)
            return
        result = drive(server, given, given.seconds)
        print(f"{result.requests} requests, {result.rate:.0f} a second, under the profiler")
        server.stop(30)
        python_view(directory, given)


if __name__ == "__main__":
    main()
