"""The hot lane: a uvicorn protocol class that frames every request itself, strictly.

Hot endpoints go straight to a conversation; all others are fed, message by message, to uvicorn's
own parser and the ASGI application. Both lanes see only messages that passed `request.parse`, so
strictness stands in one place. The states are those of `connection.py`.
"""

from __future__ import annotations

import time
from typing import Any, Final

from gateway.core.errors import CallerError, GatewayError
from gateway.front import body as bodies
from gateway.front.chunked import ChunkedBody
from gateway.front.connection import AHEAD, BODY, BUSY, COLD, HEAD, LINGER, SHUT, ClientConnection
from gateway.front.conversation import Conversation
from gateway.front.intake import Intake
from gateway.front.request import CHUNKED, Head, hopeless, parse, recall, remember
from gateway.front.stream import LAST_CHUNK
from gateway.front.unstated import UNSTATED
from gateway.live import Live
from gateway.settings.schema import Bounds

HOT: Final = frozenset(
    ("chat/completions", "completions", "embeddings", "responses", "moderations", "rerank")
)


class Lane:
    """Makes the protocols of `uvicorn.Config(http=...)`, bound to this worker's pipeline and bounds."""

    def __init__(self, live: Live, bounds: Bounds) -> None:
        self.intake = Intake(live, bounds)
        self.bounds = bounds

    def __call__(self, config: Any, server_state: Any, app_state: Any) -> LaneProtocol:
        made = LaneProtocol(config, server_state, app_state)
        made.intake = self.intake
        made.bounds = self.bounds
        return made


