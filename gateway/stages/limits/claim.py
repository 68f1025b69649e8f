"""What a call may use, as it is reserved: its prompt, and as much of an answer as is wise."""

from __future__ import annotations

from typing import Any, Final

from gateway.core.amend import Draft
from gateway.core.call import Call
from gateway.core.cost import SCALE
from gateway.core.endpoints import BOUNDS, GENERATING
from gateway.core.prompt import DENSEST, Prompt, density, measure
from gateway.core.tokens import estimate
from gateway.stages.limits.ample import WELL
from gateway.stages.limits.form import OUTPUT, TOKENS, USD
from gateway.stages.limits.habit import ENOUGH
from gateway.stages.limits.terms import Terms

DEFAULT_OUTPUT: Final = 1024  # tokens of an answer whose length nobody bounds and nobody has learned yet
PLENTY: Final = 8  # a claim is small where so many of it would fit into what is left
_UNLEARNED: Final = 2  # its part that a call may claim before anything is known about its answers

# With one of these a prompt goes on from what the provider keeps or finds: nothing here tells its size.
_LINKED: Final = ("previous_response_id", "conversation", "container", "web_search_options")
_OWN_TOOLS: Final = frozenset(("function", "custom"))
_TRIES: Final = 3  # of the least claim: what is left may have become less meanwhile

_MOST_OUTPUT: Final = 1 << 31
_MOST_ANSWERS: Final = 128
_LEAST_BOUND: Final = 16  # tokens; some providers take no smaller bound

# How much is claimed: first all that the call could use, which costs nobody anything while that is little
# beside what is left; then what it is likely to use, and a part of what is left; then only the former.
_ALL, _PART, _LEAST = range(3)


