"""A plain call to a known model, of a caller who has plenty left: what it may use at most, in few steps.

Streams are not among them: one may have to be topped up, by what its claim says.
Measuring a claim (`claim.py`) costs several times as much; it is what tells how close a caller may get to
the end of a limit. Far from it a bound that is too high harms nobody: it is held for as long as the call
takes, and settled by what was used.
"""

from __future__ import annotations

from typing import Final

from gateway.core.call import Call
from gateway.core.cost import SCALE
from gateway.core.endpoints import BOUNDS, GENERATING
from gateway.core.prompt import DENSEST, measure
from gateway.stages.limits.terms import Terms

AMPLE: Final = 64  # as many such calls would fit into what is left
WELL: Final = 128  # answers after which only some of them are looked at

_MESSAGES: Final = 16


class Lesson:
    """Such a call all the same, of which something is to be learned: the gateway goes on learning."""

    __slots__ = ("prompt", "terms")

    def __init__(self, call: Call, terms: Terms) -> None:
        self.prompt = measure(call.body, call.document, call.model)  # type: ignore[arg-type]
        self.terms = terms

    def learn(self, input: int, output: int) -> None:
        """What the call has used."""
        self.terms.learn(self.prompt, input, output)


def ample(call: Call, terms: Terms) -> tuple[int, ...] | None:
    """Amounts in the order of `core.limit.UNITS`; None where the call is to be measured, or is a lesson.

    One of four is.
    """
    habit = terms.habits[0]
    habit.turn = turn = habit.turn + 1
    return bounds(call, terms) if turn & 3 else None


def bounds(call: Call, terms: Terms) -> tuple[int, ...] | None:
    """As `ample`, of any call."""
    habits = terms.habits
    habit = habits[0]
    if call.stream or habit.density > DENSEST or call.endpoint not in GENERATING:
        return None
    if habit.seen < WELL and habits[-1].seen < WELL:  # with a new model each answer is looked at
        return None
    document = call.document
    messages = document.get("messages")  # type: ignore[union-attr]
    if type(messages) is not list or len(messages) > _MESSAGES or "n" in document or "best_of" in document:  # type: ignore[operator]
        return None
    for each in messages:
        if type(each) is not dict or type(each.get("content")) is not str:
            return None
    output, cap = 0, terms.cap
    for name in BOUNDS[call.endpoint]:
        if name in document:  # type: ignore[operator]
            given = document[name]  # type: ignore[index]
            if type(given) is int and given > output:
                output = given
    if cap and (not output or cap < output):
        output = cap
    if not output:
        output = habit.output or terms.usual()
        if not output:
            return None
    # As `Prompt.most`, of the whole body.
    input = (len(call.body) * 23 >> 5) + 4 * len(messages) + 16 + habit.overhead
    form, buckets = terms.form, terms.buckets
    dearest_in, dearest_out, request = form.rates
    micros = request - (-(input * dearest_in + output * dearest_out) // SCALE)
    amounts = (1, input + output, micros, 1, input, output)
    for place, unit in form.measured:
        bucket = buckets[place]
        if amounts[unit] * AMPLE > bucket.left + bucket.free:
            return None
    return amounts
