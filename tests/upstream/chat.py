"""Chat completions and completions, whole and streamed, as OpenAI's own types have them."""

from __future__ import annotations

from typing import Any

from tests.upstream import answer, text
from tests.upstream.answer import Answer
from tests.upstream.tokens import Tokens, count

Delta = tuple[dict[str, Any], str | None]  # delta, finish_reason


def chat(document: dict[str, Any], pieces: int = 0) -> Answer:
    """POST /chat/completions; `pieces` sets the number of content pieces."""
    said = text.structured(document)
    calls = text.tool_call(document)
    parts = text.words(pieces or text.wanted(document)) if said is None else _cut(said)
    spoken = "".join(parts)
    cost = count(calls[1]) + 8 if calls else len(parts) if said is None else count(said)
    choices = document.get("n") or 1
    tokens = Tokens.of(document, cost * choices)
    if document.get("stream"):
        deltas = _tool_deltas(*calls) if calls else _text_deltas(parts)
        return _stream(document, deltas, tokens, choices)
    message: dict[str, Any] = {"role": "assistant", "content": spoken, "refusal": None, "annotations": []}
    if calls:
        message |= {"content": None, "tool_calls": [_call(*calls)]}
    finish = "tool_calls" if calls else "stop"
    body = {
        **_frame(document, "chat.completion"),
        "choices": [
            {"index": index, "message": message, "logprobs": None, "finish_reason": finish}
            for index in range(choices)
        ],
        "usage": tokens.chat(),
    }
    return answer.as_json(body, model=document["model"], tokens=tokens)


def completion(document: dict[str, Any], pieces: int = 0) -> Answer:
    """POST /completions."""
    parts = text.words(pieces or text.wanted(document))
    tokens = Tokens.of(document, len(parts))
    frame = {**_frame(document, "text_completion"), "id": "cmpl-mock"}
    if not document.get("stream"):
        choice = {"index": 0, "text": "".join(parts), "logprobs": None, "finish_reason": "stop"}
        body = {**frame, "choices": [choice], "usage": tokens.chat()}
        return answer.as_json(body, model=document["model"], tokens=tokens)
    ends = [None] * (len(parts) - 1) + ["stop"]
    documents = [
        {**frame, "choices": [{"index": 0, "text": part, "logprobs": None, "finish_reason": end}]}
        for part, end in zip(parts, ends, strict=True)
    ]
    return _events(document, documents, frame, tokens)


def _frame(document: dict[str, Any], kind: str) -> dict[str, Any]:
    return {
        "id": "chatcmpl-mock",
        "object": kind,
        "created": answer.CREATED,
        "model": document["model"],
        "service_tier": "default",
        "system_fingerprint": "fp_mock",
    }


def _call(name: str, arguments: str) -> dict[str, Any]:
    return {"id": "call_mock1", "type": "function", "function": {"name": name, "arguments": arguments}}


def _cut(said: str) -> list[str]:
    return [said[start : start + 5] for start in range(0, len(said), 5)]


def _text_deltas(parts: list[str]) -> list[Delta]:
    opening = {"role": "assistant", "content": "", "refusal": None}
    return [(opening, None), *(({"content": part}, None) for part in parts), ({}, "stop")]


def _tool_deltas(name: str, arguments: str) -> list[Delta]:
    first = {"index": 0, **_call(name, "")}
    opening = {"role": "assistant", "content": None, "tool_calls": [first], "refusal": None}
    pieces: list[Delta] = [
        ({"tool_calls": [{"index": 0, "function": {"arguments": part}}]}, None) for part in _cut(arguments)
    ]
    return [(opening, None), *pieces, ({}, "tool_calls")]


def _stream(document: dict[str, Any], deltas: list[Delta], tokens: Tokens, choices: int) -> Answer:
    frame = _frame(document, "chat.completion.chunk")
    documents = [
        {**frame, "choices": [{"index": index, "delta": delta, "logprobs": None, "finish_reason": finish}]}
        for delta, finish in deltas
        for index in range(choices)
    ]
    return _events(document, documents, frame, tokens)


def _events(
    document: dict[str, Any], documents: list[dict[str, Any]], frame: dict[str, Any], tokens: Tokens
) -> Answer:
    """The events; with include_usage each says `"usage":null` and one more, without choices, tells it."""
    if (document.get("stream_options") or {}).get("include_usage"):
        documents = [{**one, "usage": None} for one in documents]
        documents.append({**frame, "choices": [], "usage": tokens.chat()})
    events = [answer.event(one) for one in documents] + [b"data: [DONE]\n\n"]
    return answer.stream(events, document["model"], tokens)
