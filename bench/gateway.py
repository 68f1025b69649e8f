"""The gateway under test: every default policy on, started as its operator would."""

from __future__ import annotations

import hashlib
import os
import sys
from pathlib import Path

from bench.process import Server, free_port, rss, tree

ROOT = Path(__file__).resolve().parent.parent
KEY = "sk-penstock-bench-0123456789abcdef0123456789abcdef"

_CONFIG = """
[server]
listen = "127.0.0.1:{port}"
admin = "127.0.0.1:{admin}"
workers = {workers}
data_dir = "data"

[backends.provider]
kind = "openai"
base_url = "http://127.0.0.1:{upstream}/v1"
api_key = "env:BENCH_PROVIDER_KEY"
connections = 4096

[models."gpt-*"]
targets = [ {{ backend = "provider" }} ]
"""
# Limits high enough never to refuse: each is still taken, leased and settled for every call.
_RULES = f"""
[[keys]]
name = "bench"
hash = "sha256:{hashlib.sha256(KEY.encode()).hexdigest()}"
tenant = "acme"
team = "search"
user = "bot"
models = ["gpt-*"]

[[limits]]
scope = "global"
requests = 1_000_000_000
per = "1m"

[[limits]]
scope = "key"
tokens = 1_000_000_000_000
per = "1m"

[[limits]]
scope = "key"
usd = 1_000_000_000
per = "calendar month"
"""

POLICIES = "key auth, model access, request + token + money limits, ledger, metrics, call log to a file"


def gateway(
    directory: Path,
    cores: str,
    upstream_port: int,
    *,
    name: str = "penstock",
    workers: int = 1,
    python: str = sys.executable,
    rules: str = _RULES,
) -> Server:
    """Start `penstock serve` in front of an upstream; returns when it is ready. `rules`: keys and limits."""
    home = directory / name
    home.mkdir(parents=True, exist_ok=True)
    port, admin = free_port(), free_port()
    config = home / "gateway.toml"
    head = _CONFIG.format(port=port, admin=admin, workers=workers, upstream=upstream_port)
    config.write_text(head + rules)
    server = Server(
        name,
        [python, "-m", "gateway", "serve", "-c", str(config)],
        port,
        cores=cores,
        cwd=home,  # python -m looks there first
        env={
            "BENCH_PROVIDER_KEY": "sk-provider-bench",
            # BENCH_PATH: another tree, or what is to be imported before this one
            "PYTHONPATH": os.pathsep.join(filter(None, (os.environ.get("BENCH_PATH"), str(ROOT)))),
        },
        log=home / "out.log",
    )
    server.admin = admin
    try:
        server.wait_ready(f"http://127.0.0.1:{admin}/readyz")
    except BaseException:
        server.stop()
        raise
    return server


def workers_of(server: Server) -> list[int]:
    """The worker processes: those below the supervisor that serve, told from helpers by their size."""
    return [pid for pid in tree(server.pid)[1:] if rss(pid) > 16 << 20]
