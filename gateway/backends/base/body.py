"""The body of a call as one target gets it: the caller's bytes, changed only where they must be."""

from __future__ import annotations

from typing import Any

from gateway.core.call import Call
from gateway.core.codec import dumps
from gateway.core.multipart import is_form, model_span
from gateway.core.route import Target
from gateway.core.splice import append, replace, spans

_STREAMS = frozenset(("chat/completions", "completions"))


def renamed(call: Call, target: Target) -> bytes:
    """The body with the target's model in it, in JSON or in a form."""
    model = target.model
    if not model or model == call.model:
        return call.body
    document = call.document
    if document is not None:
        return replace(call.body, "model", dumps(model)) if "model" in document else call.body
    kind = call.header(b"content-type") or b""
    if is_form(kind):
        span = model_span(call.body, kind)
        if span is not None:
            return call.body[: span[0]] + model.encode() + call.body[span[1] :]
    return call.body


def with_usage(call: Call, body: bytes) -> tuple[bytes, bool]:
    """The body with usage asked for on a stream, and whether the answer's usage is then to be hidden.

    The caller's own `stream_options` stay, with `include_usage` added or set; a caller who asked for usage
    gets what the provider sends.
    """
    document = call.document
    if not call.stream or document is None or call.endpoint not in _STREAMS:
        return body, False
    options = document.get("stream_options")
    if options is None:
        if "stream_options" in document:
            return replace(body, "stream_options", b'{"include_usage":true}'), True
        return append(body, "stream_options", b'{"include_usage":true}'), True
    if not isinstance(options, dict) or options.get("include_usage") is True:
        return body, False
    return replace(body, "stream_options", _asking(body, options)), True


def _asking(body: bytes, options: dict[str, Any]) -> bytes:
    start, end = spans(body, "stream_options")[-1]
    given = body[start:end]
    if "include_usage" in options:
        return replace(given, "include_usage", b"true")
    return append(given, "include_usage", b"true")
