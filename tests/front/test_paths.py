"""The paths whose calls are metered have one spelling."""

import pytest

from gateway.core.errors import CallerError
from gateway.front.request import parse

HOST = b" HTTP/1.1\r\nHost: x"


@pytest.mark.parametrize(
    ("target", "meant"),
    [
        (b"/v1/%63hat/completions", "/v1/chat/completions"),
        (b"/v1/chat%2Fcompletions", "/v1/chat/completions"),
        (b"/v1/chat/completions/", "/v1/chat/completions"),
        (b"/v1/Chat/Completions", "/v1/chat/completions"),
        (b"/v1/v1/chat/completions", "/v1/chat/completions"),
        (b"/v1/chat/completions;x=1", "/v1/chat/completions"),
        (b"/v1/chat/completions%3Fx", "/v1/chat/completions"),
        (b"/openai/deployments/mini/chat/completions?api-version=1", "/v1/chat/completions"),
        (b"/deployments/mini/images/generations", "/v1/images/generations"),
        (b"/engines/mini/completions", "/v1/completions"),
        (b"/v1/responses/", "/v1/responses"),
        (b"/v1/%6Dessages", "/v1/messages"),
    ],
)
def test_another_spelling_of_a_metered_path_is_refused_and_told_the_right_one(
    target: bytes, meant: str
) -> None:
    with pytest.raises(CallerError, match=f"{meant}:") as caught:
        parse(b"POST " + target + HOST)
    assert caught.value.status == 400


@pytest.mark.parametrize(
    "line",
    [
        b"POST /v1/chat/completions",
        b"POST /messages",
        b"POST /v1/threads/t/messages",
        b"POST /v1/responses/r/cancel",
        b"POST /v1/uploads/u/parts",
        b"GET /v1/organization/usage/completions",
        b"DELETE /v1/chat/completions/c",
        b"GET /v1/models/org%2Fembeddings",
    ],
)
def test_paths_of_their_own_pass(line: bytes) -> None:
    assert parse(line + HOST).path
