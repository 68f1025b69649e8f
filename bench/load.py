"""Load from wrk: closed loop, one thread, and what it saw succeed."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

_SCRIPT = """
wrk.method = "POST"
local file = io.open(os.getenv("BENCH_BODY"), "rb")
wrk.body = file:read("*a")
file:close()
wrk.headers["Content-Type"] = "application/json"
wrk.headers["Authorization"] = os.getenv("BENCH_AUTHORIZATION")
function done(summary, latency, requests)
  local e = summary.errors
  io.write(string.format(
    '\\nRESULT {"requests":%d,"seconds":%.6f,"bytes":%d,"errors":%d,"p50_us":%d,"p99_us":%d}\\n',
    summary.requests, summary.duration / 1e6, summary.bytes,
    e.connect + e.read + e.write + e.status + e.timeout,
    latency:percentile(50), latency:percentile(99)))
end
"""


class Void(RuntimeError):
    """A measurement that must not be reported: the load generator saw failures."""


@dataclass(slots=True, frozen=True)
class Load:
    """One run of wrk: successes, seconds, bytes read, latencies in microseconds."""

    requests: int
    seconds: float
    bytes: int
    p50_us: int
    p99_us: int

    @property
    def rate(self) -> float:
        """Requests per second."""
        return self.requests / self.seconds


def chat_body(size: int, stream: bool = False) -> bytes:
    """A chat completion request of exactly `size` bytes."""
    question = {"role": "user", "content": ""}
    system = {"role": "system", "content": "You are a helpful assistant. Answer in one short paragraph."}
    document = {
        "model": "gpt-4o-mini",
        "messages": [system, question],
        "temperature": 0.7,
        "max_tokens": 200,
        "stream": stream,
    }
    room = size - len(json.dumps(document))
    question["content"] = ("lorem ipsum dolor sit amet " * (room // 27 + 1))[:room]
    return json.dumps(document).encode()


def wrk(
    url: str,
    key: str,
    body: bytes,
    *,
    seconds: float,
    connections: int = 32,
    cores: str = "1",
    more: str = "",
) -> Load:
    """Run wrk against `url`; `more` is added to its Lua. Raises `Void` when anything but success was seen."""
    with tempfile.TemporaryDirectory() as directory:
        script, payload = Path(directory, "load.lua"), Path(directory, "body")
        script.write_text(_SCRIPT + more)
        payload.write_bytes(body)
        pinned = ["taskset", "-c", cores] if cores else []
        command = [*pinned, "wrk", "-t1", f"-c{connections}", f"-d{seconds:.0f}s", "--timeout", "60s"]
        answer = subprocess.run(
            [*command, "-s", str(script), url],
            env={**os.environ, "BENCH_BODY": str(payload), "BENCH_AUTHORIZATION": f"Bearer {key}"},
            capture_output=True,
            text=True,
            check=True,
        )
    return _read(answer.stdout)


def _read(output: str) -> Load:
    line = next((line for line in output.splitlines() if line.startswith("RESULT ")), None)
    if line is None:
        raise Void(f"wrk gave no result: {output[-500:]}")
    result = json.loads(line[7:])
    errors = result.pop("errors")
    if errors or not result["requests"]:
        raise Void(f"{errors} of {result['requests']} requests failed")
    return Load(**result)


def together(
    urls: Sequence[str],
    key: str,
    body: bytes,
    seconds: float,
    *,
    cores: Sequence[str] = "01",
    connections: int = 32,
) -> list[Load]:
    """Run a generator for each URL at once, each on its own one of `cores`."""
    with ThreadPoolExecutor(len(urls)) as pool:
        runs = [
            pool.submit(wrk, url, key, body, seconds=seconds, connections=connections, cores=core)
            for core, url in zip(cores, urls, strict=False)
        ]
        return [run.result() for run in runs]
