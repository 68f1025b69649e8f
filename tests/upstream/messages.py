"""Anthropic's Messages API as compatible servers offer it, whole and as its typed events."""

from __future__ import annotations

from typing import Any

from tests.upstream import answer, text
from tests.upstream.answer import Answer
from tests.upstream.tokens import Tokens


def create(document: dict[str, Any], pieces: int = 0) -> Answer:
    """POST /messages."""
    parts = text.words(pieces or text.wanted(document))
    tokens = Tokens.of(document, len(parts))
    message = {"id": "msg_mock", "type": "message", "role": "assistant", "model": document["model"]}
    ended = {"stop_reason": "end_turn", "stop_sequence": None}
    if not document.get("stream"):
        content = [{"type": "text", "text": "".join(parts)}]
        body = {**message, "content": content, **ended, "usage": tokens.messages()}
        return answer.as_json(body, model=document["model"], tokens=tokens)
    begun = {
        **message,
        "content": [],
        "stop_reason": None,
        "usage": {**tokens.messages(), "output_tokens": 1},
    }
    output = {"output_tokens": tokens.completion}
    documents: list[dict[str, Any]] = [
        {"type": "message_start", "message": begun},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "ping"},
        *(
            {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": part}}
            for part in parts
        ),
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": ended, "usage": output},
        {"type": "message_stop"},
    ]
    return answer.stream([answer.event(one, one["type"]) for one in documents], document["model"], tokens)
