"""Nothing secret shows anywhere: every error path is driven, then every output is searched."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.gateway import Gateway
from tests.e2e.provider import Provider
from tests.e2e.running import ROOT, until
from tests.e2e.test_secrets import Guarded, _Guard, program, swap

# One value for each kind of secret; the last word says where it came from.
CANARIES = {
    "provider key (environment)": "sk-canary-0d41-PROVIDERENV",
    "provider key (file)": "sk-canary-1e52-PROVIDERFILE",
    "provider key (command)": "sk-canary-2f63-PROVIDEREXEC",
    "what a command says beside it": "canary-3a74-EXECSTDERR",
    "argument of a command": "canary-4b85-EXECARGUMENT",
    "provider key (literal)": "sk-canary-5c96-PROVIDERLITERAL",
    "secret header (environment)": "canary-6da7-HEADERENV",
    "secret header (literal)": "canary-7eb8-HEADERLITERAL",
    "virtual key": "sk-ps-canary-8fc9-VIRTUALKEY",
    "virtual key (literal)": "sk-ps-canary-3b85-LITERALKEY",
    "unknown key": "sk-ps-canary-90da-UNKNOWNKEY",
    "admin token": "canary-a1eb-ADMINTOKEN-0123456789abcdef",
    "wrong admin token": "canary-b2fc-WRONGADMIN",
    "token": "eyJhbGciOiJub25lIn0.eyJjYW5hcnkiOiJjM2QwLVRPS0VOIn0.canary-c30d-TOKEN",
    "webhook secret": "canary-d41e-WEBHOOKSECRET",
    "webhook address": "canary-e52f-WEBHOOKPATH",
    "plugin option": "canary-f630-PLUGINOPTION",
    "prompt": "canary-0741-PROMPT",
    "answer": "canary-1852-ANSWER",
    "proxy password": "canary-2963-PROXY",
}
C = CANARIES


class Echoing(Guarded):
    """A provider that says back what it was sent, in every place it has."""

    def __init__(self) -> None:
        super().__init__()
        self.RequestHandlerClass = _Echo


class _Echo(_Guard):
    def do_POST(self) -> None:
        sent = self.rfile.read(int(self.headers["content-length"]))
        status = int(json.loads(sent).get("seed") or 200)
        said = json.dumps(dict(self.headers.items()))
        body = json.dumps({"error": {"message": f"not with {said}", "type": "x", "code": "y"}}).encode()
        self.send_response(status, "Said")
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        for name in ("www-authenticate", "x-request-headers", "location", "x-own"):
            self.send_header(name, said)
        self.end_headers()
        self.wfile.write(body)


def config(provider: str, echoing: str) -> str:
    return f"""
[observe]
level = "debug"

[secrets]
refresh = "1s"

[[keys]]
name = "canary"
key = "env:VIRTUAL_KEY"
tenant = "acme"

[[keys]]
name = "literal"
key = "{C["virtual key (literal)"]}"

[[keys]]
name = "narrow"
hash = "sha256:{"0" * 64}"

[backends.env]
kind = "openai"
base_url = "{provider}/v1"
api_key = "env:PROVIDER_ENV"
headers = {{ x-token = "env:HEADER_ENV", authorisation-copy = "{C["secret header (literal)"]}" }}
timeout = {{ connect = "2s", first = "1s", idle = "1s", total = "5s" }}

[backends.echoing]
kind = "openai"
base_url = "{echoing}/v1"
api_key = ["file:key", "exec:./give {C["argument of a command"]}", "{C["provider key (literal)"]}"]
headers = {{ x-token = "env:HEADER_ENV" }}

[backends.nowhere]
kind = "openai"
base_url = "http://127.0.0.1:9/v1"
api_key = "env:PROVIDER_ENV"

[backends.proxied]
kind = "openai"
base_url = "http://127.0.0.1:9/v1"
api_key = "env:PROVIDER_ENV"
proxy = "http://user:{C["proxy password"]}@127.0.0.1:9"

[models."*"]
targets = [ {{ backend = "env" }} ]
[models.echoed]
targets = [ {{ backend = "echoing" }} ]
[models.lost]
targets = [ {{ backend = "nowhere" }} ]
[models.proxied]
targets = [ {{ backend = "proxied" }} ]
[models.limited]
targets = [ {{ backend = "env" }} ]
[models.saved]
targets = [ {{ backend = "nowhere" }}, {{ backend = "echoing" }} ]
fallback = [ {{ backend = "env", model = "gpt-4o" }} ]

