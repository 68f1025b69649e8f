"""May they use this: globs over models and endpoints, and no way around them."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import replace

import pytest

from gateway.core.call import Call, Origin
from gateway.core.errors import CallerError, PolicyError
from gateway.core.group import Member, Tenant
from gateway.core.keys import Keys
from gateway.core.ports import Stage
from gateway.core.principal import digest
from gateway.core.reply import Reply
from gateway.core.route import ModelRule, Target
from gateway.pipeline import Pipeline
from gateway.stages.access import Access
from gateway.stages.auth import Auth
from gateway.stages.route import Route
from tests.stages.given import SECRET, call, entry, parts

access = Access({}, parts())
GPT = entry(models=("gpt-*",))


def code(made: object) -> str:
    """ "" where the call passes, else the refusal's code."""
    try:
        access.admit(made)  # type: ignore[arg-type]
    except PolicyError as error:
        assert error.status == 403
        return error.code
    return ""


@pytest.mark.parametrize(
    ("model", "refused"),
    [
        ("gpt-4o", ""),
        ("gpt-4o-mini", ""),
        ("o3", ""),
        ("o3-mini", "policy_model_denied"),
        ("GPT-4o", "policy_model_denied"),
    ],
)
def test_a_key_may_use_the_models_its_globs_name(model: str, refused: str) -> None:
    key = entry(models=("gpt-*", "o3"))
    made = call(document={"model": model, "messages": []}, key=key)
    assert [code(made), code(made)] == [refused, refused]


@pytest.mark.parametrize(
    ("path", "endpoint", "refused"),
    [
        ("/chat/completions", "chat/completions", ""),
        ("/embeddings", "embeddings", ""),
        ("/files/file-1", "files", "policy_endpoint_denied"),
        ("/fine_tuning/jobs", "other", ""),
        ("/assistants", "other", "policy_endpoint_denied"),
    ],
)
def test_a_key_may_use_the_endpoints_its_globs_name(path: str, endpoint: str, refused: str) -> None:
    key = entry(endpoints=("chat/*", "embeddings", "fine_tuning/*"))
    assert code(call(path, {"model": "m"}, endpoint=endpoint, key=key)) == refused


def test_a_key_without_lists_may_use_everything() -> None:
    assert code(call("/anything", endpoint="other", key=entry())) == ""
    assert code(call(document={"model": "x" * 500}, key=entry())) == ""


@pytest.mark.parametrize(
    "made",
    [
        call("/models/secret", method="GET", endpoint="models", key=GPT),
        call("/models/se%63ret", method="DELETE", endpoint="models", key=GPT),
        call("/deployments/secret/chat/completions", {}, endpoint="other", key=GPT),
        call("/openai/deployments/s%65cret/x", {"model": "gpt-4"}, endpoint="other", key=GPT),
        call("/engines/secret/completions", {}, endpoint="other", key=GPT),
        call("/rerun", endpoint="other", body=b' {"model": "secret"}', key=GPT),
        call("/images/generations", {"prompt": "x"}, key=GPT),
        call("/responses", {"input": "x"}, key=GPT),
    ],
)  # fmt: skip
def test_a_model_is_found_wherever_it_is_named_and_must_be_named(made: object) -> None:
    assert code(made) == "policy_model_denied"


def test_calls_that_use_no_model_need_none() -> None:
    assert code(call("/files", method="GET", key=GPT)) == ""
    assert code(call("/models", method="GET", key=GPT)) == ""


@pytest.mark.parametrize(
    ("method", "path", "refused"),
    [
        ("GET", "/responses/resp_1", ""),
        ("GET", "/responses/resp_1/input_items", ""),
        ("DELETE", "/responses/resp_1", ""),
        ("POST", "/responses/resp_1/cancel", ""),
        ("POST", "/responses/compact", "policy_model_denied"),
        ("POST", "/responses", "policy_model_denied"),
    ],
)
def test_a_key_for_some_models_gets_back_and_ends_what_it_has_stored(
    method: str, path: str, refused: str
) -> None:
    assert code(call(path, method=method, endpoint="responses", key=GPT)) == refused


def test_a_path_that_may_be_read_is_not_written_to_unseen() -> None:
    reading = call("/responses/resp_1", method="GET", endpoint="responses", key=GPT)
    writing = call("/responses/resp_1", {"input": "x"}, endpoint="responses")
    writing.principal = reading.principal
    assert [code(reading), code(writing)] == ["", "policy_model_denied"]


def test_the_model_in_a_path_is_known_to_the_next_stages() -> None:
    made = call("/models/org%2Fmodel", method="GET", endpoint="models", key=entry())
    access.admit(made)
    assert made.model == "org/model"


def test_decisions_are_remembered_in_bounds() -> None:
    made = call(document={"model": "m"}, key=GPT)
    for number in range(2000):
        made.model = f"model-{number}"
        assert code(made) == "policy_model_denied"
    assert made.principal is not None
    assert len(made.principal.memo["access"]) <= 512


