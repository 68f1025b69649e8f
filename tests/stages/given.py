"""What the stages' tests begin with: calls as the front makes them, and parts without a network."""

from __future__ import annotations

import asyncio
import inspect
import json
from collections.abc import Mapping, Sequence
from typing import Any, cast

from gateway.core.call import Call
from gateway.core.cost import PriceList
from gateway.core.keys import Keys
from gateway.core.limit import LimitRule
from gateway.core.parts import Parts
from gateway.core.ports import Backend
from gateway.core.principal import KeyEntry, Principal, digest
from gateway.core.reply import Reply
from gateway.core.route import ModelRule, Target
from gateway.link.leases import local
from gateway.stores.leases import Authority

SECRET = b"sk-penstock-test"


class Nowhere:
    """A backend that is only named."""

    kind = "openai"

    def __init__(self, name: str = "up", models: Sequence[str] = ()) -> None:
        self.name = name
        self.offered = [{"id": model, "object": "model", "created": 1, "owned_by": name} for model in models]

    async def open(self) -> None: ...

    async def close(self) -> None: ...

    async def models(self) -> list[dict[str, Any]]:
        return self.offered

    async def ask(self, call: Call, target: Target) -> Reply:
        raise AssertionError("nobody is asked here")


def entry(**rest: Any) -> KeyEntry:
    return KeyEntry(**{"id": "key_1", "name": "test", "digest": digest(SECRET), **rest})


def call(
    path: str = "/chat/completions",
    document: Mapping[str, Any] | None = None,
    *,
    method: str = "POST",
    headers: Sequence[tuple[bytes, bytes]] = (),
    endpoint: str = "",
    body: bytes | None = None,
    key: KeyEntry | None = None,
) -> Call:
    """A call as it comes from the front; with a principal where the test begins after auth."""
    data = json.dumps(document).encode() if document is not None else body or b""
    made = Call(method, path, endpoint or path[1:], list(headers), data)
    if document is not None:
        made.document = dict(document)
        made.model = document.get("model", "")
        made.stream = document.get("stream") is True
    if key is not None:
        made.principal = Principal(key)
    return made


def parts(
    *,
    keys: Sequence[KeyEntry] = (),
    models: Sequence[ModelRule] = (),
    limits: Sequence[LimitRule] = (),
    backends: Mapping[str, Backend] | None = None,
    prices: PriceList | None = None,
    mode: str = "keys",
) -> Parts:
    return Parts(
        revision="r1",
        worker=0,
        keys=Keys(keys),
        leases=local(Authority(tuple(limits))),
        journal=None,  # type: ignore[arg-type]
        backends=backends if backends is not None else {"up": Nowhere()},
        models=tuple(models),
        limits=tuple(limits),
        prices=prices or PriceList({}),
        auth_mode=mode,
    )


def admit(stage: Any, made: Call) -> Reply | None:
    """A stage's verdict, awaited where it is a promise."""

    async def scenario() -> Reply | None:
        verdict: Any = stage.admit(made)
        if inspect.isawaitable(verdict):
            verdict = await verdict
        return cast("Reply | None", verdict)

    return asyncio.run(scenario())
