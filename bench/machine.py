"""What the figures were measured on."""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path
from typing import Any


def describe(python: str) -> dict[str, Any]:
    """Processor, memory, kernel, versions, the neighbours' load, the revision under test."""
    return {
        "processor": _field("/proc/cpuinfo", "model name"),
        "cores": os.cpu_count(),
        "memory": _field("/proc/meminfo", "MemTotal"),
        "kernel": platform.release(),
        "python": _output(python, "--version"),
        "hot_path": _output(python, "-c", "import gateway; print(gateway.uncompiled or 'compiled')"),
        "nginx": _output("nginx", "-v"),
        "wrk": _output("wrk", "-v").split(" [")[0],
        "revision": _output("git", "rev-parse", "--short", "HEAD"),
        "load_average_before": os.getloadavg(),
    }


def _field(path: str, name: str) -> str:
    for line in Path(path).read_text().splitlines():
        if line.startswith(name):
            return line.partition(":")[2].strip()
    return "unknown"


def _output(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        return "unknown"
    lines = (done.stdout + done.stderr).strip().splitlines()
    return lines[0] if lines else "unknown"
