"""The taps: what is read off the answers of each kind of endpoint while they pass. Sans-IO."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from gateway.core.messages import MessagesTap
from gateway.core.said import texts
from gateway.core.search import Search
from gateway.core.stream import StreamTap
from gateway.core.usage import Usage

_CHAT = frozenset(("chat/completions", "completions"))


def tap_of(endpoint: str, hide_usage: bool, scrub: Callable[[bytes], bytes]) -> StreamTap:
    """The one that reads the streams of an endpoint."""
    if endpoint in _CHAT:
        return ChatTap(hide_usage, scrub=scrub)
    return MessagesTap(scrub=scrub) if endpoint == "messages" else ResponsesTap(scrub=scrub)


class ChatTap(StreamTap):
    """Streams of chat/completions and completions.

    `hide_usage`: usage was asked for by the gateway and not by the caller, so that the extra chunk which
    has it, and no choices, is kept from the caller.
    """

    __slots__ = ()

    CONTENT = re.compile(
        rb'"(?:content|reasoning_content|reasoning|refusal|text|arguments|data)"[ \t]*:[ \t]*"[^"]'
        rb'|"(?:tool_calls|function_call)"[ \t]*:[ \t]*[\[{][ \t]*[^\]}]'
    )
    FINISHED = re.compile(rb'"finish_reason"[ \t]*:[ \t]*"')
    TEXTS = texts(b"content", b"reasoning_content", b"reasoning", b"refusal", b"arguments", b"text")

    def _extra(self, document: dict[str, Any]) -> bool:
        return document.get("choices") == []

    def _may_hide(self, beginning: bytes) -> bool:
        return b'"choices":[{' not in beginning


class ResponsesTap(StreamTap):
    """Streams of responses, and of other endpoints whose last event has the usage (audio, images)."""

    __slots__ = ()

    CONTENT = re.compile(rb'"delta"[ \t]*:[ \t]*"[^"]|"partial_image_b64"')
    FINISHED = re.compile(
        rb'"type"[ \t]*:[ \t]*"(?:response\.(?:completed|incomplete|failed)'
        rb'|(?:speech\.audio|transcript\.text)\.done|image_\w+\.completed)"'
    )
    TEXTS = texts(b"delta")
    DEEP = 2

    def _usage_in(self, document: dict[str, Any]) -> Any:
        response = document.get("response")
        return response.get("usage") if isinstance(response, dict) else document.get("usage")

    def _is_error(self, frame: bytes) -> bool:
        return b'"response.failed"' in frame or super()._is_error(frame)

    @property
    def done(self) -> bool:
        """Whether the event has come that ends a response."""
        return self.finished or super().done


class BodyTap:
    """A body that is no event stream and too long to be held: its usage is looked for, its text is not.

    `size` are the bytes that came; of a body that is not `readable` nobody can tell how much that is (-1).
    """

    __slots__ = (
        "_passed",
        "_readable",
        "_search",
        "_usage",
        "done",
        "error",
        "finished",
        "first_token",
        "text",
    )

    clean = False
    seen = False

    def __init__(self, readable: bool = True) -> None:
        self._search: Search | None = Search()
        self._readable = readable
        self._usage: Usage | None = None
        self._passed = 0
        self.first_token = 0.0
        self.text = b""
        self.done = self.finished = self.error = False

    def watch(self, look: Callable[[int, Usage | None], None]) -> None:
        """Of such a body nobody knows before its end how much has come."""

    def keep_text(self) -> None:
        """Such a body is too long to be kept."""

    def feed(self, data: bytes) -> bytes:
        """Look at a piece."""
        self._look(data)
        return data

    def _look(self, data: bytes) -> None:
        self._passed += len(data)
        if self._search is not None and self._readable:
            self._search.feed(data)

    def finish(self) -> bytes:
        """The body has ended."""
        self.done = True
        return b""

    @property
    def usage(self) -> Usage | None:
        """What it states, or stated before it broke off. Asked for when it has ended."""
        if self._search is not None:
            self._usage, self._search = self._search.end(), None
        return self._usage

    @property
    def size(self) -> int:
        """Bytes of what can be read, -1 where nothing can be."""
        return self._passed if self._readable else -1
