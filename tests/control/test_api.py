"""The admin API: who may, what is refused and how, nothing lost and nothing done twice."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.control.api import OPERATIONS, PREFIX
from gateway.control.openapi import document
from gateway.control.operator import beyond_of
from gateway.core.principal import KeyEntry, entry_of
from gateway.core.records import KEY
from tests.control.desk import TOKEN, Desk, talk


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    made = Desk(tmp_path)
    yield made
    made.ledger.close()


def ask(
    desk: Desk, method: str, path: str, body: Any = None, token: str = TOKEN, **headers: str
) -> httpx.Response:
    async def once(client: httpx.AsyncClient) -> httpx.Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return await client.request(method, path, json=body, headers=named)

    return talk(desk, once, token)


def code(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


# ---------------------------------------------------------------------- keys


def test_a_new_key_is_shown_once_and_kept_as_a_digest(desk: Desk) -> None:
    made = ask(desk, "POST", "/keys", {"name": "ci", "tenant": "acme", "expires": "2030-01-01"})
    assert made.status_code == 201
    secret, identity = made.json()["key"], made.json()["id"]
    assert made.headers["location"] == f"{PREFIX}/keys/{identity}"
    again = ask(desk, "GET", f"/keys/{identity}")
    assert again.json()["expires"] == "2030-01-01T00:00:00Z"
    assert again.headers["etag"] == '"v1"'
    for text in (again.text, ask(desk, "GET", "/keys").text, ask(desk, "GET", "/audit/export").text):
        assert secret not in text
        assert "digest" not in json.loads(text.splitlines()[0])
    assert "key.create" in ask(desk, "GET", "/audit/export").text


def test_a_rotated_key_has_a_new_secret_and_says_until_when_the_old_one_works(desk: Desk) -> None:
    first = ask(desk, "POST", "/keys", {"name": "ci"}).json()
    second = ask(desk, "POST", "/keys/ci/rotate", {"overlap": "1h"}).json()
    assert second["id"] == first["id"] and second["key"] != first["key"] and second["previous_until"]
    third = ask(desk, "POST", "/keys/ci/rotate", {"overlap": "0s"}).json()
    assert third["previous_until"] is None


def test_a_revoked_key_stays_revoked(desk: Desk) -> None:
    identity = ask(desk, "POST", "/keys", {"name": "ci"}).json()["id"]
    assert ask(desk, "DELETE", f"/keys/{identity}").json()["state"] == "revoked"
    assert code(ask(desk, "POST", f"/keys/{identity}/rotate", {})) == (409, "caller_conflict")
    assert ask(desk, "POST", "/keys", {"name": "ci"}).status_code == 201


def test_what_stands_in_the_file_is_shown_and_changed_there(desk: Desk) -> None:
    assert ask(desk, "GET", "/keys/filed").json()["from"] == "file"
    assert code(ask(desk, "DELETE", "/keys/filed")) == (409, "caller_read_only")
    assert code(ask(desk, "POST", "/keys", {"name": "filed"})) == (409, "caller_read_only")


def test_all_faults_of_a_body_are_told_at_once_with_what_is_known(desk: Desk) -> None:
    answer = ask(desk, "POST", "/keys", {"nme": "x", "models": "all", "networks": ["10.0.0.1/8"]})
    message = answer.json()["error"]["message"]
    assert code(answer) == (400, "caller_bad_request")
    for part in ('did you mean "name"', "models: must be an array", "10.0.0.0/8"):
        assert part in message


@pytest.mark.parametrize("body", [b"[]", b"{", b"\xff", b'"x"', b"1e999"])
def test_a_body_that_is_no_object_is_400(desk: Desk, body: bytes) -> None:
    async def once(client: httpx.AsyncClient) -> httpx.Response:
        return await client.post("/keys", content=body)

    assert code(talk(desk, once)) == (400, "caller_bad_request")


def test_a_body_above_the_cap_is_413(desk: Desk) -> None:
    async def once(client: httpx.AsyncClient) -> httpx.Response:
        return await client.post("/keys", content=b'{"name":"' + b"x" * (1 << 20) + b'"}')

    assert code(talk(desk, once)) == (413, "caller_body_too_large")


def test_pages_go_on_where_the_one_before_ended(desk: Desk) -> None:
    for number in range(7):
        ask(desk, "POST", "/keys", {"name": f"k{number}"})
    seen, after = [], ""
    while True:
        page = ask(desk, "GET", f"/keys?limit=3&after={after}").json()
        seen += [item["id"] for item in page["data"]]
        if page["next"] is None:
            break
        after = page["next"]
    assert len(seen) == len(set(seen)) == 8 and seen == sorted(seen)
    assert code(ask(desk, "GET", "/keys?limit=0"))[0] == 400
    assert code(ask(desk, "GET", "/keys?nonsense=1"))[0] == 400


# ---------------------------------------------------------------------- lost updates, repeated requests


def test_an_update_needs_the_etag_of_what_was_read(desk: Desk) -> None:
    ask(desk, "POST", "/keys", {"name": "ci"})
    change = {"models": ["gpt-4o"]}
    assert code(ask(desk, "PATCH", "/keys/ci", change)) == (428, "caller_precondition_required")
    assert ask(desk, "PATCH", "/keys/ci", change, if_match='"v1"').headers["etag"] == '"v2"'
    assert code(ask(desk, "PATCH", "/keys/ci", {"models": None}, if_match='"v1"'))[0] == 412
    assert ask(desk, "GET", "/keys/ci").json()["models"] == ["gpt-4o"]
    assert ask(desk, "PATCH", "/keys/ci", {"models": None}, if_match="*").json()["models"] == []


def test_of_two_who_write_at_once_one_is_told_to_read_again(desk: Desk) -> None:
    ask(desk, "POST", "/tenants", {"name": "acme"})

    async def both(client: httpx.AsyncClient) -> list[int]:
        answers = await asyncio.gather(
            *(
                client.patch("/tenants/acme", json={"description": str(n)}, headers={"if-match": '"v1"'})
                for n in range(8)
            )
        )
        return [answer.status_code for answer in answers]

    assert Counter(talk(desk, both)) == {200: 1, 412: 7}


def test_the_same_request_again_gets_the_same_answer_secret_and_all(desk: Desk) -> None:
    async def many(client: httpx.AsyncClient) -> list[httpx.Response]:
        send = [client.post("/keys", json={"name": "ci"}, headers={"idempotency-key": "a"}) for _ in range(6)]
        return list(await asyncio.gather(*send))

    answers = talk(desk, many)
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.json()["key"] for answer in answers}) == 1
    assert len(desk.ledger.keys()) == 1
    other = ask(desk, "POST", "/keys", {"name": "other"}, idempotency_key="a")
    assert code(other) == (422, "caller_conflict")
    secret = answers[0].json()["key"].encode()
    assert all(secret not in file.read_bytes() for file in Path(desk.ledger._path).parent.iterdir())


# ---------------------------------------------------------------------- who may


@pytest.mark.parametrize("token", ["", "wrong", "x" * 20_000, "é", "filed"])
def test_what_opens_nothing_is_401_of_one_shape(desk: Desk, token: str) -> None:
    async def once(client: httpx.AsyncClient) -> httpx.Response:
        given = {"authorization": f"Bearer {token}".encode("latin-1")} if token else {}
        return await client.get("/keys", headers=given)

    answer = talk(desk, once, "")
    assert code(answer) == (401, "caller_unauthorized")
    assert answer.headers["www-authenticate"] == "Bearer"
    assert len(answer.content) == len(ask(desk, "GET", "/keys", token="another").content)


ROLES = {
    "viewer": {"GET /keys", "GET /limits", "GET /usage", "GET /config"},
    "operator": {"GET /keys", "GET /limits", "GET /usage", "GET /config", "POST /keys"},
    "auditor": {"GET /usage", "GET /audit"},
    "admin": {
        "GET /keys", "GET /limits", "GET /usage", "GET /config", "POST /keys", "GET /audit", "POST /tenants",
    },
    "caller": set(),
}  # fmt: skip


@pytest.mark.parametrize("role", list(ROLES))
def test_each_role_may_what_the_page_says(desk: Desk, role: str) -> None:
    desk.given(KeyEntry("key_1", "somebody", b"", roles=(role,)), "sk-somebody")
    allowed = set()
    for request in sorted(ROLES["admin"]):
        method, path = request.split()
        body = {"name": "made"} if method == "POST" else None
        if ask(desk, method, path, body, "sk-somebody").status_code < 300:
            allowed.add(request)
    assert allowed == ROLES[role]


def test_an_operator_with_a_tenant_sees_and_makes_keys_of_that_tenant_alone(desk: Desk) -> None:
    desk.given(KeyEntry("key_1", "op", b"", roles=("operator",), tenant="acme"), "sk-op")
    ask(desk, "POST", "/keys", {"name": "theirs", "tenant": "globex"})
    made = ask(desk, "POST", "/keys", {"name": "ours"}, "sk-op")
    assert made.json()["tenant"] == "acme"
    assert {item["name"] for item in ask(desk, "GET", "/keys", token="sk-op").json()["data"]} == {
        "op",
        "ours",
    }
    assert code(ask(desk, "GET", "/keys/theirs", token="sk-op"))[0] == 404
    assert code(ask(desk, "DELETE", "/keys/theirs", token="sk-op"))[0] == 404
    assert code(ask(desk, "GET", "/limits", token="sk-op")) == (403, "policy_role_required")


def test_an_operator_hands_on_and_takes_back_roles_of_their_own_that_call_models(desk: Desk) -> None:
    desk.given(KeyEntry("key_1", "op", b"", roles=("operator", "automation")), "sk-op")
    made = ask(desk, "POST", "/keys", {"name": "robot", "roles": ["automation"]}, "sk-op")
    assert made.status_code == 201 and made.json()["roles"] == ["automation"]
    assert ask(desk, "DELETE", "/keys/robot", token="sk-op").json()["state"] == "revoked"
    beyond = ask(desk, "POST", "/keys", {"name": "other", "roles": ["tools"]}, "sk-op")
    assert code(beyond) == (403, "policy_beyond_own_rights")


_words = st.sampled_from(["a", "b*", "ab", "b", "*", "gpt-4o*", "gpt-4o-mini"])
_networks = st.sampled_from(["10.0.0.0/8", "10.1.0.0/16", "::/0", "2001:db8::/32", "0.0.0.0/0"])
_keys = st.fixed_dictionaries(
    {},
    optional={
        "roles": st.lists(st.sampled_from(["caller", "viewer", "operator", "admin", "x"]), max_size=3),
        "tenant": st.sampled_from(["acme", "globex"]),
        "team": st.just("t"),
        "models": st.lists(_words, max_size=2),
        "endpoints": st.lists(_words, max_size=2),
        "networks": st.lists(_networks, max_size=2),
        "tags": st.lists(st.sampled_from(["x", "y"]), max_size=2),
        "expires": st.sampled_from(["2030-01-01", "2031-01-01", None]),
    },
)  # fmt: skip
_steps = st.lists(
    st.tuples(st.sampled_from(["POST", "PATCH", "ROTATE"]), st.integers(0, 5), _keys), max_size=8
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(own=_keys, steps=_steps)
def test_no_calls_of_an_operator_ever_lead_to_a_key_beyond_their_own(
    tmp_path_factory: pytest.TempPathFactory,
    own: dict[str, Any],
    steps: list[tuple[str, int, dict[str, Any]]],
) -> None:
    desk = Desk(tmp_path_factory.mktemp("desk"))
    roles = ["operator", *[role for role in own.get("roles", ()) if role != "admin"]]
    made = ask(desk, "POST", "/keys", {**own, "name": "op", "roles": roles}).json()
    mine = entry_of(desk.ledger.entities(KEY)[0].document)
    secrets = [made["key"]]
    ids = [mine.id]

    async def all_steps(client: httpx.AsyncClient) -> None:
        for number, (method, which, body) in enumerate(steps):
            bearer = {"authorization": f"Bearer {secrets[which % len(secrets)]}", "if-match": "*"}
            name = ids[which % len(ids)]
            if method == "POST":
                answer = await client.post("/keys", json={**body, "name": f"k{number}"}, headers=bearer)
            elif method == "PATCH":
                answer = await client.patch(f"/keys/{name}", json=body, headers=bearer)
            else:
                answer = await client.post(f"/keys/{name}/rotate", json={}, headers=bearer)
            assert answer.status_code in (200, 201, 400, 401, 403, 404, 409), answer.text
            if answer.status_code in (200, 201) and "key" in answer.json():
                secrets.append(answer.json()["key"])
                ids.append(answer.json()["id"])

    talk(desk, all_steps, "")
    reached = [entry_of(entity.document) for entity in desk.ledger.entities(KEY)]
    desk.ledger.close()
    for key in reached:
        assert not beyond_of(mine, key), (mine, key)


# ---------------------------------------------------------------------- the rest


def test_a_raise_is_in_the_rules_unit_and_ends(desk: Desk) -> None:
    ask(desk, "POST", "/tenants", {"name": "acme"})
    made = ask(desk, "POST", "/limits/money/raises", {"by": 2.5, "for": "2h", "value": "acme"})
    assert made.json()["by"] == 2.5
    assert desk.raises()[0].amount == 2_500_000
    assert ask(desk, "GET", "/limits/money").json()["raises"][0]["by"] == 2.5
    assert ask(desk, "GET", "/limits/rpm").json()["buckets"]["data"][0]["used"] == 2
    assert ask(desk, "DELETE", f"/raises/{made.json()['id']}").status_code == 200
    assert desk.raises() == []
    for body in ({"by": 1}, {"by": 1.5, "for": "1h"}, {"by": 1, "until": "2020-01-01"}):
        assert code(ask(desk, "POST", "/limits/rpm/raises", body))[0] == 400


def test_a_raise_for_a_key_by_its_name_is_for_its_id(desk: Desk) -> None:
    identity = ask(desk, "POST", "/keys", {"name": "ci"}).json()["id"]
    for value in ("ci", identity, f"{identity[:-1]}?"):
        made = ask(desk, "POST", "/limits/rpm/raises", {"by": 1, "for": "1h", "value": value})
        assert made.json()["value"] == (value if "?" in value else identity)
    for value, said in (
        ("cii", "There is no key of that name or id for 'cii': there are 'ci', 'filed'."),
        ("c*", "it is held against ids, not names."),
        ("no-such-value/at/all", "There is no key of that name or id"),
    ):
        refused = ask(desk, "POST", "/limits/rpm/raises", {"by": 1, "for": "1h", "value": value})
        assert code(refused) == (400, "caller_bad_request") and said in refused.json()["error"]["message"]
        assert refused.json()["error"]["param"] == "value"
    assert len(desk.raises()) == 3


def test_tenants_are_made_changed_and_removed(desk: Desk) -> None:
    made = ask(desk, "POST", "/tenants", {"name": "acme", "capture": {"sample": 0.5, "keep": "1d"}})
    assert made.json()["capture"]["keep"] == "1d"
    changed = ask(desk, "PATCH", "/tenants/acme", {"capture": None, "disabled": True}, if_match='"v1"')
    assert changed.json()["capture"]["sample"] == 0.0 and changed.json()["disabled"]
    assert ask(desk, "DELETE", "/tenants/acme", if_match="*").json() == {"deleted": "acme"}
    assert code(ask(desk, "GET", "/tenants/acme"))[0] == 404
    assert ask(desk, "POST", "/tenants", {"name": "acme"}).status_code == 201


def test_what_the_audit_api_exports_is_whole(desk: Desk) -> None:
    for number in range(5):
        ask(desk, "POST", "/keys", {"name": f"k{number}"})
    lines = ask(desk, "GET", "/audit/export").text.splitlines()
    paged, after = 0, ""
    while True:
        page = ask(desk, "GET", f"/audit?limit=2&after={after}").json()
        paged += len(page["data"])
        if page["next"] is None:
            break
        after = page["next"]
    assert len(lines) == paged == 6
    assert ask(desk, "GET", "/audit/verify").json()["whole"]


def test_no_text_brings_a_new_command_with_it(desk: Desk, tmp_path: Path) -> None:
    draft = (
        '[backends.x]\nkind = "openai"\nbase_url = "http://127.0.0.1:1/v1"\napi_key = "exec:touch /tmp/x"\n'
    )
    for path in ("/config/validate", "/config/apply"):
        assert code(ask(desk, "POST", path, {"toml": draft})) == (403, "policy_denied")
    assert desk.applied == []


def test_a_draft_is_told_all_its_faults_and_a_good_one_is_applied(desk: Desk) -> None:
    bad = ask(
        desk, "POST", "/config/validate", {"toml": '[server]\nlisten = 1\n[[keys]]\nname = "x"\n'}
    ).json()
    assert not bad["valid"] and len(bad["faults"]) == 2 and bad["faults"][0]["line"] == 2
    assert code(ask(desk, "POST", "/config/apply", {"toml": "[server]\nlisten = 1\n"}))[0] == 400
    assert ask(desk, "POST", "/config/apply", {"toml": "[server]\n", "note": "n"}).json() == {
        "revision": "r2"
    }
    assert desk.applied == [{"gateway.toml": "[server]\n"}]


def test_the_description_is_openapi_and_its_examples_work(desk: Desk) -> None:
    described = document(OPERATIONS, PREFIX)
    assert described["openapi"] == "3.1.0"
    names = [op["operationId"] for path in described["paths"].values() for op in path.values()]
    assert len(names) == len(set(names)) == len(OPERATIONS)
    for path in described["paths"].values():
        for operation in path.values():
            body = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
            if body:
                jsonschema.Draft202012Validator.check_schema(body["schema"])
            if "example" in body:
                jsonschema.validate(body["example"], body["schema"])
    ask(desk, "POST", "/keys", {"name": "first"})
    for operation in OPERATIONS:
        if operation.example is None or operation.path.startswith("/config"):
            continue
        path = (
            operation.path.replace("{key}", "first").replace("{tenant}", "globex").replace("{limit}", "rpm")
        )
        answer = ask(desk, operation.method, path, operation.example, if_match="*")
        assert answer.status_code == operation.status, (operation, answer.text)
        schema = {"$ref": f"#/components/schemas/{operation.answer}", "components": described["components"]}
        jsonschema.validate(answer.json(), schema)


def test_every_read_answers_as_described(desk: Desk) -> None:
    described = document(OPERATIONS, PREFIX)
    ask(desk, "POST", "/keys", {"name": "first"})
    ask(desk, "POST", "/tenants", {"name": "globex"})
    for operation in OPERATIONS:
        if operation.method != "GET" or "{revision}" in operation.path or operation.answer == "lines":
            continue
        path = (
            operation.path.replace("{key}", "first").replace("{tenant}", "globex").replace("{limit}", "rpm")
        )
        answer = ask(desk, "GET", path)
        assert answer.status_code == 200, (path, answer.text)
        schema = {"$ref": f"#/components/schemas/{operation.answer}", "components": described["components"]}
        jsonschema.validate(answer.json(), schema)
        assert answer.headers["cache-control"] == "no-store"