[[limits]]
scope = "model"
match = "limited"
requests = 1
per = "1h"

[[plugins]]
use = "tests.e2e.refusing_plugin:Refusing"
token = "env:PLUGIN_OPTION"

[[plugins]]
use = "plugins.webhook:Webhook"
url = "env:HOOK"
secret = "env:HOOK_SECRET"
"""


ENV = {
    "PROVIDER_ENV": C["provider key (environment)"],
    "HEADER_ENV": C["secret header (environment)"],
    "VIRTUAL_KEY": C["virtual key"],
    "PENSTOCK_ADMIN_TOKEN": C["admin token"],
    "PLUGIN_OPTION": C["plugin option"],
    "HOOK": f"http://127.0.0.1:9/{C['webhook address']}",
    "HOOK_SECRET": C["webhook secret"],
}


class World:
    """A gateway full of secrets, and all that came out of it."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self.said: list[tuple[str, bytes]] = []

    def post(self, what: str, document: Any, path: str = "/v1/chat/completions", **headers: str) -> int:
        """One call; the status, 0 where there was no answer."""
        key = headers.pop("key", C["virtual key"])
        try:
            status, got, body = self.gateway.post(document, path=path, key=key, **headers)
        except OSError:
            return 0
        except http.client.HTTPException:
            return 0
        self.said.append((what, json.dumps(got).encode() + body))
        return status

    def admin(self, path: str, token: str = "", method: str = "GET", body: bytes | None = None) -> int:
        """One request to the admin port."""
        headers = {"authorization": f"Bearer {token}"} if token else {}
        address = "127.0.0.1", self.gateway.admin_port
        with closing(http.client.HTTPConnection(*address, timeout=30)) as connection:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            said = json.dumps(answer.getheaders()).encode() + answer.read()
        self.said.append((f"admin {method} {path}", said))
        return answer.status

    def command(self, *arguments: str) -> None:
        """One command, whatever comes of it."""
        self.said.append((" ".join(arguments), run(self.gateway, *arguments)))


def run(gateway: Gateway, *arguments: str, environ: dict[str, str] | None = None) -> bytes:
    done = subprocess.run(
        [sys.executable, "-m", "gateway", *arguments, "-c", str(gateway.path)],
        cwd=ROOT,
        env={**os.environ, **(ENV if environ is None else environ)},
        capture_output=True,
        timeout=60,
        check=False,
    )
    return done.stdout + done.stderr


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    directory = tmp_path / "gw"
    directory.mkdir()
    swap(directory / "key", C["provider key (file)"])
    program(
        directory, f'echo "{C["provider key (command)"]}"; echo "{C["what a command says beside it"]}" >&2'
    )
    with (
        Provider(directory.parent, C["provider key (environment)"], "canary-provider") as provider,
        Echoing() as echoing,
        serving(echoing),
        Gateway(directory, config(provider.url, echoing.url), workers=2, env=ENV) as gateway,
    ):
        yield World(gateway)


