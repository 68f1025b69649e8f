"""OpenAI's objects, filled with what the echo backend has to say."""

from __future__ import annotations

import base64
import hashlib
import math
import struct
from typing import Any

from gateway.core.codec import dumps, event
from gateway.core.tokens import estimate, prompt_text

NOTICE = "Penstock echo: no provider is configured."

_MAX_SAID = 8192  # characters of the caller's words that are said back
_MAX_INPUTS = 2048
_MAX_DIMENSIONS = 4096
_CATEGORIES = (
    "harassment", "harassment/threatening", "hate", "hate/threatening", "illicit", "illicit/violent",
    "self-harm", "self-harm/instructions", "self-harm/intent", "sexual", "sexual/minors", "violence",
    "violence/graphic",
)  # fmt: skip

Document = dict[str, Any]


def answer(document: Document) -> str:
    """What the echo says to a request."""
    said = _last(document.get("messages") or document.get("input") or document.get("prompt") or "")
    return f"{NOTICE} You said: {said[:_MAX_SAID]}"


def _last(value: Any) -> str:
    """The last thing somebody said."""
    while not isinstance(value, str):
        if isinstance(value, list) and value:
            value = value[-1]
        elif isinstance(value, dict):
            value = value.get("content") or value.get("text") or ""
        else:
            return ""
    return value


def chat_usage(document: Document, text: str) -> Document:
    """CompletionUsage: a quarter of the bytes, so that the same call always has the same figures."""
    prompt, completion = estimate(prompt_text(document).encode()), estimate(text.encode())
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


def chat(document: Document, name: str, created: int) -> Document:
    """A chat completion."""
    text = answer(document)
    message: Document = {"role": "assistant", "content": text, "refusal": None, "annotations": []}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
    return {
        "id": f"chatcmpl-{name}",
        "object": "chat.completion",
        "created": created,
        "model": document["model"],
        "choices": [choice],
        "usage": chat_usage(document, text),
    }


def completion(document: Document, name: str, created: int) -> Document:
    """A completion of the older kind."""
    text = answer(document)
    return {
        "id": f"cmpl-{name}",
        "object": "text_completion",
        "created": created,
        "model": document["model"],
        "choices": [{"index": 0, "text": text, "logprobs": None, "finish_reason": "stop"}],
        "usage": chat_usage(document, text),
    }


def chunks(document: Document, name: str, created: int, chatting: bool) -> list[bytes]:
    """A stream of either, word by word, its usage at the end."""
    text = answer(document)
    kind = "chat.completion.chunk" if chatting else "text_completion"
    prefix = "chatcmpl" if chatting else "cmpl"
    base = {"id": f"{prefix}-{name}", "object": kind, "created": created, "model": document["model"]}

    def chunk(delta: Document, reason: str | None) -> bytes:
        choice: Document = {"index": 0, "logprobs": None, "finish_reason": reason}
        choice |= {"delta": delta} if chatting else {"text": delta.get("content", "")}
        return event({**base, "choices": [choice]})

    pieces = [chunk({"role": "assistant", "content": ""}, None)] if chatting else []
    pieces += [chunk({"content": word}, None) for word in _words(text)]
    pieces.append(chunk({}, "stop"))
    pieces.append(event({**base, "choices": [], "usage": chat_usage(document, text)}))
    return [*pieces, b"data: [DONE]\n\n"]


def _words(text: str) -> list[str]:
    words = text.split(" ")
    return [word if number == 0 else f" {word}" for number, word in enumerate(words)]


def response(document: Document, name: str, created: int, status: str = "completed") -> Document:
    """A Response; `status` is "in_progress" where it has yet to be made."""
    text = answer(document)
    usage = chat_usage(document, text)
    made = status == "completed"
    return {
        "id": f"resp_{name}",
        "object": "response",
        "created_at": created,
        "status": status,
        "error": None,
        "incomplete_details": None,
        "instructions": document.get("instructions"),
        "model": document["model"],
        "output": [_message(name, text)] if made else [],
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "metadata": {},
        "usage": {
            "input_tokens": usage["prompt_tokens"],
            "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
            "output_tokens": usage["completion_tokens"],
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": usage["total_tokens"],
        }
        if made
        else None,
    }


def _message(name: str, text: str, status: str = "completed") -> Document:
    part = {"type": "output_text", "text": text, "annotations": []}
    content = [part] if status == "completed" else []
    message = {"id": f"msg_{name}", "type": "message", "status": status, "role": "assistant"}
    return {**message, "content": content}


def response_events(document: Document, name: str, created: int) -> list[bytes]:
    """The events of a streamed Response."""
    text = answer(document)
    place = {"item_id": f"msg_{name}", "output_index": 0, "content_index": 0}
    begun = response(document, name, created, "in_progress")
    part: Document = {"type": "output_text", "text": "", "annotations": []}
    happened: list[tuple[str, Document]] = [
        ("response.created", {"response": begun}),
        ("response.in_progress", {"response": begun}),
        ("response.output_item.added", {"output_index": 0, "item": _message(name, "", "in_progress")}),
        ("response.content_part.added", {**place, "part": part}),
    ]
    for word in _words(text):
        happened.append(("response.output_text.delta", {**place, "delta": word, "logprobs": []}))
    happened += [
        ("response.output_text.done", {**place, "text": text, "logprobs": []}),
        ("response.content_part.done", {**place, "part": {**part, "text": text}}),
        ("response.output_item.done", {"output_index": 0, "item": _message(name, text)}),
        ("response.completed", {"response": response(document, name, created)}),
    ]
    return [
        b"event: %b\ndata: %b\n\n" % (kind.encode(), dumps({"type": kind, "sequence_number": n, **rest}))
        for n, (kind, rest) in enumerate(happened)
    ]


def embeddings(document: Document) -> Document:
    """One small vector for each input, the same for the same input; base64 where that is asked for."""
    given = document.get("input")
    single = not isinstance(given, list) or (bool(given) and isinstance(given[0], int))
    inputs = [given] if single else list(given or ())[:_MAX_INPUTS]
    asked = document.get("dimensions")
    size = min(asked, _MAX_DIMENSIONS) if type(asked) is int and asked > 0 else 16
    coded = document.get("encoding_format") == "base64"
    data = []
    for index, value in enumerate(inputs):
        vector = _vector(dumps(value), size)
        coordinates = base64.b64encode(struct.pack(f"<{size}f", *vector)).decode() if coded else vector
        data.append({"object": "embedding", "index": index, "embedding": coordinates})
    tokens = estimate(prompt_text({"input": given}).encode())
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return {"object": "list", "data": data, "model": document["model"], "usage": usage}


def _vector(seed: bytes, size: int) -> list[float]:
    raw = hashlib.shake_128(seed).digest(2 * size)
    values = [number / 32768 for number in struct.unpack(f"<{size}h", raw)]
    length = math.sqrt(sum(value * value for value in values)) or 1.0
    return [value / length for value in values]


def moderation(document: Document, name: str) -> Document:
    """A moderation that finds nothing: the echo does not judge."""
    given = document.get("input")
    inputs = given if isinstance(given, list) else [given]
    result = {
        "flagged": False,
        "categories": dict.fromkeys(_CATEGORIES, False),
        "category_scores": dict.fromkeys(_CATEGORIES, 0.0),
        "category_applied_input_types": {category: ["text"] for category in _CATEGORIES},
    }
    return {"id": f"modr-{name}", "model": document["model"], "results": [result] * len(inputs[:_MAX_INPUTS])}


def model(name: str) -> Document:
    """A model object."""
    return {"id": name, "object": "model", "created": 0, "owned_by": "penstock-echo"}
