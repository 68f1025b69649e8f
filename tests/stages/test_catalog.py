"""Which models are there: configured names and what backends offer, as far as the caller may use them."""

from __future__ import annotations

import json
from typing import Any

from gateway.core.errors import UpstreamError
from gateway.core.reply import Reply
from gateway.core.route import ModelRule, Target
from gateway.stages.catalog import Catalog
from tests.stages.given import Nowhere, admit, call, entry, parts


class Silent(Nowhere):
    """A backend that does not say what it offers."""

    async def models(self) -> list[dict[str, Any]]:
        raise UpstreamError("away", code="upstream_connect_failed")


BACKENDS = {"a": Nowhere("a", ["gpt-4o", "gpt-4", "whisper"]), "b": Silent("b")}
MODELS = (
    ModelRule("fast", (Target("a", "gpt-4o"),)),
    ModelRule("gpt-*", (Target("a"), Target("b"))),
)


def listed(reply: Reply | None) -> list[str]:
    assert reply is not None and reply.status == 200 and reply.body is not None
    document = json.loads(reply.body)
    assert document["object"] == "list"
    assert all(set(model) >= {"id", "object", "created", "owned_by"} for model in document["data"])
    return [model["id"] for model in document["data"]]


def test_the_list_has_configured_names_and_what_globs_let_through() -> None:
    stage = Catalog({}, parts(models=MODELS, backends=BACKENDS))
    made = call("/models", method="GET", key=entry())
    assert listed(admit(stage, made)) == ["fast", "gpt-4o", "gpt-4"]
    assert made.reasons == {"models": "b:upstream_connect_failed"}


def test_a_caller_sees_only_models_it_may_use() -> None:
    stage = Catalog({}, parts(models=MODELS, backends=BACKENDS))
    made = call("/models", method="GET", key=entry(models=("gpt-4o", "f*")))
    assert listed(admit(stage, made)) == ["fast", "gpt-4o"]


def test_a_configured_model_is_described_without_asking_anybody() -> None:
    stage = Catalog({}, parts(models=MODELS, backends=BACKENDS))
    made = call("/models/fast", method="GET", endpoint="models", key=entry())
    made.model = "fast"
    reply = admit(stage, made)
    assert reply is not None and reply.body is not None
    assert json.loads(reply.body) == {"id": "fast", "object": "model", "created": 0, "owned_by": "a"}


def test_other_models_and_other_calls_go_on() -> None:
    stage = Catalog({}, parts(models=MODELS, backends=BACKENDS))
    known = call("/models/gpt-4", method="GET", endpoint="models", key=entry())
    known.model = "gpt-4"
    deleting = call("/models/fast", method="DELETE", endpoint="models", key=entry())
    deleting.model = "fast"
    assert [admit(stage, made) for made in (known, deleting, call(document={"model": "fast"}))] == [None] * 3


def test_without_globs_the_list_needs_no_backend() -> None:
    stage = Catalog({}, parts(models=MODELS[:1], backends=BACKENDS))
    assert listed(admit(stage, call("/models", method="GET", key=entry()))) == ["fast"]