class Claim:
    """One call's. `input` and `output` are tokens; `most` is the longest answer there can be (0: not known).

    `stated`: the caller bounds the answer, so the gateway can bound it further. `bound` is the longest the
    provider is asked for, 0 where the caller's word was left as it is.
    """

    __slots__ = (
        "answers", "bound", "input", "level", "linked", "most", "output", "prompt", "stated", "terms", "turn",
    )  # fmt: skip

    def __init__(self, call: Call, terms: Terms) -> None:
        document: dict[str, Any] = call.document  # type: ignore[assignment]
        self.terms = terms
        self.turn = 0
        self.level = _ALL
        self.prompt: Prompt | None = None
        self.answers = 1 if call.endpoint in GENERATING else 0
        self.most = self.bound = self.output = 0
        self.stated = False
        self.linked = _linked(document)
        if terms.form.measured:
            self.turn = terms.habits[0].turn
            self.prompt = prompt = measure(call.body, document, call.model)
            size, messages, attached = prompt
            # As `Prompt.most`, without the frame; and as much as was learned, where that is more.
            self.input = (size * 23 >> 5) + 4 * messages + 16 + attached + self._overhead()
            if terms.habits[0].density > DENSEST:
                self.input = self._learned(prompt)
        else:
            self.input = estimate(call.body, document)
        if self.answers:
            self._answer(document, call.endpoint)

    def _answer(self, document: dict[str, Any], endpoint: str) -> None:
        most = 0
        for name in BOUNDS[endpoint]:
            if name in document:
                given = document[name]
                if type(given) is int and given > most:
                    most = given
        self.stated = most > 0
        cap = self.terms.cap
        if cap and (not most or cap < most):
            most = cap
        for name in ("n", "best_of"):
            if name in document:
                self.answers = max(_answers(document[name]), self.answers)
        prompts = document.get("prompt") if endpoint == "completions" else None
        if type(prompts) is list and prompts and type(prompts[0]) is not int:  # one answer to each
            self.answers *= len(prompts)
        self.most = min(most, _MOST_OUTPUT) * self.answers
        self.output = self.most or (self.terms.usual() or DEFAULT_OUTPUT) * self.answers

    @property
    def tokens(self) -> int:
        """In all."""
        return self.input + self.output

    def micros(self) -> int:
        """The most they can cost, in micro-dollars, rounded up."""
        dearest_in, dearest_out, request = self.terms.form.rates
        return request - (-(self.input * dearest_in + self.output * dearest_out) // SCALE)

    def plenty(self, amounts: tuple[int, ...]) -> bool:
        """Whether what it takes is little beside what is left, as far as is known here."""
        buckets = self.terms.buckets
        for place, unit in self.terms.form.measured:
            bucket = buckets[place]
            if amounts[unit] * PLENTY > bucket.left + bucket.free:
                return False
        return True

    # -- less

    def moderate(self, call: Call) -> None:
        """Claim a part of what is left, as it is known here, and what is likely to be used at least."""
        assert self.prompt is not None, "only a claim that is measured is ever too large"
        self.level = _PART
        self.input = min(self.input, self._likely(self.prompt, call.body))
        self.output = self._part(call)

    def less(self, call: Call) -> bool:
        """Claim less, if less could do; False where it already is the least."""
        before = (self.input, self.output)
        if self.level == _ALL:
            self.moderate(call)
            if (self.input, self.output) != before:
                return True
        if self.level >= _LEAST + _TRIES:
            return False
        self.level = max(self.level + 1, _LEAST)
        self.input = self._possible(call)
        self.output = self._least(call)
        return (self.input, self.output) != before

    def _likely(self, prompt: Prompt, body: bytes) -> int:
        habit = self.terms.habits[0]
        if habit.seen >= ENOUGH and habit.density:
            return self._learned(prompt)
        return max(prompt.at(density(body)), self._learned(prompt))

    def _learned(self, prompt: Prompt) -> int:
        return prompt.at(self.terms.habits[0].density) + self._overhead()

    def _overhead(self) -> int:
        habit = self.terms.habits[0]
        return habit.linked if self.linked else habit.overhead

    def _possible(self, call: Call) -> int:
        """The prompt; no more than a limit gives at all where that is what was learned from others: a guess
        that can't come true would shut the caller out for good.
        """
        assert self.prompt is not None
        least = self.prompt.at(density(call.body))
        if self.input <= least:
            return self.input
        rates, floor = self.terms.form.rates, self._floor(call)
        for place, unit in self.terms.form.measured:
            most = self.terms.buckets[place].rule.amount
            if unit == TOKENS:
                most -= floor
            elif unit == USD:
                most = ((most - rates.request) * SCALE - floor * rates.output) // max(rates.input, 1)
            if unit != OUTPUT and most < self.input:
                self.input = max(most, least)
        return self.input

    def _least(self, call: Call) -> int:
        """The usual length; never so little that a provider would not take it as a bound."""
        own = self.terms.habits[0].output
        likely, floor = (own or self.terms.usual() or DEFAULT_OUTPUT) * self.answers, self._floor(call)
        if self.level >= _LEAST:
            # What this caller's answers usually have, if a limit gives so much at all; where there were none
            # yet, no guess keeps out what would fit: a part of what is left does.
            buckets = [(self.terms.buckets[place], unit) for place, unit in self.terms.form.measured]
            rooms = [
                self._room(each.rule.amount, unit, 1)
                if own
                else self._room(each.left + each.free, unit, _UNLEARNED)
                for each, unit in buckets
            ]
            likely = min(likely, *rooms)
        if not self.most:
            return max(likely, min(floor, DEFAULT_OUTPUT))
        return min(max(likely, floor), self.most)

    def _floor(self, call: Call) -> int:
        """The smallest bound there can be: a thinking budget must lie below it (Anthropic's `thinking`)."""
        thinking = call.document.get("thinking")  # type: ignore[union-attr]
        budget = thinking.get("budget_tokens") if type(thinking) is dict else None
        least = budget + _LEAST_BOUND if type(budget) is int and budget > 0 else _LEAST_BOUND
        return least * self.answers

    def _part(self, call: Call) -> int:
        """The usual length or a part of what is left, whichever is more; the caller's bound at most."""
        least = self._least(call)
        if not self.stated:
            return least
        share = PLENTY if self.terms.usual() else _UNLEARNED
        buckets = [(self.terms.buckets[place], unit) for place, unit in self.terms.form.measured]
        room = min([self._room(bucket.left + bucket.free, unit, share) for bucket, unit in buckets])
        return max(min(self.most, room) // self.answers * self.answers, least)

    def _room(self, left: int, unit: int, share: int) -> int:
        """Tokens of an answer that a part of what is left of a unit would do for."""
        part = left // share
        if unit == TOKENS:
            return part - self.input
        if unit == OUTPUT:
            return part
        rates = self.terms.form.rates
        if unit == USD and rates.output:
            return ((part - rates.request) * SCALE - self.input * rates.input) // rates.output
        return _MOST_OUTPUT

    # -- afterwards

    def restrain(self, call: Call) -> None:
        """Ask the provider for no more than is held."""
        if not self.stated or self.output >= self.most:
            return
        self.bound = self.output // self.answers
        draft = Draft(call)
        for name in BOUNDS[call.endpoint]:
            given = draft.document.get(name)
            if type(given) is int and given > self.bound:
                draft.put(name, self.bound)
        before = call.reasons.get("limits")
        call.reasons["limits"] = f"{before},bounded" if before else "bounded"

    def learn(self, input: int, output: int) -> None:
        """What the call has used."""
        habits = self.terms.habits
        each = output // (self.answers or 1)
        if self.bound and each >= self.bound:  # cut short: nobody knows how long it would have been
            each = min(2 * each, self.most // self.answers)
        if self.prompt is not None and (habits[0].seen < WELL or not self.turn & 3):
            self.terms.learn(self.prompt, input, each, self.linked)


def _answers(given: Any) -> int:
    """How many answers are asked for; many a server takes 2.0 and "2" for 2. 0 where it is no number."""
    if type(given) is int:
        return min(given, _MOST_ANSWERS)
    if type(given) is not float and type(given) is not str:
        return 0
    try:
        return int(min(float(given), _MOST_ANSWERS))
    except (ValueError, OverflowError):
        return 0


def _linked(document: dict[str, Any]) -> bool:
    for name in _LINKED:
        if document.get(name):
            return True
    if type(document.get("prompt")) is dict:  # a template that is kept there
        return True
    tools = document.get("tools")
    if type(tools) is not list:
        return False
    return any([type(each) is dict and each.get("type") not in _OWN_TOOLS for each in tools])
