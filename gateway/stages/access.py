"""May they use this? What key, tenant, team and user allow, and what the caller says about the call."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import parse_qs, unquote

from gateway.core.amend import unambiguous
from gateway.core.call import Call
from gateway.core.codec import JSONError, loads
from gateway.core.errors import CallerError, PolicyError
from gateway.core.parts import Parts
from gateway.core.ports import Stage
from gateway.core.principal import Principal
from gateway.core.reply import Reply
from gateway.core.rights import CALLER, Rights, rights_of

_MAX_DECISIONS = 512
_MAX_TAGS = 16
_OURS = frozenset((b"x-penstock-tags", b"x-penstock-session", b"x-penstock-route"))
_TAG = re.compile(r"[A-Za-z0-9._:/=+@-]{1,64}\Z")
_SESSION = re.compile(r"[A-Za-z0-9._:/=+@-]{1,128}\Z")
# Some servers fold the case of paths.
_IN_PATH = re.compile(r"/(?:openai/)?(?:deployments|engines)/([^/]+)", re.IGNORECASE)
_BATCHES = re.compile(r"/batches/?\Z", re.IGNORECASE)
_CANCEL = re.compile(r"/responses/[^/]+/cancel\Z")
_JSON = re.compile(rb"\s*\{|\xef\xbb\xbf|\xff\xfe|\xfe\xff|\x00")  # as a text in any of its encodings begins

# Here a provider takes a model of its own choice when none is named to make something with.
_MODELED = frozenset(
    (
        "chat/completions", "completions", "embeddings", "responses", "moderations", "images/generations",
        "images/edits", "images/variations", "audio/speech", "audio/transcriptions", "audio/translations",
        "rerank", "messages",
    )
)  # fmt: skip


class Access(Stage):
    """Refuses with 403 what key, tenant, team and user do not all allow.

    Decisions are remembered with the principal, bounded.
    """

    steady = True

    def __init__(self, options: Any, parts: Parts) -> None:
        """Needs no tools."""

    def admit(self, call: Call) -> Reply | None:  # type: ignore[override]
        """Check, and read the caller's `x-penstock-…` headers."""
        principal = call.principal
        assert principal is not None, "auth comes first"
        rights: Rights = principal.memo.get("rights") or rights_of(principal)
        if rights.disabled or rights.fenced or not rights.calls:
            _enter(call, rights, principal)
        for name, value in call.headers:
            if name in _OURS:
                _told(call, name, value)
        if rights.tags:
            call.tags = (*rights.tags, *call.tags)
        if call.endpoint not in _MODELED or not call.model or call.query:
            _name_model(call, rights)
        if rights.listed:
            self._check(call, principal, rights)
            if rights.chosen and call.method == "POST" and _BATCHES.search(call.path) is not None:
                message = "This key may use certain models only; a batch names its models in a file."
                raise PolicyError(message, code="policy_model_denied")
        return None

    def _check(self, call: Call, principal: Principal, rights: Rights) -> None:
        decisions = principal.memo.setdefault("access", {})
        # Not the endpoint: globs name paths below it, too.
        question = (call.method, call.path, call.model)
        if question in decisions:
            error = decisions[question]
        else:
            error = _decide(call, rights)
            if len(decisions) >= _MAX_DECISIONS:
                decisions.clear()
            if len(call.path) + len(call.model) < 512:
                decisions[question] = error
        if error is not None:
            code, message, param = error
            raise PolicyError(message, code=code, param=param)


def _enter(call: Call, rights: Rights, principal: Principal) -> None:
    """Whether the caller may call at all, and from where."""
    if rights.disabled:
        raise PolicyError(f"{rights.disabled} is disabled.", code="policy_disabled")
    if not rights.calls:
        roles = ", ".join(principal.key.roles)[:128]
        message = f"The role {CALLER} is needed to call models; there is only: {roles}."
        raise PolicyError(message, code="policy_role_required")
    if rights.fenced:
        call.memo["address"] = True  # others with the same head come from elsewhere: nothing is remembered
        if who := rights.address(call.client):
            message = f"{who} may not be used from this address."
            raise PolicyError(message, code="policy_address_not_allowed")


def _decide(call: Call, rights: Rights) -> tuple[str, str, str | None] | None:
    if who := rights.endpoint(call.endpoint, call.path[1:]):
        return "policy_endpoint_denied", f"{who} may not use {call.path[:128]}.", None
    if call.model and (who := rights.model(call.model)):
        return "policy_model_denied", f"{who} may not use the model `{call.model[:128]}`.", "model"
    if not call.model and rights.chosen and call.endpoint in _MODELED and not _fetches(call):
        message = "This key may use certain models only: name one as 'model'."
        return "policy_model_denied", message, "model"
    return None


def _fetches(call: Call) -> bool:
    """Whether it reads, ends or removes what was made before (a stored response), with no model."""
    return call.method in ("GET", "HEAD", "DELETE") or _CANCEL.match(call.path) is not None


def _name_model(call: Call, rights: Rights) -> None:
    """The model of a call that does not name it as usual: in its path, or in a body nobody has read."""
    if call.endpoint == "models" and len(call.path) > len("/models/"):
        call.model = unquote(call.path[len("/models/") :])
        return
    if rights.chosen and call.query:
        for name, names in parse_qs(call.query.decode("ascii", "replace")).items():
            for named in names if name.lower() == "model" else ():
                if who := rights.model(named):
                    message = f"{who} may not use the model `{named[:128]}`."
                    raise PolicyError(message, code="policy_model_denied")
    in_path = _IN_PATH.match(call.path) or _IN_PATH.match(unquote(call.path))
    if in_path is not None:
        named = unquote(in_path.group(1))
        if call.model not in ("", named) and (who := rights.model(named)):
            raise PolicyError(f"{who} may not use the model `{named[:128]}`.", code="policy_model_denied")
        call.model = call.model or named
    elif rights.chosen and not call.model and call.document is None and call.body:
        _read_model(call)


def _read_model(call: Call) -> None:
    """What a body that nobody has read says. It is no matter of the head, so it is not remembered.

    One that is JSON to some servers and not to us is refused: they would ask a model that nobody has seen.
    """
    call.memo["read"] = True
    kind = (call.header(b"content-type") or b"").lower()
    if b"json" not in kind and _JSON.match(call.body) is None:
        return
    try:
        document = loads(call.body)
    except JSONError:
        message = "This key may use certain models only, and this body can't be read as JSON."
        raise PolicyError(message, code="policy_model_denied", param="model") from None
    if isinstance(document, dict):
        twin = Call(call.method, call.path, call.endpoint, call.headers, call.body)
        twin.document = document
        unambiguous(twin, ("model",))
        if isinstance(document.get("model"), str):
            call.model = document["model"]


def _told(call: Call, name: bytes, value: bytes) -> None:
    """One of the caller's `x-penstock-…` headers."""
    if name == b"x-penstock-tags":
        tags = tuple(tag.strip() for tag in value.decode("latin-1").split(",") if tag.strip())
        if len(call.tags) + len(tags) > _MAX_TAGS or not all(_TAG.match(tag) for tag in tags):
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
