"""The admin port's answers."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from gateway.control.app import build
from gateway.observe.metrics import Metrics


class Supervisor:
    """The least a supervisor has to be for the admin app."""

    def __init__(self, ready: bool = True) -> None:
        self.metrics = Metrics("test")
        self._ready = ready

    def ready(self) -> tuple[bool, dict[str, Any]]:
        return self._ready, {"workers": {"ready": 1, "wanted": 2}, "revision": "abc", "faults": ["a:1:1 b"]}

    def status(self) -> dict[str, Any]:
        return {"revision": "abc"}


def ask(
    path: str, supervisor: Supervisor | None = None, method: str = "GET", **headers: str
) -> httpx.Response:
    async def scenario() -> httpx.Response:
        transport = httpx.ASGITransport(build(supervisor or Supervisor()), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://admin") as client:
            return await client.request(method, path, headers=headers)

    return asyncio.run(scenario())


def test_health_is_ok_even_when_not_ready() -> None:
    assert ask("/healthz", Supervisor(ready=False)).status_code == 200


@pytest.mark.parametrize(("ready", "status"), [(True, 200), (False, 503)])
def test_readiness_says_why(ready: bool, status: int) -> None:
    answer = ask("/readyz", Supervisor(ready))
    assert answer.status_code == status
    assert answer.json() == {
        "ready": ready,
        "workers": {"ready": 1, "wanted": 2},
        "revision": "abc",
        "faults": ["a:1:1 b"],
    }


def test_metrics_come_in_the_form_that_was_asked_for() -> None:
    assert ask("/metrics").headers["content-type"].startswith("text/plain; version=0.0.4")
    answer = ask("/metrics", accept="application/openmetrics-text; version=1.0.0")
    assert answer.headers["content-type"].startswith("application/openmetrics-text")
    assert answer.text.endswith("# EOF\n")


def test_the_root_says_what_is_here() -> None:
    document = ask("/").json()
    assert set(document["paths"]) == {"/healthz", "/readyz", "/metrics", "/admin/v1/…"}
    assert document["status"] == {"revision": "abc"}


@pytest.mark.parametrize("path", ["/nothing", "/metrics/x", "/v1/chat/completions", "//healthz"])
def test_an_unknown_path_is_told_what_there_is(path: str) -> None:
    answer = ask(f"http://admin{path}")
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "caller_not_found"
    assert "/readyz" in answer.json()["error"]["message"]


def test_a_wrong_method_is_told_the_right_one() -> None:
    answer = ask("/metrics", method="POST")
    assert answer.status_code == 405
    assert "GET" in answer.headers["allow"]
    assert answer.json()["error"]["code"] == "caller_method_not_allowed"


def test_a_failure_tells_nothing_of_its_inside() -> None:
    class Broken(Supervisor):
        def ready(self) -> tuple[bool, dict[str, Any]]:
            raise RuntimeError("canary-secret")

    answer = ask("/readyz", Broken())
    assert answer.status_code == 500
    assert "canary" not in answer.text
    assert answer.json()["error"]["type"] == "api_error"
