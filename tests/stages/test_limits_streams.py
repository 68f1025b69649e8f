"""Streams of unknown length: they end where the limit does, whatever they are made of."""

from __future__ import annotations

import json
from typing import Any

import pytest

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


USAGE = {"prompt_tokens": 10, "total_tokens": 10}


@pytest.mark.parametrize("said", [0, 1])
@pytest.mark.parametrize("always", [False, True])
def test_a_usage_that_is_stated_too_early_switches_nothing_off(said: int, always: bool) -> None:
    _, tap = begun(LimitRule("o", ("key",), "output_tokens", 3000, 3600.0))
    more: dict[str, Any] = {"usage": {**USAGE, "completion_tokens": said}}
    tap.feed(frame("", **more))
    pieces, error = passed(tap, " tok" * 10, 900, **more if always else {})
    assert error is not None and 200 <= pieces <= 320


def test_counts_that_are_stated_all_along_are_believed_more_than_the_text() -> None:
    _, tap = begun(LimitRule("o", ("key",), "output_tokens", 3000, 3600.0))
    count = 0
    with pytest.raises(PolicyError):
        for count in range(0, 4000, 3):
            more = {**USAGE, "completion_tokens": count}
            run(lambda: tap.feed(frame("overconfident responsibility", usage=more)))  # noqa: B023
    assert 2950 <= count <= 3060


def test_what_comes_after_the_last_count_is_added_to_it() -> None:
    _, tap = begun(LimitRule("o", ("key",), "output_tokens", 3000, 3600.0))
    tap.feed(frame(" tok" * 600, usage={**USAGE, "completion_tokens": 600}))
    pieces, error = passed(tap, " tok" * 600, 9)
    assert error is not None and pieces in (2, 3, 4)
