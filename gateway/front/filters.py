"""What an answer that comes in pieces goes through on its way out, where each piece is waited for."""

from __future__ import annotations

from gateway.core.call import Call
from gateway.core.reply import Reply
from gateway.pipeline import Emitter, Pipeline, told


class Filters:
    """Tap and listening stages of one stream, in the pull form."""

    def __init__(self, reply: Reply, call: Call, pipeline: Pipeline) -> None:
        self._call, self._tap = call, reply.tap
        self._emitter = Emitter(call, pipeline.emits, reply.event_stream) if pipeline.emits else None

    async def feed(self, piece: bytes) -> bytes:
        """What goes on of a piece. Raises `GatewayError`."""
        try:
            if self._tap is not None:
                piece = self._tap.feed(piece)
            return await self._emitter.feed_waiting(piece) if self._emitter is not None and piece else piece
        except Exception as error:
            raise told(self._call, error) from error

    async def finish(self) -> bytes:
        """The body has ended: what was still held back."""
        rest = self._tap.finish() if self._tap is not None else b""
        return rest if self._emitter is None else await self._emitter.finish_waiting(rest)