class LaneProtocol(ClientConnection):
    """One client connection. `intake` and `bounds` are set by `Lane`."""

    # -- bytes in

    def data_received(self, data: bytes) -> None:
        state = self._state
        if state == HEAD:
            if not self._held:
                self._received = time.monotonic()
                self.deadline = self._received + self.bounds.header_time
            self._on_head(data)
        elif state == BODY:
            self._on_body(data)
        elif state == COLD and self._left:
            self._on_cold(data)
        elif state != SHUT:
            self._held += data
        if len(self._held) > AHEAD and not self._ahead and self._state in (BUSY, COLD):
            self._keep_out()

    def _on_head(self, data: bytes) -> None:
        if self._held:
            data = self._held + data
        self._held = b""
        if data[:2] == b"\r\n":  # RFC 9112, 2.2: one empty line before a request is ignored
            data = data[2:]
            if not data:
                return
        end = data.find(b"\r\n\r\n")
        try:
            if end < 0:
                self._held = data
                hopeless(data, self.bounds.headers)
                return
            if end > self.bounds.headers:
                hopeless(data[: end + 4], self.bounds.headers)
            known = recall(data, end)
            if known is not None:
                head, length = known
            else:
                head = parse(data[:end])
                length = head.length
                remember(data, end, head)
            if length > self.bounds.body:
                raise bodies.too_large(self.bounds.body)
        except GatewayError as error:
            self._refuse(error)
            return
        self.minor = head.minor
        if not (head.endpoint in HOT and head.method == "POST" and len(head.path) == len(head.endpoint) + 1):
            self._begin_cold(head, length, data, end + 4)
        elif end + 4 + length == len(data) and length >= 0:
            self._start(head, data[end + 4 :])  # the whole request in one read: what most are
        else:
            self._begin_hot(head, length, data[end + 4 :])

    # -- the hot lane

    def _begin_hot(self, head: Head, length: int, rest: bytes) -> None:
        if 0 <= length <= len(rest):
            if length != len(rest):
                rest, self._held = rest[:length], rest[length:]
            self._start(head, rest)
            return
        if head.continues and not rest:
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        self._head, self._state = head, BODY
        self.deadline = time.monotonic() + self.bounds.body_time
        self._left, self._parts = length, []
        if length == CHUNKED:
            self._chunks = ChunkedBody(self.bounds.body)
        elif not self._reserve(length):
            return
        if rest:
            self._on_body(rest)

    def _on_body(self, data: bytes) -> None:
        if self._chunks is not None:
            self._on_chunks(self._chunks, data)
            return
        self._left -= len(data)
        if self._left < 0:
            data, self._held = data[: self._left], data[self._left :]
        self._parts.append(data)
        if self._left <= 0:
            body, self._parts = b"".join(self._parts), []
            assert self._head is not None
            self._start(self._head, body)

    def _on_chunks(self, chunks: ChunkedBody, data: bytes) -> None:
        try:
            rest = chunks.feed(data)
        except GatewayError as error:
            self._refuse(error)
            return
        if self._reserve(len(chunks.body) - self._reserved) and chunks.done:
            self._chunks, self._held = None, rest
            assert self._head is not None
            self._start(self._head, bytes(chunks.body))

    def _start(self, head: Head, body: bytes) -> None:
        """The request is whole: make the call, which begins with the others of this turn."""
        self._state, self._head = BUSY, None
        self.deadline = 0.0
        call = self.intake.call(head, body, self._received)
        call.client = self._host
        conversation = self._conversation = Conversation(self, call, not head.keep_alive or self._closing)
        self.intake.enter(conversation)
        try:
            if head.encoding:
                bodies.read(call, self.bounds.body)
            else:
                bodies.read_json(call)
        except GatewayError as error:
            conversation.refuse(error)
            return
        self.intake.turn.come(conversation)  # which has it take its steps: `admit`, then `ask`

    # -- the cold lane

    def _begin_cold(self, head: Head, length: int, data: bytes, end: int) -> None:
        self._state, self._answered = COLD, False
        self._left = length
        self._chunks = ChunkedBody(self.bounds.body) if length == CHUNKED else None
        self.deadline = time.monotonic() + (self.bounds.body_time if self._left else LINGER)
        super().data_received(_plain(data[:end], head))
        if self._state == SHUT:
            return
        if head.minor == 0:  # it knows no chunks (RFC 9112, 6.1)
            self.cycle.chunked_encoding, self.cycle.expected_content_length = False, UNSTATED
        rest = data[end:]
        if self._left:
            if rest:
                self._on_cold(rest)
        else:
            self._held = rest

    def _on_cold(self, data: bytes) -> None:
        """Feed uvicorn this message's bytes and no others; chunks as they were read here, once."""
        if self._chunks is not None:
            try:
                rest = self._chunks.feed(data)
            except GatewayError as error:
                self._refuse(error)
                return
            body, end = bytes(self._chunks.body), LAST_CHUNK if self._chunks.done else b""
            data = b"%x\r\n%b\r\n%b" % (len(body), body, end) if body else end
            self._chunks.body.clear()  # uvicorn keeps the body; its size is bounded in front/asgi
            if end:
                self._chunks, self._left = None, 0
        else:
            data, rest = data[: self._left], data[self._left :]
            self._left -= len(data)
        self._held = rest
        if data:
            super().data_received(data)
        if not self._left:
            self.deadline = time.monotonic() + LINGER
            if self._answered:
                self._next()

    def send_400_response(self, msg: str) -> None:
        """Uvicorn's parser knows a list of methods, and no other reason to refuse what comes to it."""
        self._refuse(CallerError("This method is not offered.", status=405, code="caller_method_not_allowed"))

    def on_response_complete(self) -> None:
        """The cold lane's answer has been written (called by uvicorn's cycle)."""
        self.server_state.total_requests += 1
        self._answered = True
        if self.transport.is_closing() or self._state != COLD:
            return
        self.flow.resume_reading()
        if not self._left:
            self._next()


def _plain(data: bytes, head: Head) -> bytes:
    """A head without its wish for another protocol, which may be ignored (RFC 9110, 7.8) and is here."""
    if all([name != b"upgrade" for name, _ in head.headers]):
        return data
    return b"\r\n".join([line for line in data.split(b"\r\n") if line[:8].lower() != b"upgrade:"])