@pytest.mark.parametrize(
    ("paths", "verdicts"),
    [
        (("/files/abc", "/files/xyz", "/files"), ["", "policy_endpoint_denied", "policy_endpoint_denied"]),
        (("/files", "/files/xyz", "/files/abc"), ["policy_endpoint_denied", "policy_endpoint_denied", ""]),
    ],
)
def test_what_was_decided_for_one_path_of_an_endpoint_says_nothing_of_another(
    paths: tuple[str, ...], verdicts: list[str]
) -> None:
    made = [call(path, method="GET", endpoint="files") for path in paths]
    known = call(key=entry(endpoints=("files/abc",))).principal
    for each in made:
        each.principal = known
    assert [code(each) for each in made] == verdicts


def test_the_refusal_names_the_model_cut_to_a_sane_length() -> None:
    made = call(document={"model": "m" * 400}, key=GPT)
    with pytest.raises(PolicyError) as caught:
        access.admit(made)
    assert "m" * 128 in caught.value.message and "m" * 129 not in caught.value.message
    assert caught.value.param == "model"


def test_tags_session_and_route_are_read_from_the_headers() -> None:
    headers = [
        (b"x-penstock-tags", b"team:search, prod"),
        (b"x-penstock-session", b"chat-17"),
        (b"x-penstock-route", b"azure-eu"),
    ]
    made = call(document={"model": "m"}, headers=headers, key=entry(tags=("from-key",)))
    access.admit(made)
    assert made.tags == ("from-key", "team:search", "prod")
    assert made.session == "chat-17"
    assert made.memo["route"] == "azure-eu"


@pytest.mark.parametrize(
    "header",
    [
        (b"x-penstock-tags", b"a b"),
        (b"x-penstock-tags", b"x" * 65),
        (b"x-penstock-tags", b",".join([b"t"] * 17)),
        (b"x-penstock-tags", b"\xff"),
        (b"x-penstock-session", b"x" * 129),
        (b"x-penstock-session", b"<script>"),
        (b"x-penstock-session", b""),
    ],
)
def test_tags_and_sessions_that_are_not_clean_words_are_refused(header: tuple[bytes, bytes]) -> None:
    with pytest.raises(CallerError) as caught:
        access.admit(call(document={"model": "m"}, headers=[header], key=entry()))
    assert (caught.value.status, caught.value.code) == (400, "caller_bad_header")


def test_tags_are_bounded_over_all_headers_and_those_of_the_key_do_not_count() -> None:
    key = entry(tags=("from-key",))
    sixteen = [(b"x-penstock-tags", b",".join([b"t"] * 8))] * 2
    made = call(document={"model": "m"}, headers=sixteen, key=key)
    access.admit(made)
    assert len(made.tags) == 17
    with pytest.raises(CallerError, match="at most 16"):
        access.admit(call(document={"model": "m"}, headers=[*sixteen, (b"x-penstock-tags", b"t")], key=key))


def test_a_verdict_that_depends_on_the_body_is_marked_as_such() -> None:
    for body in (b"plain", b'{"model": "gpt-4"}'):
        made = call("/rerun", endpoint="other", body=body, key=GPT)
        access.admit(made)
        assert made.memo
    made = call(document={"model": "gpt-4"}, key=GPT)
    access.admit(made)
    assert not made.memo


@pytest.mark.parametrize(
    "body",
    [b'{"model": "o1", "x": NaN}', b'{"model": "o1"', '{"model":"o1"}'.encode("utf-16"), b"\xef\xbb\xbf{}"],
)
def test_a_body_that_is_json_to_others_and_not_to_us_needs_a_key_for_all_models(body: bytes) -> None:
    assert code(call("/other", endpoint="other", body=body, key=GPT)) == "policy_model_denied"
    assert code(call("/other", endpoint="other", body=body, key=entry())) == ""


@pytest.mark.parametrize("body", [b'{"model":"o1","model":"gpt-4"}', b'{"Model":"o1","model":"gpt-4"}'])
def test_a_body_that_nobody_has_read_names_its_model_once(body: bytes) -> None:
    with pytest.raises(CallerError):
        access.admit(call("/other", endpoint="other", body=body, key=GPT))


@pytest.mark.parametrize("path", ["/openai/%64eployments/o1/chat/completions", "/Engines/o1/completions"])
def test_a_model_in_the_path_is_found_however_the_path_is_written(path: str) -> None:
    assert code(call(path, endpoint="other", body=b"x", key=GPT)) == "policy_model_denied"
    assert code(call(path.replace("o1", "gpt-4"), endpoint="other", body=b"x", key=GPT)) == ""


@pytest.mark.parametrize(
    ("query", "verdict"),
    [
        (b"model=o1", "policy_model_denied"),
        (b"mod%65l=%6f1", "policy_model_denied"),
        (b"a=b&model=gpt-4", ""),
        (b"Model=o1", "policy_model_denied"),
        (b"x=o1", ""),
    ],
)
def test_a_model_in_the_query_is_one_that_is_asked_for(query: bytes, verdict: str) -> None:
    made = call("/realtime/calls", endpoint="other", body=b"v=0", key=GPT)
    made.query = query
    assert code(made) == verdict


