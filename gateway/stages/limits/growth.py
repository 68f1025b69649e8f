"""A stream that may outgrow what its call holds: topped up while it runs, ended where nothing is left."""

from __future__ import annotations

from typing import Final

from gateway.core.call import Call
from gateway.core.cost import SCALE
from gateway.core.hold import Hold
from gateway.core.limit import Bucket, Denial
from gateway.core.ports import Leases
from gateway.core.prompt import believable
from gateway.core.usage import Usage
from gateway.stages.limits.claim import Claim
from gateway.stages.limits.form import USD
from gateway.stages.limits.refusal import cut

_DENSITY: Final = 0.35  # tokens per byte of generated text, until it is learned: prose has 0.25
_DENSEST: Final = 4.0
_AHEAD: Final = 256  # tokens that are to be held beyond what has come
_STEP: Final = 512  # tokens: a top-up is at least so much, where so much is left
_SMALLEST: Final = 32
_LEARNED: Final = 2048  # bytes of text: from a shorter one nothing is learned


class Growth:
    """Looked in on by the tap each time some KiB of the stream have passed."""

    __slots__ = (
        "_call", "_claim", "_counts", "_denial", "_hold", "_leases", "_stated", "_then", "_waiting", "text",
    )  # fmt: skip

    def __init__(
        self, call: Call, hold: Hold, claim: Claim, leases: Leases, counts: dict[tuple[str, ...], float]
    ) -> None:
        self._call = call
        self._hold = hold
        self._claim = claim
        self._leases = leases
        self._counts = counts
        self._denial: Denial | None = None
        self._waiting = False  # for the authority
        self._stated: Usage | None = None  # the last usage
        self._then = 0  # bytes of text there were then
        self.text = 0  # bytes of it that had come when last looked at

    def look(self, text: int, usage: Usage | None) -> None:
        """So many bytes of text have come, and perhaps a count so far.

        Raises `PolicyError` where that is more than is held and there is no more to be had.
        """
        self.text = text
        if usage is not self._stated:
            self._stated, self._then = usage, text
        come = self._come()
        hold = self._hold
        if come + _AHEAD <= hold.output or self._waiting:
            return
        denial = self._denial  # said after the last look
        if denial is None or come < hold.output:
            denial = self._ask(self._step(come))
            while denial is None and come >= hold.output and not self._waiting:  # less than that was left
                denial = self._ask(self._step(come))
        if denial is not None and come >= hold.output:
            if usage is None or usage.output_total < hold.output:
                self._claim.terms.habits[0].doubt()
            raise self._end(denial)

    def _come(self) -> int:
        """About how many tokens have come: what was stated last and the text since then.

        Where that can't be true of the text, all of it.
        """
        density = min(max(_DENSITY, self._claim.terms.habits[0].written), _DENSEST)
        usage = self._stated
        if usage is None:
            return int(self.text * density)
        said = usage.output_total
        if believable(said, self._then):
            return said + int((self.text - self._then) * density)
        return max(said, int(self.text * density))

    def _step(self, come: int) -> int:
        held, most = self._hold.output, self._claim.most
        step = max(_STEP, held >> 1, come - held)
        return min(step, most - held) if come < held < most else step

    def _ask(self, step: int) -> Denial | None:
        """Ask for more, for less where that is refused; the refusal, if there is one already."""
        denial = self._more(step)
        while denial is not None and step > _SMALLEST:
            step >>= 2
            denial = self._more(step)
        return denial

    def _more(self, tokens: int) -> Denial | None:
        terms = self._claim.terms
        rate = terms.form.rates.output
        micros = -(-tokens * rate // SCALE)
        charges: list[tuple[Bucket, int]] = []
        for place, unit in terms.form.growing:
            amount = micros if unit == USD else tokens
            if amount:
                charges.append((terms.buckets[place], amount))
        self._waiting, self._denial = True, None
        said: list[Denial] = []
        at_once = True

        def answered(denial: Denial | None) -> None:
            self._waiting = False
            if denial is None:
                hold = self._hold
                hold.tokens += tokens
                hold.output += tokens
                hold.micros += micros
            else:
                self._denial = denial
                said.append(denial)
                if not at_once and tokens > _SMALLEST and not self._hold.settled:
                    self._ask(tokens >> 2)

        self._leases.top_up(self._hold, tuple(charges), answered)
        at_once = False
        return said[0] if said else None

    def _end(self, denial: Denial) -> Exception:
        counted = ("limits", denial.rule.id, "cut")
        self._counts[counted] = self._counts.get(counted, 0) + 1
        reasons = self._call.reasons
        reasons["limits"] = f"{reasons['limits']},cut" if "limits" in reasons else "cut"
        self._call.reasons["limit"] = denial.rule.id
        return cut(denial)

    def learn(self, output: int) -> None:
        """The answer is over, and the provider says how long it was."""
        if self.text >= _LEARNED:
            self._claim.terms.habits[0].wrote(self.text + _LEARNED, output)
