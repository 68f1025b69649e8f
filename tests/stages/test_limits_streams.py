"""Streams of unknown length: they end where the limit does, whatever they are made of."""

from __future__ import annotations

import json
from typing import Any

from gateway.core.call import Call
from gateway.core.errors import PolicyError
from gateway.core.limit import LimitRule
from gateway.core.tap import ChatTap
from tests.stages.test_limits import chat, limits, run


def begun(rule: LimitRule) -> tuple[Call, ChatTap]:
    """A stream that is admitted, and the tap that its answer passes through."""
    made, tap = chat(stream=True), ChatTap()
    run(lambda: limits(rule).admit(made))
    tap.watch(made.memo["growth"].look)
    return made, tap


def frame(text: str, **more: Any) -> bytes:
    chunk = {"id": "c", "choices": [{"index": 0, "delta": {"content": text}}], **more}
    return b"data: %b\n\n" % json.dumps(chunk).encode()


def passed(tap: ChatTap, text: str, most: int, **more: Any) -> tuple[int, PolicyError | None]:
    """How many such pieces pass before the stream is ended, and by what."""
    piece, number = frame(text, **more), 0
    try:
        for number in range(most):  # noqa: B007
            run(lambda: tap.feed(piece))
    except PolicyError as error:
        return number, error
    return most, None


def test_a_stream_longer_than_what_is_kept_of_it_is_ended_too() -> None:
    _, tap = begun(LimitRule("o", ("key",), "output_tokens", 100_000, 3600.0))
    pieces, error = passed(tap, " tok" * 1000, 300)
    assert error is not None and error.code == "policy_rate_limited"
    assert 65 <= pieces <= 102