@pytest.mark.parametrize("path", ["/realtime/calls", "/chat/completions"])
def test_a_model_in_the_query_is_asked_for_beside_the_one_in_the_body(path: str) -> None:
    made = call(path, {"model": "gpt-4"}, key=GPT)
    made.query = b"model=o1"
    assert code(made) == "policy_model_denied"
    made.query = b"api-version=1&model=gpt-4"
    assert code(made) == ""


def test_a_key_for_some_models_makes_no_batches_and_may_read_them() -> None:
    batch = {"input_file_id": "f"}
    for path in ("/batches", "/Batches/", "/messages/batches"):
        assert code(call(path, batch, endpoint="other", key=GPT)) == "policy_model_denied"
    assert code(call("/batches", batch, key=entry())) == ""
    assert code(call("/batches", method="GET", key=GPT)) == ""


def test_a_body_that_is_no_json_is_left_alone() -> None:
    made = call("/other", endpoint="other", body=b"not json", key=GPT)
    assert code(made) == ""
    made = call("/other", endpoint="other", body=json.dumps({"model": 3}).encode(), key=entry(models=("a",)))
    assert code(made) == ""


# ------------------------------------------------------------------- groups, networks, roles


def member(*tenants: Tenant, client: str = "10.0.0.1", model: str = "gpt-4o", **key: object) -> Call:
    """A call of a member of acme / search / bot."""
    keys = Keys([entry(tenant="acme", team="search", user="bot", **key)], tenants)
    made = call(document={"model": model}, headers=[(b"x-penstock-tags", b"own")])
    made.principal, made.client = keys.find(digest(SECRET)), client
    return made


def test_tenant_team_and_user_must_allow_what_the_key_allows() -> None:
    acme = Tenant("acme", models=("gpt-*",), teams={"search": Member(endpoints=("embeddings",))})
    assert code(member(replace(acme, teams={}))) == ""
    assert code(member(acme)) == "policy_endpoint_denied"
    made = member(replace(acme, teams={}), model="o3")
    with pytest.raises(PolicyError) as caught:
        access.admit(made)
    assert caught.value.message == "The tenant `acme` may not use the model `o3`."


def test_a_tenant_that_is_switched_off_is_told_so() -> None:
    made = member(Tenant("acme", disabled=True))
    with pytest.raises(PolicyError) as caught:
        access.admit(made)
    assert (caught.value.code, caught.value.status) == ("policy_disabled", 403)
    assert caught.value.message == "The tenant `acme` is disabled."


def test_tags_of_all_groups_stand_before_the_callers() -> None:
    made = member(Tenant("acme", tags=("a",), users={"bot": Member(tags=("u",))}), tags=("k",))
    access.admit(made)
    assert made.tags == ("k", "a", "u", "own")


@pytest.mark.parametrize(
    ("client", "refused"),
    [
        ("10.1.2.3", ""),
        ("::ffff:10.1.2.3", ""),
        ("2001:db8::7", ""),
        ("11.0.0.1", "policy_address_not_allowed"),
        ("2001:db9::7", "policy_address_not_allowed"),
        ("local", "policy_address_not_allowed"),
        ("", "policy_address_not_allowed"),
    ],
)
def test_a_key_with_networks_is_good_there_alone(client: str, refused: str) -> None:
    made = member(client=client, networks=("10.0.0.0/8", "2001:db8::/32"))
    assert code(made) == refused
    assert made.memo, "others with the same head come from elsewhere"


def test_without_networks_a_verdict_may_be_remembered() -> None:
    made = member(Tenant("acme", models=("gpt-*",)))
    access.admit(made)
    assert not made.memo


def test_a_key_for_operators_calls_no_models() -> None:
    assert code(member(roles=("admin", "auditor"))) == "policy_role_required"
    assert code(member(roles=("admin", "caller"))) == ""
    assert code(member(roles=())) == ""


def test_with_the_same_head_from_elsewhere_a_verdict_is_not_taken_over() -> None:
    """The whole pipeline: what was remembered for one address must not let another in."""
    given_ = parts(keys=[entry(networks=("10.0.0.0/8",))], models=[ModelRule("*", (Target("up"),))])
    stages = [Auth({}, given_), Access({}, given_), Route({}, given_), Ends()]
    pipeline, origin = Pipeline(stages, "r", given_.keys), Origin()

    def status(client: str) -> int:
        made = call(document={"model": "m"}, headers=[(b"authorization", b"Bearer " + SECRET)])
        made.origin, made.client, made.wall, made.id = origin, client, time.time(), "req_1"
        return asyncio.run(pipeline.answer(made)).status

    assert [status(client) for client in ("10.0.0.1", "11.0.0.1", "10.0.0.2", "local")] == [
        200,
        403,
        200,
        403,
    ]
    assert not origin.verdicts


class Ends(Stage):
    """Answers."""

    def __init__(self) -> None:
        pass

    def admit(self, call: Call) -> Reply | None:  # type: ignore[override]
        return Reply(200, [], b"{}")
