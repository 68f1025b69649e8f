"""The Responses API, whole and as its typed events."""

from __future__ import annotations

from typing import Any

from tests.upstream import answer, text
from tests.upstream.answer import Answer
from tests.upstream.tokens import Tokens, count


def create(document: dict[str, Any], pieces: int = 0) -> Answer:
    """POST /responses."""
    calls = text.tool_call(document)
    said = text.structured(document)
    parts = [said] if said is not None else text.words(pieces or text.wanted(document))
    item = _call_item(*calls) if calls else _message("".join(parts))
    cost = count(calls[1]) + 8 if calls else len(parts) if said is None else count(said)
    tokens = Tokens.of(document, cost)
    whole = {**_response(document, "completed"), "output": [item], "usage": tokens.responses()}
    if not document.get("stream"):
        return answer.as_json(whole, model=document["model"], tokens=tokens)
    middle = _call_events(item, calls[1]) if calls else _text_events(item, parts)
    begun = _response(document, "in_progress")
    documents: list[dict[str, Any]] = [
        {"type": "response.created", "response": begun},
        {"type": "response.in_progress", "response": begun},
        {"type": "response.output_item.added", "output_index": 0, "item": {**item, "status": "in_progress"}},
        *middle,
        {"type": "response.output_item.done", "output_index": 0, "item": item},
        {"type": "response.completed", "response": whole},
    ]
    events = [
        answer.event({**one, "sequence_number": number}, one["type"]) for number, one in enumerate(documents)
    ]
    return answer.stream(events, document["model"], tokens)


def stored(identifier: str) -> dict[str, Any]:
    """GET /responses/{id}: a completed one."""
    return {**_response({"model": "gpt-4o-mini"}, "completed"), "id": identifier, "output": [_message("ok")]}


def _response(document: dict[str, Any], status: str) -> dict[str, Any]:
    return {
        "id": "resp_mock",
        "object": "response",
        "created_at": answer.CREATED,
        "status": status,
        "background": False,
        "error": None,
        "incomplete_details": None,
        "instructions": document.get("instructions"),
        "max_output_tokens": document.get("max_output_tokens"),
        "model": document["model"],
        "output": [],
        "parallel_tool_calls": True,
        "previous_response_id": document.get("previous_response_id"),
        "reasoning": {"effort": None, "summary": None},
        "service_tier": "default",
        "store": True,
        "temperature": 1.0,
        "text": document.get("text") or {"format": {"type": "text"}},
        "tool_choice": document.get("tool_choice", "auto"),
        "tools": document.get("tools", []),
        "top_p": 1.0,
        "truncation": "disabled",
        "usage": None,
        "user": None,
        "metadata": document.get("metadata", {}),
    }


def _message(said: str) -> dict[str, Any]:
    part = {"type": "output_text", "text": said, "annotations": [], "logprobs": []}
    return {
        "id": "msg_mock",
        "type": "message",
        "status": "completed",
        "role": "assistant",
        "content": [part],
    }


def _call_item(name: str, arguments: str) -> dict[str, Any]:
    return {
        "id": "fc_mock",
        "type": "function_call",
        "status": "completed",
        "call_id": "call_mock1",
        "name": name,
        "arguments": arguments,
    }


def _text_events(item: dict[str, Any], parts: list[str]) -> list[dict[str, Any]]:
    place = {"item_id": item["id"], "output_index": 0, "content_index": 0}
    part = item["content"][0]
    return [
        {"type": "response.content_part.added", **place, "part": {**part, "text": ""}},
        *({"type": "response.output_text.delta", **place, "delta": one, "logprobs": []} for one in parts),
        {"type": "response.output_text.done", **place, "text": part["text"], "logprobs": []},
        {"type": "response.content_part.done", **place, "part": part},
    ]


def _call_events(item: dict[str, Any], arguments: str) -> list[dict[str, Any]]:
    place = {"item_id": item["id"], "output_index": 0}
    return [
        {"type": "response.function_call_arguments.delta", **place, "delta": arguments},
        {
            "type": "response.function_call_arguments.done",
            **place,
            "name": item["name"],
            "arguments": arguments,
        },
    ]
