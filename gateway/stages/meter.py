"""What did it take? Usage, money and timings of a finished call, written to the journal once."""

from __future__ import annotations

import logging
import time
from typing import Any, Final

from gateway.core.call import Call
from gateway.core.cost import of_call
from gateway.core.endpoints import COMPACT, COUNTED, GENERATING
from gateway.core.parts import Parts
from gateway.core.ports import Stage
from gateway.core.prompt import believable, guessed, guessed_text
from gateway.core.record import settled
from gateway.core.usage import ESTIMATED, NONE, UNKNOWN, Usage

log: Final = logging.getLogger("penstock.meter")

_MOST_MICROS: Final = 1 << 53
_ANSWERING: Final = GENERATING | {COMPACT}  # what comes back there are tokens, too
_WORDED: Final = frozenset(
    ("/chat/completions", "/completions", "/responses", "/messages")
)  # streams here say that they have ended


# The gateway hung up on a provider that was at work, and bills for that.
_GIVEN_UP: Final = frozenset(
    (
        "upstream_first_byte_timeout",
        "upstream_idle_timeout",
        "upstream_total_timeout",
        "gateway_draining",
    )
)


class Meter(Stage):
    """Settles first of all stages (they settle in reverse order), so that the others see the usage."""

    def __init__(self, options: Any, parts: Parts) -> None:
        self._backends = parts.backends
        self._journal = parts.journal
        self._prices = parts.prices
        self._worker = parts.worker
        self._seal = parts.seal

    def settle(self, call: Call) -> None:  # type: ignore[override]
        """Fix usage, cost and times, and write the record."""
        now = time.monotonic()
        text: bytes = call.memo.get("text", b"")  # a whole answer that states no usage
        try:
            text = self._used(call, now, text)
        except Exception:  # a row that says little is worth more than none
            log.exception("the usage of %s can't be told", call.id)
            call.usage = Usage(source=UNKNOWN)
        try:
            record = settled(call, self._worker, now, text, self._seal)
        except Exception:
            log.exception("the record of %s is left without what a plugin noted", call.id)
            _bare(call)
            record = settled(call, self._worker, now, b"", None)
        self._journal.end(call.slot, record)

    def _used(self, call: Call, now: float, text: bytes) -> bytes:
        """Usage and cost; gives the generated text where it is needed."""
        source = call.memo.get("source")
        if source is not None:
            call.replied = source.done_at or now
            text = self._streamed(call)
        if call.usage.source == UNKNOWN or (call.usage.source == NONE and _owed(call)):
            self._guess(call, text)
        if source is not None or call.usage.source == ESTIMATED:
            call.cost = of_call(call, self._backends, self._prices)
        return text

    def _streamed(self, call: Call) -> bytes:
        """Take over what the tap saw; gives the generated text where it is needed."""
        tap = call.memo.get("tap")
        if tap is None:
            return b""
        call.first_token = tap.first_token
        if call.outcome == "ok":
            _judge(call, tap)
        usage: Usage | None = tap.usage
        if usage is not None:
            call.usage = usage
            if not usage.output_total or call.outcome != "ok":
                _doubt(usage, tap)
            if call.capture is None and usage.source != UNKNOWN:
                return b""
        if not tap.seen:
            call.memo["size"] = tap.size
        text: bytes = tap.text
        return text

    def _guess(self, call: Call, text: bytes) -> None:
        """No usage from the provider: count what was sent and what came, and say that it is a guess.

        A stream may have stated what its prompt was, and how much had come by then: it is no less than that,
        and nobody counts the prompt again. Of an answer in a coding that nobody here reads there is nothing
        to guess by: the hold stands.
        """
        memo, told, output = call.memo, call.usage, 0
        if call.path[1:] in _ANSWERING:
            if "source" not in memo and "text" not in memo:
                memo.setdefault("size", 0)  # no answer came
            size: int = memo.get("size", len(text))
            if size < 0:
                call.usage = Usage(source=UNKNOWN)
                return
            output = guessed_text(text)
            if size > len(text):
                output = output * size // len(text) if text else (size + 3) // 4
        else:
            memo.pop("size", None)  # no part of that was generated
        output = max(output, told.output_total)
        if told.source == UNKNOWN and told.input_total:
            told.output, told.reasoning, told.audio_output, told.source = output, 0, 0, ESTIMATED
            memo["prompt_told"] = True
            return
        prompt = guessed(call.body, call.document, call.model)
        call.usage = Usage(input=prompt, output=output, source=ESTIMATED)


def _bare(call: Call) -> None:
    """Leave what every record can have."""
    call.reasons, call.tags, call.session = {}, (), ""
    call.capture = None
    if not 0 <= call.cost < _MOST_MICROS:
        call.cost = 0


def _judge(call: Call, tap: Any) -> None:
    """What no framing shows: an error told inside the stream, or an end without the words that end one."""
    if tap.error:
        call.outcome, call.code = "upstream_error", "upstream_error_event"
    elif call.path in _WORDED and _untold(tap.usage) and not (tap.done or tap.finished):
        call.outcome, call.code = "truncated", "upstream_closed"


def _untold(usage: Usage | None) -> bool:
    return usage is None or usage.source == UNKNOWN


def _doubt(usage: Usage, tap: Any) -> None:
    """What was stated of a stream that did not come to its end may be what there was when it began."""
    tap.keep_text()  # also what has not been looked through yet
    if tap.text and not believable(usage.output_total, tap.size):
        usage.source = UNKNOWN


def _owed(call: Call) -> bool:
    """Whether tokens were used although nobody said how many."""
    if call.path[1:] not in COUNTED or not call.sent or call.method != "POST":
        return False
    return call.status < 300 or call.outcome in ("client_gone", "truncated") or call.code in _GIVEN_UP
