"""What is compared with: nginx, as upstream with one reply and as the proxy, and a bare proxy in Python."""

from __future__ import annotations

import sys
from pathlib import Path

from bench.process import Server, free_port

ROOT = Path(__file__).resolve().parent.parent

REPLY_SIZE = 600

_HEAD = """
worker_processes {workers};
daemon off;
pid {dir}/nginx.pid;
error_log {dir}/error.log crit;
events {{ worker_connections 8192; }}
http {{
    access_log off;
    keepalive_timeout 600s;
    keepalive_requests 1000000000;
    client_body_temp_path {dir}/body;
    proxy_temp_path {dir}/proxy;
    fastcgi_temp_path {dir}/fastcgi;
    uwsgi_temp_path {dir}/uwsgi;
    scgi_temp_path {dir}/scgi;
    client_max_body_size 64m;
    client_body_buffer_size 256k;
"""

_UPSTREAM = """
    server {{
        listen 127.0.0.1:{port} backlog=8192;
        location / {{ default_type application/json; return 200 '{reply}'; }}
    }}
}}
"""

_PROXY = """
    upstream provider {{
        server 127.0.0.1:{upstream};
        keepalive 2048;
        keepalive_requests 1000000000;
    }}
    server {{
        listen 127.0.0.1:{port} backlog=8192;
        location / {{
            proxy_pass http://provider;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_buffering {buffering};
            proxy_read_timeout 600s;
        }}
    }}
}}
"""


def reply() -> str:
    """A chat completion of exactly `REPLY_SIZE` bytes."""
    text = (
        '{"id":"chatcmpl-bench0000000000000000000000","object":"chat.completion","created":1730000000,'
        '"model":"gpt-4o-mini-2024-07-18","choices":[{"index":0,"message":{"role":"assistant","content":'
        '"%s","refusal":null},"logprobs":null,"finish_reason":"stop"}],"usage":{"prompt_tokens":150,'
        '"completion_tokens":40,"total_tokens":190,"prompt_tokens_details":{"cached_tokens":0},'
        '"completion_tokens_details":{"reasoning_tokens":0}},"system_fingerprint":"fp_bench"}'
    )
    return text % ("word " * 40)[: REPLY_SIZE - len(text) + 2]


def upstream(directory: Path, cores: str, workers: int = 1) -> Server:
    """The fixed-reply provider."""
    return _start("upstream", directory, cores, _UPSTREAM, reply=reply(), workers=workers)


def proxy(
    directory: Path, cores: str, upstream_port: int, buffering: bool = True, workers: int = 1
) -> Server:
    """The reference: nginx `proxy_pass` with keep-alive on both sides."""
    name = "nginx" if buffering else "nginx-streams"
    setting = "on" if buffering else "off"
    return _start(name, directory, cores, _PROXY, upstream=upstream_port, buffering=setting, workers=workers)


def bare(directory: Path, cores: str, upstream_port: int, python: str = sys.executable) -> Server:
    """The least a proxy in Python costs, see `bench.bare`."""
    port = free_port()
    command = [python, "-m", "bench.bare", str(port), str(upstream_port)]
    server = Server("bare", command, port, cores=cores, cwd=ROOT, log=directory / "bare.log")
    server.wait_ready(f"http://127.0.0.1:{port}/")
    return server


def _start(name: str, directory: Path, cores: str, body: str, **values: object) -> Server:
    home = directory / name
    home.mkdir(parents=True, exist_ok=True)
    port = free_port()
    config = home / "nginx.conf"
    config.write_text((_HEAD + body).format(dir=home, port=port, **values))
    command = ["nginx", "-p", str(home), "-c", str(config), "-e", str(home / "error.log")]
    server = Server(name, command, port, cores=cores, log=home / "out.log")
    probe = "/__ready" if body is _PROXY else "/"
    _wait(server, probe)
    return server


def _wait(server: Server, path: str) -> None:
    try:
        server.wait_ready(f"http://127.0.0.1:{server.port}{path}")
    except BaseException:
        server.stop()
        raise
