"""The Azure backend: its addresses and credential headers, around OpenAI's wire."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.core.errors import CallerError
from gateway.core.route import Target
from tests.backends.given import COMPLETION, KEY, Seen, backend, call, document, run, upstream

CHAT = {"model": "gpt-4o", "messages": []}


def asked(target: Target, path: str = "/chat/completions", query: bytes = b"", **settings: Any) -> Seen:
    """What arrives for a call."""
    arrived: list[Seen] = []

    async def scenario() -> None:
        async with (
            upstream(lambda seen: document(COMPLETION)) as up,
            backend(up.port, "azure", settings.pop("base", ""), **settings) as azure,
        ):
            await azure.ask(call(path, CHAT, query=query, endpoint=path[1:].split("/")[0]), target)
            arrived.extend(up.seen)

    run(scenario())
    return arrived[0]


@pytest.mark.parametrize(
    ("version", "path", "target"),
    [
        (
            "2024-10-21",
            "/chat/completions",
            "/openai/deployments/mini/chat/completions?api-version=2024-10-21",
        ),
        ("2024-10-21", "/embeddings", "/openai/deployments/mini/embeddings?api-version=2024-10-21"),
        (
            "2024-10-21",
            "/images/generations",
            "/openai/deployments/mini/images/generations?api-version=2024-10-21",
        ),
        ("2024-10-21", "/files", "/openai/files?api-version=2024-10-21"),
        ("2025-04-01-preview", "/responses", "/openai/responses?api-version=2025-04-01-preview"),
        ("preview", "/chat/completions", "/openai/v1/chat/completions?api-version=preview"),
        ("v1", "/chat/completions", "/openai/v1/chat/completions"),
        ("", "/chat/completions", "/openai/v1/chat/completions"),
    ],
)
def test_each_version_has_its_addresses(version: str, path: str, target: str) -> None:
    assert asked(Target("up", "mini"), path, api_version=version).target == target


@pytest.mark.parametrize("base", ["", "/openai", "/openai/v1"])
def test_the_base_url_may_be_any_of_those_people_copy(base: str) -> None:
    assert asked(Target("up"), base=base, api_version="v1").target == "/openai/v1/chat/completions"


def test_a_base_url_with_a_path_of_its_own_keeps_it() -> None:
    seen = asked(Target("up"), base="/proxy", api_version="2024-10-21")
    assert seen.target == "/proxy/openai/deployments/gpt-4o/chat/completions?api-version=2024-10-21"


def test_the_operators_version_stands() -> None:
    seen = asked(Target("up"), query=b"api-version=1999-01-01&x=1", api_version="2024-10-21")
    assert seen.target.endswith("?api-version=2024-10-21&x=1")


def test_either_header_carries_the_key() -> None:
    own, bearer = asked(Target("up")), asked(Target("up"), credential="bearer")
    assert (own.header("api-key"), own.header("authorization")) == ([KEY], [])
    assert (bearer.header("api-key"), bearer.header("authorization")) == ([], [f"Bearer {KEY}"])


def test_the_deployment_is_named_in_the_path_or_in_the_body() -> None:
    dated = asked(Target("up", "mini"), api_version="2024-10-21")
    current = asked(Target("up", "mini"), api_version="v1")
    assert b'"gpt-4o"' in dated.body
    assert b'"mini"' in current.body and b'"gpt-4o"' not in current.body


@pytest.mark.parametrize(
    ("model", "segment"),
    [("a/b", "a%2Fb"), ("../../admin", "..%2F..%2Fadmin"), ("x?y#z", "x%3Fy%23z"), ("ü", "%C3%BC")],
)
def test_a_model_name_never_leaves_its_place_in_the_path(model: str, segment: str) -> None:
    seen = asked(Target("up", model), api_version="2024-10-21")
    assert seen.target == f"/openai/deployments/{segment}/chat/completions?api-version=2024-10-21"


@pytest.mark.parametrize("model", [".", ".."])
def test_dots_name_no_deployment(model: str) -> None:
    with pytest.raises(CallerError):
        asked(Target("up", model), api_version="2024-10-21")
