"""What the SDK raises when the gateway or the provider refuses."""

from __future__ import annotations

from typing import Any

import openai
import pytest

from tests.e2e.gateway import EXPIRED, NARROW, Gateway
from tests.e2e.provider import Provider

QUESTION: list[Any] = [{"role": "user", "content": "hi"}]


def ask(gateway: Gateway, model: str, key: str = "", **more: Any) -> Any:
    with gateway.client(**({"key": key} if key else {})) as client:
        answer = client.chat.completions.create(model=model, messages=QUESTION, **more)
        return list(answer) if more.get("stream") else answer


def refusal(error: pytest.ExceptionInfo[openai.APIStatusError]) -> dict[str, Any]:
    body = error.value.body
    assert isinstance(body, dict)
    return body


@pytest.mark.parametrize("key", ["sk-unknown", EXPIRED, "My Key With Spaces", "x" * 4000])
def test_a_key_that_is_not_good_is_an_authentication_error(gateway: Gateway, key: str) -> None:
    with pytest.raises(openai.AuthenticationError) as error:
        ask(gateway, "gpt-4o-mini", key)
    assert str(refusal(error)["code"]).startswith("caller_")
    assert refusal(error)["request_id"] == error.value.response.headers["x-request-id"]
    assert key not in error.value.response.text


def test_a_model_outside_the_keys_list_is_denied(gateway: Gateway) -> None:
    assert ask(gateway, "gpt-4o-mini", NARROW).choices
    with pytest.raises(openai.APIStatusError) as error:
        ask(gateway, "o4-mini", NARROW)
    assert error.value.status_code in (403, 404)


def test_an_endpoint_outside_the_keys_list_is_denied(gateway: Gateway) -> None:
    with gateway.client(NARROW) as client, pytest.raises(openai.PermissionDeniedError):
        client.embeddings.create(model="gpt-4o-mini", input="x")


def test_the_providers_rate_limit_reaches_the_client_with_retry_after(gateway: Gateway) -> None:
    with pytest.raises(openai.RateLimitError) as error:
        ask(gateway, "fault;status=429;retry_after=3")
    assert error.value.response.headers["retry-after"] == "3"


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, openai.BadRequestError),
        (404, openai.NotFoundError),
        (409, openai.ConflictError),
        (422, openai.UnprocessableEntityError),
        (500, openai.InternalServerError),
        (503, openai.InternalServerError),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_the_providers_refusals_reach_the_client(
    gateway: Gateway, status: int, kind: type[openai.APIStatusError], stream: bool
) -> None:
    with pytest.raises(kind) as error:
        ask(gateway, f"fault;status={status}", stream=stream)
    assert error.value.status_code == status


def test_the_providers_words_are_kept(gateway: Gateway) -> None:
    with pytest.raises(openai.BadRequestError, match="mock failure 400"):
        ask(gateway, "fault;status=400")


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[1]", b'"text"', b"null", b"17", b'{"model": NaN}', b'{"model": "\xff"}', b"\x00" * 64],
)
def test_a_body_that_is_no_object_is_a_bad_request(gateway: Gateway, provider: Provider, body: bytes) -> None:
    before = len(provider.journal())
    status, headers, answer = gateway.post(body)
    assert status == 400
    assert headers["content-type"].startswith("application/json")
    assert b'"caller_' in answer
    assert len(provider.journal()) == before


def test_a_stream_that_dies_is_told_inside_the_stream(gateway: Gateway) -> None:
    with pytest.raises(openai.APIError) as error:
        ask(gateway, "fault;die_after=4", stream=True)
    assert not isinstance(error.value, openai.APIConnectionError)
    assert str(getattr(error.value, "code", "")).startswith("upstream_")


@pytest.mark.parametrize(
    ("model", "status"),
    [
        ("lost", 502),
        ("fault;close_first", 502),
        ("fault;close_first;how=rst", 502),
        ("fault;garbage", 502),
        ("fault;stall_after=0", 504),
    ],
)
def test_a_provider_that_fails_before_the_first_byte_is_an_upstream_error(
    gateway: Gateway, model: str, status: int
) -> None:
    with pytest.raises(openai.InternalServerError) as error:
        ask(gateway, model)
    assert error.value.status_code == status
    assert str(refusal(error)["code"]).startswith("upstream_")