class serving:
    """The echoing provider's thread."""

    def __init__(self, server: Guarded) -> None:
        import threading

        self._server = server
        self._thread = threading.Thread(target=server.serve_forever, daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._thread.join()


def document(model: str = "gpt-4o", **more: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": C["prompt"]}], **more}


FAULTS = [
    "status=400", "status=401", "status=403", "status=429", "status=500", "status=503", "close_first",
    "garbage", "garbage_after=2", "die_after=2", "die_after=2;how=rst", "stall_after=1", "delay=3",
    "no_usage", "no_done", "error_after=2", "bad_length=5", "gzip", "http10", "big=100000",
]  # fmt: skip


def drive_errors(world: World) -> None:
    """Every way in which a call can end."""
    for stream in (False, True):
        for fault in FAULTS:
            world.post(fault, document(f"fault;{fault}", stream=stream))
        for model in ("lost", "proxied", "saved", "limited", "limited", "limited"):
            world.post(model, document(model, stream=stream))
        for status in (200, 400, 401, 403, 404, 429, 500):
            world.post(f"echoed {status}", document("echoed", seed=status, stream=stream))
    keys = (C["unknown key"], C["token"], C["unknown key"] + "\x7f", "Bearer " + C["virtual key"], "")
    for key in keys:
        assert world.post("a bad key", document(), key=key) in (0, 400, 401)
    for body in (b"{", b"[]", b"\xff" + C["prompt"].encode(), C["prompt"].encode() * 100, b'{"model": 5}'):
        world.post("a bad body", body)
    for path in ("/v1/embeddings", "/v1/nothing", "/v1/responses", "/v1/files", "/v1/models/nothing"):
        world.post(path, document(), path=path)
    for how in ("exception", "policy", "exit"):
        world.post(how, document(), x_break=how)
    until_alive(world)
    world.post("kill", document(stream=True), x_break="kill")
    until_alive(world)
    # The deadlines for this backend are short, and the machine may stand still for longer.
    good = {"x_penstock_session": "s", "x_penstock_tags": "a,b"}
    until("a good call", lambda: world.post("a good call", document(), **good) == 200)
    trace = {"traceparent": f"00-{'1' * 32}-{'2' * 16}-01"}
    until("a traced call", lambda: world.post("a traced call", document(), **trace) == 200)


def until_alive(world: World) -> None:
    until("all workers serve", world.gateway.ready)


def spoil_the_configuration(world: World) -> None:
    """Make it faulty in several ways, and good again."""
    gateway = world.gateway
    good = gateway.path.read_text().partition("[observe]")[2]
    for bad in (
        f'[backends.x]\nkind = "openai"\nbase_url = "https://u:{C["proxy password"]}@h/v1"\n',
        f'[auth]\nmode = "open"\n[observe]\nlevl = "{C["prompt"]}"\n',
        f"[observe\nx = '{C['provider key (literal)']}'\n",
        f'[state]\nshared = "redis://:{C["proxy password"]}@/x y"\n',
        f'[[keys]]\nname = "k"\nkey = "{C["virtual key"]}\\n"\n',
    ):
        gateway.write(bad)
        gateway.signal(signal.SIGHUP)
        until("it is refused", lambda: "refused" in gateway.admin("/readyz")[1])
        world.admin("/readyz")
        for command in (("check",), ("check", "--json"), ("explain",), ("usage",)):
            world.command(*command)
        gateway.write("[observe]" + good)
        gateway.signal(signal.SIGHUP)
        until("it is taken", lambda: "refused" not in gateway.admin("/readyz")[1])
    swap(gateway.directory / "key", "")
    until("an empty file is refused", lambda: "is empty" in gateway.admin("/readyz")[1])
    swap(gateway.directory / "key", C["provider key (file)"])
    until("it is taken", lambda: "refused" not in gateway.admin("/readyz")[1])
    text = f'echo "{C["provider key (command)"]}"; echo "{C["what a command says beside it"]}"; exit 1'
    program(gateway.directory, text)
    until("the command fails", lambda: "stale" in gateway.admin("/readyz")[1])
    world.admin("/readyz")


ADMIN = (
    "/", "/healthz", "/readyz", "/metrics", "/nothing", "/admin/v1", "/admin/v1/openapi.json",
    *(f"/admin/v1/{name}" for name in (
        "config", "config/history", "config/diff", "keys", "tenants", "limits", "usage", "audit", "status",
        "whoami", "models", "backends", "policies",
    )),
)  # fmt: skip


def ask_the_admin_port(world: World) -> None:
    """Every answer, to everybody."""
    for path in ADMIN:
        for token in ("", C["admin token"], C["wrong admin token"], C["virtual key"]):
            world.admin(path, token)
    for body in (b"{", json.dumps({"name": "made", "key": C["virtual key"]}).encode()):
        for method in ("POST", "PUT", "PATCH", "DELETE"):
            world.admin("/admin/v1/keys", C["wrong admin token"], method, body)
    world.admin("/admin/v1/config/validate", C["admin token"], "POST", b'{"text": "[server"}')


COMMANDS = (
    ("check",), ("check", "--json"), ("explain",), ("explain", "--json"), ("keys", "list"),
    ("keys", "list", "--json"), ("usage",), ("usage", "--json", "--by", "key,model,day"), ("audit", "list"),
    ("audit", "verify"), ("audit", "export"), ("captures", "list"), ("captures", "export"),
    ("config", "history"), ("config", "show"), ("config", "diff"), ("tenants", "list"), ("limits", "list"),
    ("nonsense",),
)  # fmt: skip


def run_every_command(world: World) -> None:
    """Whatever they say."""
    for command in COMMANDS:
        world.command(*command)
    request = world.gateway.directory.parent / "request.json"
    request.write_text(json.dumps(document("echoed", temperature=1)))
    world.command("explain", str(request), "--key", "canary")
    world.said.append(("explain without secrets", run(world.gateway, "explain", str(request), environ={})))
    world.said.append(("check without secrets", run(world.gateway, "check", environ={})))


# What may hold a secret, because it is where that secret is kept.
LITERAL = {
    "provider key (literal)",
    "secret header (literal)",
    "virtual key (literal)",
    "argument of a command",
    "proxy password",
}
HOMES = {
    "gateway.toml": LITERAL,
    "draft.toml": set(CANARIES),
    "key": {"provider key (file)"},
    "give": {"provider key (command)", "what a command says beside it"},
    "admin.token": {"admin token"},
}


def shown(data: bytes) -> list[str]:
    return [name for name, value in CANARIES.items() if value.encode() in data]


def in_files(directory: Path) -> list[tuple[str, set[str]]]:
    """Files that hold what they may not."""
    found = []
    for path in directory.rglob("*"):
        with suppress(OSError):
            names = set(shown(path.read_bytes())) if path.is_file() else set()
            if names - HOMES.get(path.name, set()):
                found.append((path.name, names))
    return found


def test_nothing_secret_shows_in_any_answer_command_log_file_or_process_list(world: World) -> None:
    drive_errors(world)
    spoil_the_configuration(world)
    ask_the_admin_port(world)
    run_every_command(world)
    assert len(world.said) > 150
    # The caller's own words may come back to the caller, and its own key to nobody.
    found = [(what, names) for what, said in world.said if (names := set(shown(said)) - {"prompt", "answer"})]
    assert found == []

    until_alive(world)
    assert in_files(world.gateway.directory) == []
    said = world.gateway.output()
    assert '"level":"debug"' in said or '"level":"info"' in said
    assert "a stage failed" in said and "Traceback" in said, "the paths were driven"
    pids = world.gateway.worker_pids()
    assert len(pids) == 2
    for pid in pids:
        assert shown(Path(f"/proc/{pid}/cmdline").read_bytes()) == []
        assert shown(Path(f"/proc/{pid}/environ").read_bytes()) == []
    assert shown(Path(f"/proc/{world.gateway.process.pid}/cmdline").read_bytes()) == []


@pytest.mark.parametrize(
    "state",
    [
        'shared = "redis://user:canary-REDIS-PASSWORD@127.0.0.1:9/0"',
        'shared = "rediss://:canary-REDIS-PASSWORD@127.0.0.1:9/0"',
        'ledger = "postgresql://user:canary-PG-PASSWORD@127.0.0.1:9/db"',
        'ledger = "postgresql://user:canary-PG-PASSWORD@127.0.0.1:port/db"',
        'shared = "redis//user:canary-REDIS-PASSWORD@127.0.0.1:9/0"',
    ],
    ids=["redis", "rediss", "postgresql", "a port that is none", "an address that is none"],
)
def test_passwords_of_stores_do_not_show_where_the_store_is_away_or_its_address_wrong(
    tmp_path: Path, state: str
) -> None:
    with Gateway(tmp_path / "gw", f"[state]\n{state}\n", ready=False) as gateway:
        until("it serves or has given up", lambda: not gateway.alive or gateway.ready(), 60)
        for command in (("check",), ("check", "--json"), ("explain", "--json"), ("usage",), ("keys", "list")):
            assert b"PASSWORD" not in run(gateway, *command)
        if gateway.alive:
            for path in ("/", "/readyz", "/metrics"):
                assert "PASSWORD" not in gateway.admin(path)[1]
            for pid in gateway.worker_pids():
                assert b"PASSWORD" not in Path(f"/proc/{pid}/environ").read_bytes()
        gateway.stop()
        assert "PASSWORD" not in gateway.output()
