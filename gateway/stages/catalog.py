"""Which models are there? The list as this caller may use it, from configuration and backends."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable
from fnmatch import translate
from typing import Any

from gateway.core.call import Call
from gateway.core.codec import dumps
from gateway.core.errors import UpstreamError
from gateway.core.parts import Parts
from gateway.core.ports import Stage
from gateway.core.reply import Reply
from gateway.core.rights import rights_of
from gateway.core.route import ModelRule

_JSON = [(b"content-type", b"application/json")]
_MAX_LISTED = 10_000


class Catalog(Stage):
    """Answers GET /models, and GET /models/NAME where the configuration names the model.

    Other names go on: the backend that their glob leads to knows them.
    """

    steady = True  # what it answers is never remembered, that it does not answer is

    def __init__(self, options: Any, parts: Parts) -> None:
        self._backends = parts.backends
        self._exact = {rule.name: rule for rule in parts.models if not rule.glob}
        globs = [rule for rule in parts.models if rule.glob]
        self._globs = [(re.compile(translate(rule.name)), rule) for rule in globs]

    def admit(self, call: Call) -> Reply | Awaitable[Reply] | None:  # type: ignore[override]
        """Answer, or let it pass."""
        if call.endpoint != "models" or call.method != "GET":
            return None
        if call.path.rstrip("/") == "/models":
            return self._list(call)
        rule = self._exact.get(call.model)
        return Reply(200, list(_JSON), dumps(_model(rule))) if rule is not None else None

    async def _list(self, call: Call) -> Reply:
        assert call.principal is not None, "auth comes first"
        rights = rights_of(call.principal)
        models = {name: _model(rule) for name, rule in self._exact.items() if not rights.model(name)}
        names = dict.fromkeys(target.backend for _, rule in self._globs for target in rule.targets)
        offers = await asyncio.gather(*(self._offer(call, name) for name in names))
        offered = dict(zip(names, offers, strict=True))
        for glob, rule in self._globs:
            for target in rule.targets:
                for model in offered[target.backend]:
                    name = model["id"]
                    if glob.match(name) and not rights.model(name) and len(models) < _MAX_LISTED:
                        models.setdefault(name, model)
        return Reply(200, list(_JSON), dumps({"object": "list", "data": list(models.values())}))

    async def _offer(self, call: Call, name: str) -> list[dict[str, Any]]:
        """What a backend offers; nothing, and a reason, where it does not say."""
        try:
            return await self._backends[name].models()
        except UpstreamError as error:
            past = call.reasons.get("models")
            call.reasons["models"] = f"{past},{name}:{error.code}" if past else f"{name}:{error.code}"
            return []


def _model(rule: ModelRule) -> dict[str, Any]:
    """OpenAI's model object; when a configured model was made, nobody knows."""
    return {"id": rule.name, "object": "model", "created": 0, "owned_by": rule.targets[0].backend}
