"""Errors blame a side, and look like OpenAI's."""

from __future__ import annotations

import pytest

from gateway.core.errors import CallerError, FaultError, GatewayError, PolicyError, UpstreamError


@pytest.mark.parametrize(
    ("kind", "status", "type_", "prefix", "outcome"),
    [
        (CallerError, 400, "invalid_request_error", "caller_", "refused"),
        (PolicyError, 403, "permission_error", "policy_", "refused"),
        (UpstreamError, 502, "api_error", "upstream_", "upstream_error"),
        (FaultError, 503, "api_error", "gateway_", "failed"),
    ],
)
def test_each_kind_blames_its_side(
    kind: type[GatewayError], status: int, type_: str, prefix: str, outcome: str
) -> None:
    error = kind("why")
    assert (error.status, error.type, error.outcome) == (status, type_, outcome)
    assert error.code.startswith(prefix)


@pytest.mark.parametrize(
    ("status", "type_"),
    [
        (401, "authentication_error"),
        (404, "not_found_error"),
        (429, "rate_limit_error"),
        (413, "invalid_request_error"),
    ],
)
def test_the_type_follows_the_status(status: int, type_: str) -> None:
    assert CallerError("why", status=status).type == type_


def test_the_document_has_openais_members_and_the_request_id() -> None:
    error = CallerError("no such model", code="caller_model_not_found", status=404, param="model")
    assert error.document("req_1") == {
        "error": {
            "message": "no such model",
            "type": "not_found_error",
            "param": "model",
            "code": "caller_model_not_found",
            "request_id": "req_1",
        }
    }


def test_an_upstream_error_knows_whether_anything_was_sent() -> None:
    assert UpstreamError("x").sent
    assert not UpstreamError("x", sent=False, code="upstream_connect_failed").sent


@pytest.mark.parametrize(
    ("status", "type_"),
    [
        (400, "invalid_request_error"),
        (401, "authentication_error"),
        (413, "request_too_large"),
        (429, "rate_limit_error"),
        (502, "api_error"),
        (504, "timeout_error"),
    ],
)
@pytest.mark.parametrize("path", ["/messages", "/messages/count_tokens"])
def test_anthropics_paths_are_answered_in_its_shape(path: str, status: int, type_: str) -> None:
    told = GatewayError("why", status=status).document("req_1", path)
    error = told["error"]
    assert (told["type"], told["request_id"]) == ("error", "req_1")
    assert isinstance(error, dict) and (error["type"], error["message"]) == (type_, "why")


@pytest.mark.parametrize("path", ["", "/chat/completions", "/threads/t_1/messages", "/messagesque"])
def test_other_paths_are_answered_in_openais_shape(path: str) -> None:
    error = CallerError("why")
    assert error.document("req_1", path) == error.document("req_1")
    assert set(error.document("req_1", path)) == {"error"}
    assert error.event("req_1", path).startswith(b'data: {"error":')


def test_the_last_event_of_anthropics_streams_has_its_type() -> None:
    assert (
        UpstreamError("why").event("req_1", "/messages").startswith(b'event: error\ndata: {"type":"error",')
    )
