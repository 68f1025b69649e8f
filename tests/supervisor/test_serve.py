"""The appliance as processes: started, killed, drained, reloaded. Everything here is real."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest
import trustme

from tests.e2e.gateway import KEY, Gateway
from tests.e2e.running import ROOT, Running, free_ports, until


def chat(model="gpt-4o-mini", **more):
    return {"model": model, "messages": [{"role": "user", "content": "Hello"}], **more}


class Stream:
    """A streamed call that is under way: its first event has arrived."""

    def __init__(self, gateway: Gateway, model: str) -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=30)
        headers = {"content-type": "application/json", "authorization": f"Bearer {KEY}"}
        body = json.dumps(chat(model, stream=True))
        self.connection.request("POST", "/v1/chat/completions", body, headers)
        self.answer = self.connection.getresponse()
        assert self.answer.status == 200, self.answer.read()
        self.id = self.answer.getheader("x-request-id")
        self.first = self.answer.readline()

    def rest(self) -> bytes:
        """All that still comes; what a cut connection leaves."""
        try:
            return self.answer.read()
        except (http.client.IncompleteRead, ConnectionError) as error:
            return getattr(error, "partial", b"")
        finally:
            self.close()

    def close(self) -> None:
        self.answer.close()
        self.connection.close()


def outcomes(gateway):
    return sorted((row["id"], row["outcome"]) for row in gateway.rows())


# -- start


def test_without_a_file_the_echo_answers_and_the_first_key_is_printed_once(tmp_path):
    port, admin = free_ports(2)
    env = {"PENSTOCK_LISTEN": f"127.0.0.1:{port}", "PENSTOCK_ADMIN": f"127.0.0.1:{admin}"}
    command = ["sh", "-c", f"cd {tmp_path} && exec {sys.executable} -m gateway serve"]
    env["PYTHONPATH"] = str(ROOT)
    with Running(command, tmp_path / "first.log", env) as first:
        until("the key is printed", lambda: "Authorization" in first.output() or not first.alive)
        said = first.output()
        curl = re.search(r"  curl (?:.*\\\n)*.*\n", said)
        assert curl is not None, said
        done = subprocess.run(curl[0], shell=True, capture_output=True, check=True, timeout=60)
        answer = json.loads(done.stdout)
        assert answer["choices"][0]["message"]["content"]
        assert answer["usage"]["total_tokens"] > 0
        first.signal(signal.SIGTERM)
        assert first.wait() == 0
    shown = re.search(r"shown only now:\s+(\S+)", said)
    assert shown is not None
    secret = shown[1]
    for path in (tmp_path / "data").rglob("*"):
        assert not path.is_file() or secret.encode() not in path.read_bytes()
    with Running(command, tmp_path / "second.log", env) as second:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        until("it listens", lambda: listening(port))
        headers = {"authorization": f"Bearer {secret}", "content-type": "application/json"}
        connection.request("POST", "/chat/completions", json.dumps(chat()), headers)
        assert connection.getresponse().status == 200
        connection.close()
        assert "shown only now" not in second.output()


def listening(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_a_second_supervisor_on_the_same_data_is_refused_with_the_pid_of_the_first(serve):
    first = serve()
    port, admin = free_ports(2)
    more = {"PENSTOCK_LISTEN": f"127.0.0.1:{port}", "PENSTOCK_ADMIN": f"127.0.0.1:{admin}"}
    done = subprocess.run(
        [sys.executable, "-m", "gateway", "serve", "-c", str(first.path)],
        cwd=ROOT, env={**os.environ, **first.env, **more}, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 1
    assert f"in use by another penstock (pid {first.process.pid})" in done.stderr
    assert first.post(chat())[0] == 200


def test_a_port_in_use_is_refused_with_its_name(serve):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        gateway = serve(ready=False, env={"PENSTOCK_LISTEN": f"127.0.0.1:{taken.getsockname()[1]}"})
        assert gateway.wait() == 1
    assert "can't listen on server.listen" in gateway.output()


def test_a_file_that_is_no_ledger_is_refused_and_left_alone(serve, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "ledger.sqlite").write_bytes(b"my precious notes" * 1000)
    gateway = serve(ready=False)
    assert gateway.wait() == 1
    assert "not a database" in gateway.output()
    assert (tmp_path / "data" / "ledger.sqlite").read_bytes() == b"my precious notes" * 1000
    assert not gateway.worker_pids()


def test_a_unix_socket_is_served_and_removed(serve, tmp_path):
    path = tmp_path / "data.sock"
    gateway = serve(env={"PENSTOCK_LISTEN": f"unix:{path}"})
    client = http.client.HTTPConnection("localhost")
    client.sock = socket.socket(socket.AF_UNIX)
    client.sock.connect(str(path))
    client.request("GET", "/healthz")
    assert client.getresponse().status == 200
    client.close()
    gateway.signal(signal.SIGTERM)
    assert gateway.wait() == 0
    assert not path.exists()


def test_tls_is_served_and_a_renewed_certificate_is_taken(serve, config, tmp_path):
    authorities = [trustme.CA(), trustme.CA()]

    def renew(authority):
        leaf = authority.issue_cert("127.0.0.1")
        leaf.private_key_pem.write_to_path(str(tmp_path / "tls.key"))
        leaf.cert_chain_pems[0].write_to_path(str(tmp_path / "tls.crt"))

    def answered(authority):
        context = ssl.create_default_context()
        authority.configure_trust(context)
        client = http.client.HTTPSConnection("127.0.0.1", gateway.port, timeout=30, context=context)
        try:
            client.request("GET", "/healthz")
            return client.getresponse().status == 200
        except ssl.SSLError:
            return False
        finally:
            client.close()

    renew(authorities[0])
    gateway = serve(server='tls = { cert = "file:tls.crt", key = "file:tls.key" }')
    assert answered(authorities[0]) and not answered(authorities[1])
    renew(authorities[1])
    until("the new certificate is shown", lambda: answered(authorities[1]))


# -- death of a worker


def test_a_killed_worker_is_replaced_its_calls_are_booked_as_abandoned_and_nobody_else_notices(serve):
    gateway = serve(workers=2)
    streams = [Stream(gateway, "fault;tokens=100;interval=0.02") for _ in range(8)]
    before = gateway.worker_pids()
    os.kill(before[0], signal.SIGKILL)
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: gateway.post(chat())[0], range(40)))
        ends = list(pool.map(Stream.rest, streams))
    assert answers == [200] * 40
    whole = {stream.id for stream, end in zip(streams, ends, strict=True) if b"[DONE]" in end}
    until("a row for every call", lambda: len(gateway.rows()) >= 48)
    rows = {row["id"]: row["outcome"] for row in gateway.rows()}
    assert len(rows) == len(gateway.rows()) == 48
    for stream in streams:
        assert rows[stream.id] == ("ok" if stream.id in whole else "abandoned")
    until("it is replaced", lambda: len(gateway.worker_pids()) == 2 and gateway.ready())
    assert before[1] in gateway.worker_pids() and before[0] not in gateway.worker_pids()
    assert "penstock_worker_restarts_total 1.0" in gateway.admin("/metrics")[1]


def test_workers_killed_again_and_again_under_load_leave_one_row_per_call(serve):
    gateway = serve(workers=2)
    stop = threading.Event()
    seen: list[str] = []

    def client() -> None:
        while not stop.is_set():
            try:
                status, headers, _ = gateway.post(chat())
            except (OSError, http.client.HTTPException):
                continue
            assert status == 200
            seen.append(headers["x-request-id"])

    with ThreadPoolExecutor(4) as pool:
        clients = [pool.submit(client) for _ in range(4)]
        for _ in range(3):
            count = len(seen)
            until("calls are answered", lambda count=count: len(seen) > count + 20)
            os.kill(gateway.worker_pids()[0], signal.SIGKILL)
            until("it is replaced", lambda: len(gateway.worker_pids()) == 2)
        stop.set()
        for one in clients:
            one.result()
    gateway.signal(signal.SIGTERM)
    assert gateway.wait() == 0
    rows = gateway.rows()
    assert len({row["id"] for row in rows}) == len(rows)
    assert set(seen) <= {row["id"] for row in rows}
    # A worker killed between an answer's last byte and its record leaves a call that looks abandoned.
    uncertain = {row["id"] for row in rows if row["outcome"] == "abandoned"}
    assert len(uncertain & set(seen)) <= 3
    assert {row["outcome"] for row in rows} <= {"ok", "abandoned", "client_gone"}
    assert not list((gateway.directory / "data" / "journal").iterdir())


# -- death of the supervisor


def test_a_killed_supervisor_is_followed_by_another_at_once_and_no_call_is_lost_or_doubled(serve):
    gateway = serve(workers=2)
    stream = Stream(gateway, "fault;tokens=60;interval=0.02")
    before = [gateway.post(chat())[1]["x-request-id"] for _ in range(20)]
    gateway.process.kill()
    gateway.process.wait()
    gateway.start()  # on the same ports, while the old workers still drain
    gateway.wait_ready()
    after = [gateway.post(chat())[1]["x-request-id"] for _ in range(5)]
    assert b"[DONE]" in stream.rest()
    ids = {*before, *after, stream.id}
    until("every call is booked", lambda: len(gateway.rows()) >= len(ids))
    until("the old journals are gone", lambda: len(journals(gateway)) == 2)
    assert outcomes(gateway) == sorted((call, "ok") for call in ids)


def journals(gateway):
    return list((gateway.directory / "data" / "journal").iterdir())


def test_when_all_processes_are_killed_the_next_start_books_what_they_had_under_way(serve):
    gateway = serve()
    streams = [Stream(gateway, "fault;stall_after=2") for _ in range(3)]
    done = gateway.post(chat())[1]["x-request-id"]
    pids = gateway.worker_pids()
    gateway.process.kill()
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    gateway.process.wait()
    for stream in streams:
        stream.rest()
    gateway.start()
    gateway.wait_ready()  # before the journals of those that were killed are read to their end
    until("every call is booked", lambda: len(gateway.rows()) >= 4)
    rows = {row["id"]: row for row in gateway.rows()}
    assert {call: row["outcome"] for call, row in rows.items()} == {
        done: "ok", **{stream.id: "abandoned" for stream in streams}
    }  # fmt: skip
    assert rows[streams[0].id]["key_name"] == "caller"
    assert rows[streams[0].id]["usage_source"] == "unknown"


# -- the end


def test_sigterm_turns_readiness_off_finishes_running_streams_and_exits_0(serve):
    gateway = serve(workers=2)
    stream = Stream(gateway, "fault;tokens=250;interval=0.02")  # what drains is looked at meanwhile
    idle = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=30)
    idle.request("GET", "/healthz")
    idle.getresponse().read()
    gateway.signal(signal.SIGTERM)
    until("readiness is off", lambda: gateway.admin("/readyz")[0] == 503)
    until("nobody listens", lambda: not listening(gateway.port))
    assert idle.sock.recv(1) == b""  # an idle connection is not waited for
    idle.close()
    assert b"[DONE]" in stream.rest()
    assert gateway.wait() == 0
    assert outcomes(gateway) == [(stream.id, "ok")]


def test_streams_that_outlast_the_drain_time_get_an_error_event(serve):
    gateway = serve(server='bounds = { drain = "200ms" }')
    stream = Stream(gateway, "fault;endless;interval=0.02")
    gateway.signal(signal.SIGTERM)
    end = stream.rest()
    assert b'"error"' in end and b"gateway_" in end
    assert gateway.wait() == 0
    assert [row["outcome"] for row in gateway.rows()] == ["truncated"]


def test_a_second_sigterm_ends_at_once_and_books_what_was_under_way(serve):
    gateway = serve()
    stream = Stream(gateway, "fault;endless;interval=0.02")
    gateway.signal(signal.SIGTERM)
    until("it drains", lambda: not listening(gateway.port))
    gateway.signal(signal.SIGTERM)
    assert gateway.wait(30) == 1  # the drain would take ten minutes
    stream.rest()
    assert outcomes(gateway) == [(stream.id, "abandoned")]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_workers_leave_it_to_the_supervisor_when_to_end(serve, number):
    gateway = serve()
    pids = gateway.worker_pids()
    os.kill(pids[0], number)
    assert gateway.post(chat())[0] == 200
    assert gateway.worker_pids() == pids


# -- reload


def revision(gateway):
    return json.loads(gateway.admin("/readyz")[1])["revision"]


def test_a_changed_file_is_taken_and_running_calls_finish_on_the_old_revision(serve, config):
    gateway = serve(workers=2)
    old = revision(gateway)
    stream = Stream(gateway, "fault;tokens=40;interval=0.02")
    gateway.write(config + '[models.renamed]\ntargets = [{ backend = "main", model = "gpt-4o" }]\n')
    until("the new revision serves", lambda: revision(gateway) != old)
    until("every worker has it", lambda: serving(gateway) == {revision(gateway)})
    assert set(map(served, range(8), [gateway] * 8)) == {revision(gateway)}
    assert b"[DONE]" in stream.rest()
    rows = {row["id"]: row["revision"] for row in [gateway.row(stream.id)]}
    assert rows == {stream.id: old}
    assert json.loads(gateway.post(chat("renamed"))[2])["model"].startswith("gpt-4o")


def serving(gateway):
    """The revisions of all workers, as they have said themselves."""
    token = (gateway.directory / "data" / "admin.token").read_text().strip()
    with closing(http.client.HTTPConnection("127.0.0.1", gateway.admin_port, timeout=30)) as connection:
        connection.request("GET", "/admin/v1/status", headers={"authorization": f"Bearer {token}"})
        running = json.loads(connection.getresponse().read())["running"]
    return {each["revision"] for each in running}


def served(_, gateway):
    return gateway.post(chat())[1]["x-penstock-revision"]


def test_a_faulty_file_changes_nothing_and_is_reported_until_it_is_mended(serve, config):
    gateway = serve()
    old = revision(gateway)
    gateway.write(config.replace("[backends.main]", "[backends.main]\nkindd = 1"))
    until("it is reported", lambda: "kindd" in gateway.admin("/readyz")[1])
    assert gateway.admin("/readyz")[0] == 200 and revision(gateway) == old
    until("it is counted", lambda: "reload_successful 0.0" in gateway.admin("/metrics")[1])
    assert "kindd" in gateway.output()
    assert gateway.post(chat())[0] == 200
    gateway.write(config)
    until("it is mended", lambda: "kindd" not in gateway.admin("/readyz")[1])
    until("it is counted", lambda: "reload_successful 1.0" in gateway.admin("/metrics")[1])


def test_sighup_reloads_and_more_workers_are_started_or_dismissed(serve, config):
    gateway = serve()
    gateway.workers = 2
    gateway.write(config)
    gateway.signal(signal.SIGHUP)
    until("there are two", lambda: len(gateway.worker_pids()) == 2)
    gateway.workers = 1
    gateway.write(config)
    until("there is one", lambda: len(gateway.worker_pids()) == 1)
    assert gateway.post(chat())[0] == 200


def test_a_plugin_that_cannot_be_loaded_keeps_the_old_revision(serve, config):
    gateway = serve()
    old = revision(gateway)
    gateway.write(config + '[[plugins]]\nuse = "no_such_module:Stage"\n')
    until("it is reported", lambda: "no_such_module" in gateway.admin("/readyz")[1])
    until("the old one serves", lambda: revision(gateway) == old)
    assert gateway.post(chat())[0] == 200


# -- keys


def test_keys_made_and_revoked_by_the_command_line_take_effect_on_every_worker(serve):
    gateway = serve(workers=2)
    secret = json.loads(gateway.command("keys", "add", "fresh", "--json"))["key"]
    until("it is known everywhere", lambda: {gateway.post(chat(), key=secret)[0] for _ in range(8)} == {200})
    gateway.command("keys", "revoke", "fresh")
    until(
        "it is revoked everywhere", lambda: {gateway.post(chat(), key=secret)[0] for _ in range(8)} == {401}
    )
