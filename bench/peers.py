"""Other gateways, measured beside ours when they are installed; absent ones are named as such."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from bench.gateway import KEY
from bench.process import Server, free_port

_LITELLM = """
model_list:
  - model_name: gpt-4o-mini
    litellm_params:
      model: openai/gpt-4o-mini
      api_base: http://127.0.0.1:{upstream}/v1
      api_key: sk-provider-bench
general_settings:
  master_key: {key}
"""


def _litellm(directory: Path, cores: str, upstream: int) -> Server | None:
    """LiteLLM's proxy, one worker, master key only."""
    command = shutil.which("litellm")
    if command is None:
        return None
    home = directory / "litellm"
    home.mkdir(exist_ok=True)
    config = home / "config.yaml"
    config.write_text(_LITELLM.format(upstream=upstream, key=KEY))
    port = free_port()
    arguments = [command, "--config", str(config), "--host", "127.0.0.1", "--port", str(port)]
    server = Server("litellm", arguments, port, cores=cores, cwd=home, log=home / "out.log")
    server.wait_ready(f"http://127.0.0.1:{port}/health/liveliness", limit=120)
    return server


KNOWN: dict[str, Callable[[Path, str, int], Server | None]] = {"litellm": _litellm}


def installed() -> dict[str, str]:
    """Whether each known peer is installed."""
    return {name: "installed" if shutil.which(name) else "not installed" for name in KNOWN}


def start(directory: Path, cores: str, upstream: int) -> list[Server]:
    """Start every installed peer."""
    servers = [starter(directory, cores, upstream) for starter in KNOWN.values()]
    return [server for server in servers if server]
