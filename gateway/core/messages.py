"""The tap for streams of Anthropic's Messages API. Sans-IO."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import Any

from gateway.core.codec import JSONError, frame_data, loads
from gateway.core.stream import StreamTap
from gateway.core.usage import UNKNOWN, from_openai

# What is generated is the text of a delta, or of the block that begins. What a tool of the provider's gave
# back stands deeper in a block, and what is cited (`cited_text`) is not generated either.
_TEXT = (
    rb'"(?:delta|content_block)"[ \t]*:[ \t]*\{[ \t]*(?:"type"[ \t]*:[ \t]*"\w+"[ \t]*,[ \t]*)?'
    rb'"(?:text|partial_json|thinking)"[ \t]*:[ \t]*"'
)
_TOOL = rb'"content_block"[ \t]*:[ \t]*\{[ \t]*"type"[ \t]*:[ \t]*"tool_use"'
_STOP = re.compile(rb'"type"[ \t]*:[ \t]*"message_stop"')

_INPUTS = ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")
_OUTPUT = "output_tokens"


class MessagesTap(StreamTap):
    """Streams of messages: `message_start` tells the tokens of the prompt, `message_delta` the answer's.

    As long as not both are known, `usage` holds what has been told so far, and its source is `unknown`. Text
    is gathered all the while. Source: Anthropic API reference, Streaming Messages.
    """

    __slots__ = ("_answered", "_told")

    CONTENT = re.compile(_TEXT + rb'[^"]|' + _TOOL)
    FINISHED = re.compile(rb'"stop_reason"[ \t]*:[ \t]*"')
    TEXTS = (re.compile(_TEXT + rb'((?:[^"\\]++|\\.)+)"'),)

    def __init__(
        self,
        hide_usage: bool = False,
        clock: Callable[[], float] = time.monotonic,
        scrub: Callable[[bytes], bytes] | None = None,
    ) -> None:
        super().__init__(hide_usage, clock, scrub)
        self._told: dict[str, int] = {}
        self._answered = False  # the usage of the whole answer has been told, not only how it began
        self.keep_text()

    def _read(self, frame: bytes) -> bool:
        try:
            document = loads(frame_data(frame))
        except JSONError:
            return True
        if isinstance(document, dict):
            message = document.get("message")
            if isinstance(message, dict):
                self._merge(message.get("usage"), True)
            else:
                self._merge(document.get("usage"), False)
        return True

    def _merge(self, raw: Any, begun: bool) -> None:
        """What is told later stands. Many servers begin with zeros, or repeat one, where they don't know."""
        if not isinstance(raw, dict):
            return
        inputs = {name: raw[name] for name in _INPUTS if type(raw.get(name)) is int}
        if any(inputs.values()):
            self._told |= inputs
        output = raw.get(_OUTPUT)
        if type(output) is int:
            self._told[_OUTPUT] = output
            self._answered = not begun and (output > 0 or not self.text)
        usage = from_openai(dict.fromkeys(_INPUTS, 0) | self._told)
        if usage is not None and not (self._answered and usage.input_total):
            usage.source = UNKNOWN
        self.usage = usage

    @property
    def done(self) -> bool:
        """Whether the event has come that ends a message."""
        return _STOP.search(self._end()) is not None or super().done
