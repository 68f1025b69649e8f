"""The admin API at the edges of what can be written: refused or answered, never a fault of its own."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from gateway.control.api import OPERATIONS, PREFIX
from gateway.control.openapi import document
from gateway.control.seal import Seal
from gateway.core.moment import iso, moment
from gateway.core.records import Actor, Answered, Deed
from tests.control.desk import TOKEN, Desk, talk
from tests.control.test_api import ask, code


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    made = Desk(tmp_path)
    yield made
    made.ledger.close()


BAD = "caller_bad_request"


@pytest.mark.parametrize("name", ["é", "Ⱥ", "東京", "a b", "100%"])
def test_a_tenant_may_have_any_name_and_is_found_where_the_answer_says(desk: Desk, name: str) -> None:
    made = ask(desk, "POST", "/tenants", {"name": name})
    assert made.status_code == 201
    assert ask(desk, "GET", f"http://admin{made.headers['location']}").json()["name"] == name


@pytest.mark.parametrize(
    "path",
    [
        "/keys?limit=0",
        "/keys?limit=1001",
        "/keys?limit=0000000000019999",
        "/keys?limit=٣",
        "/keys?limit=1e2",
        "/keys?state=dead",
        "/config/history?after=99999999999999999999999",
        "/config/history?after=-1",
        "/usage?top=10001",
        "/usage?since=0001-01-01T00:00:00%2B23:00",
        "/usage?until=9999-12-31T23:59:59-23:00",
        "/usage?tenant=%00",
        "/audit?since=0001-01-01T00:00:00%2B23:00",
        "/audit?after=:",
        "/audit?chain=%00",
        "/audit/export?after=:",
        "/audit/export?since=yesterday",
    ],
)
def test_a_value_out_of_bounds_is_told_and_not_used(desk: Desk, path: str) -> None:
    answer = ask(desk, "GET", path)
    assert code(answer) == (400, BAD)
    assert answer.json()["error"]["param"] in path


@pytest.mark.parametrize("role", ["Admin", "VIEWER", "Caller"])
def test_a_role_in_other_letters_is_no_role_of_ones_own(desk: Desk, role: str) -> None:
    refused = ask(desk, "POST", "/keys", {"name": "ops", "roles": [role]})
    assert code(refused) == (400, BAD) and f'write \\"{role.lower()}\\"' in refused.text


def test_a_name_that_no_store_takes_is_not_there(desk: Desk) -> None:
    assert code(ask(desk, "GET", "/keys/%00")) == (404, "caller_not_found")


@pytest.mark.parametrize("far", ["9999-12-31T23:59:59-23:00", "0001-01-01T00:00:00+23:00", "10000-01-01"])
def test_a_time_beyond_the_calendar_is_refused_and_nothing_made(desk: Desk, far: str) -> None:
    assert code(ask(desk, "POST", "/keys", {"name": "far", "expires": far})) == (400, BAD)
    assert ask(desk, "GET", "/keys?name=far").json()["data"] == []
    assert code(ask(desk, "POST", "/limits/rpm/raises", {"by": 1, "until": far})) == (400, BAD)


def test_the_last_moment_of_the_calendar_can_be_written_and_read(desk: Desk) -> None:
    made = ask(desk, "POST", "/keys", {"name": "far", "expires": "9999-12-31T23:59:59.999999Z"})
    assert made.json()["expires"] == "9999-12-31T23:59:59Z"
    assert iso(1e15) == "9999-12-31T23:59:59Z"
    assert iso(moment("2027-01-01").timestamp()) == "2027-01-01T00:00:00Z"


@pytest.mark.parametrize(
    "body", [b'{"name":"a","name":"b"}', b'{"name":"a","capture":{"keep":"1d","keep":"2d"}}']
)
def test_a_member_that_is_there_twice_is_refused(desk: Desk, body: bytes) -> None:
    async def send(client: httpx.AsyncClient) -> httpx.Response:
        return await client.post("/tenants", content=body)

    answer = talk(desk, send)
    assert code(answer) == (400, BAD) and "twice" in answer.text
    assert ask(desk, "GET", "/tenants").json()["data"] == []


@pytest.mark.parametrize("depth", [900, 1020, 5000, 500_000])
def test_a_body_that_is_nested_deep_is_refused(desk: Desk, depth: int) -> None:
    async def send(client: httpx.AsyncClient) -> httpx.Response:
        return await client.post("/keys", content=b'{"name":' + b"[" * depth + b"]" * depth + b"}")

    assert code(talk(desk, send)) == (400, BAD)


@pytest.mark.parametrize("path", ["/keys/", "/config/history/", "/tenants//"])
def test_a_path_has_one_spelling(desk: Desk, path: str) -> None:
    assert code(ask(desk, "GET", path)) == (404, "caller_not_found")


def test_what_is_answered_again_has_the_version_and_the_place_too(desk: Desk) -> None:
    """Also where one of that name was deleted, and versions go on."""
    for _ in range(2):
        ask(desk, "POST", "/tenants", {"name": "back"})
        ask(desk, "DELETE", "/tenants/back", if_match="*")
    first, again = (ask(desk, "POST", "/tenants", {"name": "back"}, idempotency_key="k") for _ in range(2))
    assert again.headers["idempotency-replayed"] == "true"
    for answer in (first, again):
        assert answer.headers["etag"] == '"v5"' and answer.json()["version"] == 5
        assert answer.headers["location"] == "/admin/v1/tenants/back"
    assert first.content == again.content


def test_an_answer_that_an_earlier_version_remembered_is_given_again(desk: Desk) -> None:
    place = hashlib.sha256(b"admin/k").hexdigest()
    request = hashlib.sha256(b"POST /admin/v1/tenants\n" + b'{"name":"old"}').hexdigest()
    body = Seal(TOKEN.encode(), "k").close(b'{"name":"old","version":1}')
    desk.ledger.note([Deed(Actor("cli"), "x", "y")], (place, Answered(request, 201, body, 1 << 50)))
    answer = ask(desk, "POST", "/tenants", {"name": "old"}, idempotency_key="k")
    assert answer.status_code == 201 and answer.headers["idempotency-replayed"] == "true"
    assert answer.json() == {"name": "old", "version": 1}


def test_keys_that_share_a_name_can_be_changed_and_revoked_each_by_its_id(desk: Desk) -> None:
    """Replicas that could not talk made one each."""
    first = ask(desk, "POST", "/keys", {"name": "twin"}).json()
    entity = desk.ledger.entity("key", first["id"])
    assert entity is not None
    document = {**entity.document, "id": "key_twin", "digest": "ab" * 32}
    assert desk.ledger.adopt([replace(entity, id="key_twin", document=document)])
    ask(desk, "GET", "/whoami", token="unknown")  # the desk looks at the ledger again
    refused = ask(desk, "DELETE", "/keys/twin")
    assert code(refused) == (409, "caller_conflict")
    assert first["id"] in refused.text and "key_twin" in refused.text
    for id in (first["id"], "key_twin"):
        assert ask(desk, "PATCH", f"/keys/{id}", {"models": ["o3"]}, if_match="*").status_code == 200
        assert ask(desk, "POST", f"/keys/{id}/rotate", {}).status_code == 200
        assert ask(desk, "DELETE", f"/keys/{id}").json()["state"] == "revoked"


def test_whoever_asks_for_a_revoked_key_by_name_is_told_so(desk: Desk) -> None:
    ask(desk, "POST", "/keys", {"name": "gone"})
    ask(desk, "DELETE", "/keys/gone")
    for method, path, body in (("DELETE", "/keys/gone", None), ("POST", "/keys/gone/rotate", {})):
        again = ask(desk, method, path, body)
        assert code(again) == (404, "caller_not_found")
        assert again.json()["error"]["message"] == (
            "There is no key 'gone'; the one that had this name is revoked."
        )


@pytest.mark.parametrize("end", [{"for": None}, {"until": None}, {"for": None, "until": None}, {}])
def test_a_raise_without_an_end_is_refused_and_null_is_no_end(desk: Desk, end: dict[str, None]) -> None:
    assert code(ask(desk, "POST", "/limits/rpm/raises", {"by": 1, **end})) == (400, BAD)
    made = ask(desk, "POST", "/limits/rpm/raises", {"by": 1, "until": None, **end, "for": "1m"})
    assert made.status_code == 201


def test_more_dollars_than_a_limit_may_have_are_no_raise(desk: Desk) -> None:
    raised = ask(desk, "POST", "/limits/money/raises", {"by": 1e15, "for": "1h"})
    assert code(raised) == (400, BAD)
    assert "1000000000" in raised.json()["error"]["message"]
    assert ask(desk, "POST", "/limits/money/raises", {"by": 1e9, "for": "1h"}).json()["by"] == 1e9


def test_the_bucket_of_all_calls_is_on_the_first_page_though_it_has_no_name(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    figures = {"amount": 5, "used": 2, "leased": 1, "left": 2, "reset_s": 1.0}
    monkeypatch.setattr(desk, "standings", lambda rule: [{"value": value, **figures} for value in ("a", "")])
    both = ask(desk, "GET", "/limits/rpm").json()["buckets"]
    assert [bucket["value"] for bucket in both["data"]] == ["", "a"] and both["next"] is None
    first = ask(desk, "GET", "/limits/rpm?limit=1").json()["buckets"]
    assert [bucket["value"] for bucket in first["data"]] == [""] and first["next"] == ""
    rest = ask(desk, "GET", "/limits/rpm?limit=1&after=").json()["buckets"]
    assert [bucket["value"] for bucket in rest["data"]] == ["a"]


def test_a_wrong_method_is_told_which_ones_there_are(desk: Desk) -> None:
    answer = ask(desk, "PUT", "/keys/first")
    assert code(answer) == (405, "caller_method_not_allowed")
    assert "DELETE" in answer.json()["error"]["message"]


def test_every_refusal_that_comes_is_described(desk: Desk) -> None:
    paths = document(OPERATIONS, PREFIX)["paths"]
    once = {"idempotency_key": "k"}
    assert ask(desk, "POST", "/keys", {"name": "a"}, **once).status_code == 201
    for status, answer in (
        ("422", ask(desk, "POST", "/keys", {"name": "b"}, **once)),
        ("409", ask(desk, "POST", "/keys", {"name": "a"})),
        ("413", ask(desk, "POST", "/keys", {"name": "x" * (1 << 20)})),
        ("400", ask(desk, "POST", "/keys", {"nome": "a"})),
        ("401", ask(desk, "POST", "/keys", {"name": "a"}, token="nobody")),
    ):
        assert str(answer.status_code) == status
        assert status in paths[f"{PREFIX}/keys"]["post"]["responses"]
    assert "428" in paths[PREFIX + "/keys/{key}"]["patch"]["responses"]
    assert "428" not in paths[f"{PREFIX}/keys"]["get"]["responses"]


def test_null_is_described_where_it_is_taken(desk: Desk) -> None:
    described = document(OPERATIONS, PREFIX)["paths"][f"{PREFIX}/keys"]["post"]
    members = described["requestBody"]["content"]["application/json"]["schema"]["properties"]
    assert {"type": "null"} in members["models"]["anyOf"]
    assert "anyOf" not in members["name"]
    assert ask(desk, "POST", "/keys", {"name": "a", "models": None}).status_code == 201
    assert code(ask(desk, "POST", "/keys", {"name": None})) == (400, BAD)


def test_a_draft_with_a_number_that_nobody_reads_has_a_fault(desk: Desk) -> None:
    told = ask(desk, "POST", "/config/validate", {"toml": f"x = {'9' * 5000}"}).json()
    assert not told["valid"] and "integer" in told["faults"][0]["message"]


def test_a_tenant_that_no_ledger_keeps_is_refused_with_its_size_and_nothing_changes(desk: Desk) -> None:
    many = {f"team-{number}": {"description": "x" * 200} for number in range(400)}
    large = (413, "caller_body_too_large")
    assert code(ask(desk, "POST", "/tenants", {"name": "acme", "teams": many})) == large
    assert ask(desk, "GET", "/tenants").json()["data"] == []
    ask(desk, "POST", "/tenants", {"name": "acme"})
    assert code(ask(desk, "PATCH", "/tenants/acme", {"teams": many}, if_match="*")) == large
    assert ask(desk, "GET", "/tenants/acme").json()["version"] == 1


def test_a_key_that_no_ledger_keeps_is_refused(desk: Desk) -> None:
    many = [f"{'m' * 200}-{number}" for number in range(400)]
    refused = ask(desk, "POST", "/keys", {"name": "ci", "models": many})
    assert code(refused) == (413, "caller_body_too_large") and "65536" in refused.text
