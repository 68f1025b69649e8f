"""May they use this: globs over models and endpoints, and no way around them."""

from __future__ import annotations

import json

import pytest

from gateway.core.errors import CallerError, PolicyError
from gateway.stages.access import Access
from tests.stages.given import call, entry, parts

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


def test_a_verdict_that_depends_on_the_body_is_marked_as_such() -> None:
    for body in (b"plain", b'{"model": "gpt-4"}'):
        made = call("/rerun", endpoint="other", body=body, key=GPT)
        access.admit(made)
        assert made.memo
    made = call(document={"model": "gpt-4"}, key=GPT)
    access.admit(made)
    assert not made.memo


def test_a_body_that_is_no_json_is_left_alone() -> None:
    made = call("/other", endpoint="other", body=b"{not json", key=GPT)
    assert code(made) == ""
    made = call("/other", endpoint="other", body=json.dumps({"model": 3}).encode(), key=entry(models=("a",)))
    assert code(made) == ""
