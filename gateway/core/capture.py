"""Which calls are kept with their texts, and what their texts are. Off unless a tenant asks for it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from zlib import crc32

from gateway.core.call import Call
from gateway.core.codec import JSONError, loads
from gateway.core.group import Capture
from gateway.core.tokens import prompt_text

MOST = 256 * 1024  # bytes of a prompt or an answer, whatever a tenant asks for
BEYOND = 4 * 1024  # bytes more that go along, so that what reaches across the end is seen as a whole

_NAMES = ("text", "content", "reasoning_content", "thinking", "refusal", "arguments")
_NESTED = ("message", "content", "tool_calls", "function", "summary")


def chosen(capture: Capture, id: str) -> bool:
    """Whether a call is in the sample. It hangs on the request id alone, so that every try agrees."""
    sample = capture.sample
    return sample > 0 and (sample >= 1.0 or crc32(id.encode()) < sample * (1 << 32))


def document(call: Call, capture: Capture, answer: bytes, text: bytes) -> dict[str, Any]:
    """What goes to the supervisor: both texts, cut, and what is to be done with them.

    `answer` is a whole JSON answer, `text` what a stream's tap gathered; one of them is empty.
    """
    most = min(capture.most, MOST)
    said = text[: most + BEYOND].decode("utf-8", "ignore") if text else _answered(answer, most + BEYOND)
    return {
        "prompt": cut(conversation(call.document, most + BEYOND), most + BEYOND),
        "response": cut(said, most + BEYOND),
        "redact": capture.redact,
        "most": most,
        "keep": capture.keep,
    }


def cut(text: str, most: int) -> str:
    """At most so many bytes of UTF-8."""
    if len(text) * 4 <= most:
        return text
    return text.encode("utf-8", "replace")[:most].decode("utf-8", "ignore")


def conversation(document: Any, most: int) -> str:
    """A request as people read it: each message after its role; any other request as its texts."""
    messages = document.get("messages") if isinstance(document, dict) else None
    if not isinstance(messages, list):
        return prompt_text(document, most)
    if document.get("system"):  # of /v1/messages, where it is no message
        messages = [{"role": "system", "content": document["system"]}, *messages]
    told: list[str] = []
    room = most
    for message in messages:
        if room <= 0:
            break
        role = message.get("role") if isinstance(message, dict) else None
        said = prompt_text({"input": message}, room)
        told.append(f"[{role}] {said}" if isinstance(role, str) else said)
        room -= len(told[-1]) + 1
    return "\n".join(told)


def _answered(answer: bytes, most: int) -> str:
    try:
        found = loads(answer) if answer else None
    except JSONError:
        return ""
    return "".join(_cut_off(generated(found), most)) if isinstance(found, dict) else ""


def _cut_off(texts: list[str], most: int) -> Iterator[str]:
    for text in texts:
        if most <= 0:
            return
        yield text[:most]
        most -= len(text)


def generated(document: dict[str, Any]) -> list[str]:
    """The texts a model wrote, of a chat completion, a completion, a response or a message, in order."""
    found: list[str] = []
    waiting = [document.get("choices"), document.get("output"), document.get("content")]
    waiting.reverse()
    while waiting:
        value = waiting.pop()
        if isinstance(value, list):
            waiting.extend(reversed(value))
        elif isinstance(value, dict):
            found += [value[name] for name in _NAMES if isinstance(value.get(name), str)]
            if value.get("type") == "tool_use" and (asked := prompt_text({"input": value.get("input")})):
                found.append(asked)
            waiting.extend(
                value[name] for name in reversed(_NESTED) if isinstance(value.get(name), (list, dict))
            )
    return found
