"""May they use this? Models and endpoints of the caller's key, and what the caller says about the call."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from typing import Any
from urllib.parse import unquote

from gateway.core.call import Call
from gateway.core.codec import JSONError, loads
from gateway.core.errors import CallerError, PolicyError
from gateway.core.parts import Parts
from gateway.core.ports import Stage
from gateway.core.principal import KeyEntry, Principal
from gateway.core.reply import Reply

_MAX_DECISIONS = 512
_MAX_TAGS = 16
_OURS = frozenset((b"x-penstock-tags", b"x-penstock-session", b"x-penstock-route"))
_TAG = re.compile(r"[A-Za-z0-9._:/=+@-]{1,64}\Z")
_SESSION = re.compile(r"[A-Za-z0-9._:/=+@-]{1,128}\Z")
_IN_PATH = re.compile(r"/(?:openai/)?(?:deployments|engines)/([^/]+)")

# Here a provider takes a model of its own choice when none is named.
_MODELED = frozenset(
    (
        "chat/completions", "completions", "embeddings", "responses", "moderations", "images/generations",
        "images/edits", "images/variations", "audio/speech", "audio/transcriptions", "audio/translations",
        "rerank", "messages",
    )
)  # fmt: skip


class Access(Stage):
    """Refuses with 403 what the key may not use. Decisions are remembered with the principal, bounded."""

    steady = True

    def __init__(self, options: Any, parts: Parts) -> None:
        """Needs no tools."""

    def admit(self, call: Call) -> Reply | None:  # type: ignore[override]
        """Check, and read the caller's `x-penstock-…` headers."""
        principal = call.principal
        assert principal is not None, "auth comes first"
        for name, value in call.headers:
            if name in _OURS:
                _told(call, name, value)
        key = principal.key
        if key.tags:
            call.tags = (*key.tags, *call.tags)
        if call.endpoint not in _MODELED or not call.model:
            _name_model(call, key)
        if key.models or key.endpoints:
            self._check(call, principal)
        return None

    def _check(self, call: Call, principal: Principal) -> None:
        decisions = principal.memo.setdefault("access", {})
        question = (call.endpoint if call.endpoint != "other" else call.path, call.model)
        if question in decisions:
            error = decisions[question]
        else:
            error = _decide(call, principal.key)
            if len(decisions) >= _MAX_DECISIONS:
                decisions.clear()
            if len(call.path) + len(call.model) < 512:
                decisions[question] = error
        if error is not None:
            code, message, param = error
            raise PolicyError(message, code=code, param=param)


def allows(key: KeyEntry, model: str) -> bool:
    """Whether a key may use a model."""
    return not key.models or any(fnmatchcase(model, glob) for glob in key.models)


def _decide(call: Call, key: KeyEntry) -> tuple[str, str, str | None] | None:
    names = (call.endpoint, call.path[1:])
    if key.endpoints and not any(fnmatchcase(name, glob) for glob in key.endpoints for name in names):
        return "policy_endpoint_denied", f"This key may not use {call.path[:128]}.", None
    if call.model and not allows(key, call.model):
        return "policy_model_denied", f"This key may not use the model `{call.model[:128]}`.", "model"
    if not call.model and key.models and call.endpoint in _MODELED:
        message = "This key may use certain models only: name one as 'model'."
        return "policy_model_denied", message, "model"
    return None


def _name_model(call: Call, key: KeyEntry) -> None:
    """The model of a call that does not name it as usual: in its path, or in a body nobody has read."""
    if call.endpoint == "models" and len(call.path) > len("/models/"):
        call.model = unquote(call.path[len("/models/") :])
        return
    in_path = _IN_PATH.match(call.path)
    if in_path is not None:
        named = unquote(in_path.group(1))
        if call.model not in ("", named) and not allows(key, named):
            raise PolicyError(f"This key may not use the model `{named[:128]}`.", code="policy_model_denied")
        call.model = call.model or named
    elif key.models and not call.model and call.document is None and call.body:
        _read_model(call)


def _read_model(call: Call) -> None:
    """What a body that nobody has read says. It is no matter of the head, so it is not remembered."""
    call.memo["read"] = True
    if call.body.lstrip()[:1] != b"{":
        return
    try:
        document = loads(call.body)
    except JSONError:
        return
    if isinstance(document.get("model"), str):
        call.model = document["model"]


def _told(call: Call, name: bytes, value: bytes) -> None:
    """One of the caller's `x-penstock-…` headers."""
    if name == b"x-penstock-tags":
        tags = tuple(tag.strip() for tag in value.decode("latin-1").split(",") if tag.strip())
        if len(tags) > _MAX_TAGS or not all(_TAG.match(tag) for tag in tags):
            raise CallerError(
                f"x-penstock-tags must be at most {_MAX_TAGS} words of letters, digits and ._:/=+@-, "
                "each at most 64 long, with commas between.",
                code="caller_bad_header",
            )
        call.tags += tags
    elif name == b"x-penstock-session":
        session = value.decode("latin-1")
        if not _SESSION.match(session):
            raise CallerError(
                "x-penstock-session must be at most 128 letters, digits and ._:/=+@-.",
                code="caller_bad_header",
            )
        call.session = session
    else:
        call.memo["route"] = value.decode("latin-1")
