"""The admin API of a gateway that runs: over sockets, with real workers behind it, killed in the middle."""

from __future__ import annotations

import json
import signal
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.core.audit import record_of, verify
from tests.e2e.gateway import Gateway
from tests.e2e.running import until
from tests.net.issuer import AUDIENCE, ISSUER, KeySetServer, token

TOKEN = "psa-e2e-canary-admin-token-0001"
ENV = {"PENSTOCK_ADMIN_TOKEN": TOKEN}
BASIC = """
[backends.e]
kind = "echo"

[[limits]]
name = "per-key"
scope = "key"
requests = 3
per = "1h"
"""
CHAT = {"model": "gpt-4o", "messages": [{"role": "user", "content": "hi"}]}


def admin(gateway: Gateway, bearer: str = TOKEN) -> httpx.Client:
    headers = {"authorization": f"Bearer {bearer}"} if bearer else {}
    base = f"http://127.0.0.1:{gateway.admin_port}/admin/v1"
    return httpx.Client(base_url=base, headers=headers, timeout=60, trust_env=False)


@pytest.fixture(scope="module")
def idp() -> Iterator[KeySetServer]:
    with KeySetServer("one") as running:
        yield running


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory, idp: KeySetServer) -> Iterator[Gateway]:
    """Tests use names of their own and leave its file alone."""
    jwt = f"""
[auth.jwt]
issuer = "{ISSUER}"
audience = "{AUDIENCE}"
jwks = "{idp.url}"
algorithms = ["RS256"]
claims = {{ tenant = "org", user = "sub", roles = "roles" }}
"""
    with Gateway(tmp_path_factory.mktemp("admin"), BASIC + jwt, workers=2, env=ENV) as running:
        with admin(running, token(roles=["viewer"]).decode()) as client:
            until("tokens are known", lambda: client.get("/whoami").status_code == 200)
        yield running


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Gateway]:
    with Gateway(tmp_path / "gw", BASIC, env=ENV) as running:
        yield running


