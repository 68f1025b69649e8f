"""What the tests of policies begin with: a configuration's policies, and calls that are judged by them."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gateway.core.call import Call
from gateway.core.errors import GatewayError
from gateway.settings.load import load
from gateway.stages.access import Access
from gateway.stages.policy.stage import Policies
from gateway.stages.route import Route
from tests.stages import given

BACKENDS = """
[backends.up]
kind = "openai"
base_url = "http://up.example/v1"

[backends.far]
kind = "openai"
base_url = "http://far.example/v1"

[models."*"]
targets = [ { backend = "up" } ]

[models.both]
targets = [ { backend = "far" } ]
fallback = [ { backend = "up" } ]

[models.drawn]
targets = [ { backend = "far", weight = 1000000 }, { backend = "up", weight = 0.000001 } ]

[prices.priced]
input = 10.0
output = 100.0
"""

NOON = 1_767_607_200.0 + 2 * 3600  # Monday 2026-01-05, 12:00 UTC


class Policed:
    """The policy stage of one configuration, with access and route before it."""

    def __init__(self, policies: str, around: str = BACKENDS) -> None:
        with tempfile.TemporaryDirectory() as directory:
            file = Path(directory) / "gateway.toml"
            file.write_text(policies + around)
            settings = load(file, dict.fromkeys(("AZURE_KEY", "OPENAI_API_KEY"), "sk-for-tests"))
        backends: dict[str, Any] = {name: given.Nowhere(name) for name in settings.backends}
        self.parts = given.parts(models=settings.models, backends=backends)
        self.parts.policies, self.parts.access = settings.policies, settings.access
        self.parts.prices = type(self.parts.prices)(settings.prices)
        self.before = [Access({}, self.parts), Route({}, self.parts)]
        self.stage = Policies({}, self.parts)

    def call(
        self,
        document: Mapping[str, Any] | None = None,
        path: str = "/chat/completions",
        *,
        body: bytes | None = None,
        tags: str = "",
        headers: Sequence[tuple[bytes, bytes]] = (),
        client: str = "192.0.2.7",
        at: float = NOON,
        method: str = "POST",
        endpoint: str = "",
        **key: Any,
    ) -> Call:
        """A call that has been through access and route."""
        if document is not None and "model" not in document:
            document = {"model": "m", **document}
        sent = [*headers, *([(b"x-penstock-tags", tags.encode())] if tags else ())]
        entry = given.entry(**key)
        made = given.call(
            path, document, headers=sent, key=entry, body=body, method=method, endpoint=endpoint
        )
        made.client, made.wall = client, at
        for stage in self.before:
            stage.admit(made)
        return made

    def verdict(
        self, document: Mapping[str, Any] | None = None, path: str = "/chat/completions", **how: Any
    ) -> str:
        """ "" where the call passes, else the code of its refusal."""
        return self.judge(self.call(document, path, **how))

    def judge(self, call: Call) -> str:
        try:
            self.stage.admit(call)
        except GatewayError as error:
            return error.code
        return ""

    def message(
        self, document: Mapping[str, Any] | None = None, path: str = "/chat/completions", **how: Any
    ) -> str:
        """What the refusal says."""
        try:
            self.stage.admit(self.call(document, path, **how))
        except GatewayError as error:
            return error.message
        raise AssertionError("it passed")

    def counted(self, name: str, decision: str) -> float:
        return self.parts.counts.get(("policies", name, decision), 0)


def when(condition: str) -> Policed:
    """One policy that denies under this condition."""
    return Policed(f'[[policies]]\nname = "one"\nwhen = {{ {condition} }}\ndeny = "no"\n')


def function(name: str, **more: Any) -> dict[str, Any]:
    """A tool as Chat Completions has them."""
    return {"type": "function", "function": {"name": name, **more}}


def strict(name: str, schema: Any = None) -> dict[str, Any]:
    """One that meets "constrained"."""
    closed = {"type": "object", "properties": {"q": {"type": "string"}}, "additionalProperties": False}
    return function(name, strict=True, parameters=schema or closed)