def code(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


# ---------------------------------------------------------------------- what is changed holds


def test_a_change_is_with_all_workers_when_its_answer_comes(gateway: Gateway) -> None:
    with admin(gateway) as client:
        made = client.post("/keys", json={"name": "at-once", "models": ["gpt-4o"]})
        secret = made.json()["key"]
        assert {gateway.post(CHAT, key=secret)[0] for _ in range(3)} == {200}
        assert client.post("/limits/per-key/raises", json={"by": 2, "for": "1h"}).status_code == 201
        answers = [gateway.post(CHAT, key=secret) for _ in range(3)]
        assert [answer[0] for answer in answers] == [200, 200, 429]
        assert {answer[1]["x-ratelimit-limit-requests"] for answer in answers} == {"5"}
        assert b"limit per-key of 5 requests" in answers[2][2]
        narrowed = client.patch(
            "/keys/at-once", json={"models": ["other"]}, headers={"if-match": made.headers["etag"]}
        )
        assert narrowed.status_code == 200
        assert {gateway.post(CHAT, key=secret)[0] for _ in range(6)} == {403}
        second = client.post("/keys/at-once/rotate", json={"overlap": "0s"}).json()["key"]
        assert {gateway.post(CHAT, key=secret)[0] for _ in range(6)} == {401}
        assert {gateway.post(CHAT, key=second)[0] for _ in range(6)} == {403}
        assert client.delete("/keys/at-once").status_code == 200
        assert {gateway.post(CHAT, key=second)[0] for _ in range(6)} == {401}


def test_what_was_used_of_a_limit_is_shown(gateway: Gateway) -> None:
    with admin(gateway) as client:
        made = client.post("/keys", json={"name": "counted"}).json()
        assert gateway.post(CHAT, key=made["key"])[0] == 200

        def bucket() -> dict[str, Any]:
            found = client.get("/limits/per-key").json()["buckets"]["data"]
            return next((each for each in found if each["value"] == made["id"]), {})

        until("it is counted", lambda: bucket().get("used") == 1)
        found = bucket()
        assert found["used"] + found["leased"] + found["left"] == found["amount"]
        assert 0 < found["reset_s"] <= 3660


def test_of_two_who_write_at_once_over_sockets_one_wins(gateway: Gateway) -> None:
    with admin(gateway) as client, ThreadPoolExecutor(8) as pool:
        etag = client.post("/tenants", json={"name": "contended"}).headers["etag"]

        def write(n: int) -> int:
            body = {"description": str(n)}
            return client.patch("/tenants/contended", json=body, headers={"if-match": etag}).status_code

        assert Counter(pool.map(write, range(8))) == {200: 1, 412: 7}


def test_pages_stay_whole_while_keys_come(gateway: Gateway) -> None:
    with admin(gateway) as client:
        before = {client.post("/keys", json={"name": f"page-{n}"}).json()["id"] for n in range(12)}
        stop = threading.Event()

        def more() -> None:
            with admin(gateway) as other:
                for n in range(200):
                    if stop.is_set():
                        return
                    other.post("/keys", json={"name": f"meanwhile-{n}"})

        thread = threading.Thread(target=more)
        thread.start()
        seen: list[str] = []
        after = ""
        while True:
            page = client.get("/keys", params={"limit": 3, "after": after}).json()
            seen += [each["id"] for each in page["data"]]
            if page["next"] is None:
                break
            after = page["next"]
        stop.set()
        thread.join()
        assert len(seen) == len(set(seen)) and before <= set(seen)


# ---------------------------------------------------------------------- who may


def test_a_token_of_the_identity_provider_opens_what_its_roles_say(gateway: Gateway) -> None:
    with admin(gateway, token(roles=["viewer"], org="acme").decode()) as client:
        who = client.get("/whoami").json()
        assert (who["kind"], who["roles"], who["tenant"]) == ("jwt", ["viewer"], "acme")
        assert code(client.post("/keys", json={"name": "x"})) == (403, "policy_role_required")
    with admin(gateway, token(roles=["operator"], org="acme").decode()) as client:
        lasting = client.post("/keys", json={"name": "of-a-token"})
        assert code(lasting) == (403, "policy_beyond_own_rights")
        assert lasting.json()["error"]["param"] == "expires"
    with admin(gateway, token(roles=["caller"]).decode()) as client:
        assert code(client.get("/whoami")) == (401, "caller_unauthorized")


@pytest.mark.parametrize(
    "headers",
    [{"host": "evil"}, {"x-forwarded-for": "127.0.0.1"}, {"x-original-url": "/healthz"}, {"cookie": "a=b"}],
    ids=str,
)
def test_no_header_opens_the_door(gateway: Gateway, headers: dict[str, str]) -> None:
    with admin(gateway, "") as client:
        for path in ("/keys", "/config", "//keys", "/./keys", "/openapi.json/../keys"):
            answer = client.get(path, headers=headers)
            assert answer.status_code in (401, 404), path
            assert "access-control-allow-origin" not in answer.headers
            assert "set-cookie" not in answer.headers
    assert gateway.request("GET", "/admin/v1/keys", headers={"authorization": f"Bearer {TOKEN}"})[0] != 200


def test_refusals_are_counted_and_stand_in_the_audit_once(own: Gateway) -> None:
    """Once in the minute that begins with the first: nobody else is refused by this gateway."""
    with admin(own, "psa-canary-guessed-wrong") as guess, admin(own) as client:
        assert {guess.get("/keys").status_code for _ in range(20)} == {401}

        def noted() -> list[dict[str, Any]]:
            lines = client.get("/audit/export").text.splitlines()
            found = [json.loads(line) for line in lines]
            return [
                each
                for each in found
                if each["action"] == "admin.refuse" and each["target"] == "admin/GET /keys"
            ]

        until("it is noted", noted)
        assert len(noted()) == 1
        assert noted()[0]["actor"]["address"] == "127.0.0.1"
        assert noted()[0]["detail"] == {"code": "caller_unauthorized", "count": 1}
        assert "guessed" not in client.get("/audit/export").text
    metrics = own.admin("/metrics")[1]
    assert 'penstock_admin_refusals_total{code="caller_unauthorized"}' in metrics


def test_what_is_not_there_is_refused_in_the_same_shape(gateway: Gateway) -> None:
    with admin(gateway) as client:
        for method, path, status in (
            ("GET", "/prompts", 404),
            ("GET", "/rollouts", 404),
            ("PUT", "/keys", 405),
        ):
            answer = client.request(method, path)
            error = answer.json()["error"]
            assert (
                answer.status_code == status and error["request_id"] == answer.headers["x-request-id"] != ""
            )


# ---------------------------------------------------------------------- killed in the middle


def test_a_supervisor_killed_in_the_middle_leaves_all_of_a_change_or_nothing(own: Gateway) -> None:
    names = [f"key-{n}" for n in range(120)]
    answers: dict[str, httpx.Response] = {}

    def make(name: str) -> None:
        with admin(own) as client:
            while name not in answers:
                try:
                    answer = client.post("/keys", json={"name": name}, headers={"idempotency-key": name})
                except httpx.TransportError:
                    time.sleep(0.02)  # nobody listens between a kill and the next start
                    continue
                if answer.status_code == 201:
                    answers[name] = answer

    with ThreadPoolExecutor(6) as pool:
        done = [pool.submit(make, name) for name in names]
        for least in (10, 40, 70):
            until("some are made", lambda least=least: len(answers) >= least)  # type: ignore[misc]
            own.process.send_signal(signal.SIGKILL)
            own.process.wait()
            own.start()
            own.wait_ready()
        for each in done:
            each.result()
    with admin(own) as client:
        kept = [each for each in client.get("/keys?limit=1000").json()["data"] if each["name"] != "first"]
        assert sorted(each["name"] for each in kept) == sorted(names)
        assert {each["id"] for each in kept} == {answer.json()["id"] for answer in answers.values()}
        first = client.get("/keys/first").json()["id"]
        lines = client.get("/audit/export").text.splitlines()
    records = [json.loads(line) for line in lines]
    made = Counter(each["target"] for each in records if each["action"] == "key.create")
    made.pop(f"key/{first}")
    assert made == {f"key/{each['id']}": 1 for each in kept}
    chains = verify(map(record_of, records))
    assert not any(state.faults for state in chains.values())
    for answer in list(answers.values())[::20]:  # the secret that was told is the one that works
        assert own.post(CHAT, key=answer.json()["key"])[0] == 200


# ---------------------------------------------------------------------- configuration


def amount(client: httpx.Client) -> Any:
    return client.get("/limits/per-key").json()["amount"]


def test_a_configuration_is_applied_and_taken_back_once_however_often_it_is_asked(own: Gateway) -> None:
    first = own.path.read_text()
    second = first.replace("requests = 3", "requests = 4")
    with admin(own) as client:
        before = client.get("/config")
        assert before.headers["etag"] == f'"{before.json()["revision"]}"'
        applied = client.post("/config/apply", json={"toml": second, "note": "more"})
        assert applied.status_code == 200 and own.path.read_text() == second and amount(client) == 4
        stale = {"if-match": before.headers["etag"]}
        assert code(client.post("/config/rollback", json={}, headers=stale))[0] == 412
        assert code(client.post("/config/apply", json={"toml": first}, headers=stale))[0] == 412

        once = {"idempotency-key": "back"}
        with ThreadPoolExecutor(4) as pool:
            backs = list(pool.map(lambda _: client.post("/config/rollback", json={}, headers=once), range(4)))
        assert {answer.json()["revision"] for answer in backs} == {before.json()["revision"]}
        assert own.path.read_text() == first and amount(client) == 3
        history = client.get("/config/history").json()["data"]
        assert [each["note"] for each in history][:2] == [f"back to {before.json()['revision']}", "more"]
        diff = client.get(f"/config/history/{applied.json()['revision']}/diff").json()["diff"]
        assert "-requests = 4" in diff and "+requests = 3" in diff
        actions = [json.loads(line)["action"] for line in client.get("/audit/export").text.splitlines()]
        assert actions.count("config.apply") == 2


def test_no_configuration_changes_unaudited_while_the_ledger_can_not_be_written(own: Gateway) -> None:
    first = own.path.read_text()
    second, third = (first.replace("requests = 3", f"requests = {n}") for n in (4, 5))
    ledger = own.directory / "data" / "ledger.sqlite"
    with (
        admin(own) as client,
        closing(sqlite3.connect(ledger, isolation_level=None, timeout=30)) as database,
    ):
        database.execute("BEGIN IMMEDIATE")
        answer = client.post("/config/apply", json={"toml": second})
        assert code(answer) == (503, "gateway_ledger_unavailable")
        assert own.path.read_text() == first and amount(client) == 3
        own.put(third)  # by hand: that is the owner's right
        until("the file serves", lambda: amount(client) == 5)
        database.execute("ROLLBACK")
        until("it is in the history", lambda: len(client.get("/config/history").json()["data"]) == 2)

        def reloads() -> list[str]:
            lines = client.get("/audit/export").text.splitlines()
            return [json.loads(line)["action"] for line in lines if '"config.' in line]

        until("it is in the audit", lambda: reloads() == ["config.reload"])
        assert client.post("/config/rollback", json={}).status_code == 200
        assert own.path.read_text() == first and amount(client) == 3


@pytest.mark.parametrize("damage", ["\nbroken = [\n", "\n[sever]\nworkers = 2\n"])
def test_a_file_with_faults_keeps_nobody_from_the_gateway_that_serves_the_one_before(
    own: Gateway, damage: str
) -> None:
    first = own.path.read_text()
    with admin(own) as client:
        leaked = client.post("/keys", json={"name": "leaked"}).json()["key"]
        second = first.replace("requests = 3", "requests = 4")
        assert client.post("/config/apply", json={"toml": second}).status_code == 200
        own.put(second + damage)
        assert "leaked" in own.command("keys", "revoke", "leaked")
        assert own.request("GET", "/v1/models", headers={"authorization": f"Bearer {leaked}"})[0] == 401
        assert "is in place" in own.command("config", "rollback")
        assert own.path.read_text() == first and amount(client) == 3
    own.put(first + damage)
    own.stop()
    assert own.command("keys", "list", check=False) == ""  # without a gateway the file is all there is


def test_what_no_worker_can_serve_leaves_the_file_as_it_was(own: Gateway) -> None:
    first = own.path.read_text()
    with admin(own) as client:
        refused = client.post(
            "/config/apply", json={"toml": first + '[[plugins]]\nuse = "no_such_module:Stage"\n'}
        )
        assert refused.status_code in (400, 409) and "no_such_module" in refused.json()["error"]["message"]
        assert own.path.read_text() == first
        revision = client.get("/config").json()["revision"]
        until("it serves", lambda: client.get("/status").json()["revision"] == revision)
        assert "config" not in client.get("/status").json()
        # What never served is nothing to go back to, whether it came by the API or by hand.
        own.put(first + '[[plugins]]\nuse = "no_such_module:Other"\n')
        until("it is refused", lambda: "no_such_module:Other" in str(client.get("/status").json()))
        own.put(first)
        until(
            "it leaves the history",
            lambda: [each["revision"] for each in client.get("/config/history").json()["data"]] == [revision],
        )
        assert client.post("/config/rollback", json={}).status_code == 404


def test_files_that_came_since_are_set_aside_and_those_that_went_come_back(own: Gateway) -> None:
    directory = own.path.parent / "parts"
    directory.mkdir()
    (directory / "one.toml").write_text('[tenants.one]\ntags = ["x"]\n')
    own.put('include = ["parts/*.toml"]\n' + own.path.read_text())
    with admin(own) as client:

        def tenants() -> set[str]:
            return {each["name"] for each in client.get("/tenants").json()["data"]}

        until("the first is there", lambda: tenants() == {"one"})
        (directory / "two").write_text("[tenants.two]\n")
        (directory / "two").rename(directory / "two.toml")  # whole, for a gateway that looks just then
        (directory / "one.toml").unlink()
        until("the second is there", lambda: tenants() == {"two"})
        done = client.post("/config/rollback", json={})
        # The file that came and the one that went may have been seen one after the other.
        if tenants() == {"one", "two"}:
            done = client.post("/config/rollback", json={"to": _of(client, {"one.toml"})})
        assert done.status_code == 200, done.text
        assert tenants() == {"one"}
        assert (directory / "one.toml").exists() and not (directory / "two.toml").exists()
        (aside,) = done.json()["set_aside"]
        assert Path(aside).read_text() == "[tenants.two]\n"


def _of(client: httpx.Client, wanted: set[str]) -> str:
    """The newest revision with these files beside the first."""
    for each in client.get("/config/history").json()["data"]:
        if {Path(name).name for name in each["files"]} - {"gateway.toml"} == wanted:
            return str(each["n"])
    raise AssertionError("no such revision")
