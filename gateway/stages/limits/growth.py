"""A stream that may outgrow what its call holds: topped up while it runs, ended where nothing is left."""

from __future__ import annotations

from typing import Final

from gateway.core.call import Call
from gateway.core.cost import SCALE
from gateway.core.hold import Hold
from gateway.core.limit import Bucket, Denial, LimitRule
from gateway.core.ports import Leases
from gateway.core.prompt import believable
from gateway.core.usage import Usage
from gateway.stages.limits.claim import Claim
from gateway.stages.limits.form import USD
from gateway.stages.limits.refusal import cut

_DENSITY: Final = 0.35  # tokens per byte of generated text, until it is learned: prose has 0.25
_DENSEST: Final = 4.0
_AHEAD: Final = 256  # tokens that are to be held beyond what has come, and at least what a look brings
_STEP: Final = 512  # tokens: a top-up is at least so much, where so much is left
_LEARNED: Final = 2048  # bytes of text: from a shorter one nothing is learned


class Growth:
    """Looked in on by the tap each time some KiB of the stream have passed."""

    __slots__ = (
        "_ahead", "_asked", "_call", "_claim", "_counts", "_denial", "_hold", "_last", "_leases", "_micros",
        "_stated", "_then", "_waiting", "text",
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
        self._asked = self._micros = 0  # what for
        self._last = 0  # tokens that had come when last looked at
        self._ahead = _AHEAD
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
        come, before = self._come(), self._last
        self._last = come
        self._ahead = max(_AHEAD, come - before)  # the next look finds about as much more as this one
        hold = self._hold
        if self._waiting:
            return
        if come + self._ahead <= hold.output:
            self._denial = None
            return
        denial = self._denial  # said after the last look
        if denial is None or come < hold.output or self._room(denial) > come - hold.output:
            self._ask(self._step(come))
            denial = self._denial
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
        step = max(_STEP, held >> 1, come + self._ahead - held)
        return min(step, most - held) if come < held < most else step

    def _ask(self, tokens: int) -> None:
        """Ask for so many more, for less where that is refused: then `_denial` is the last refusal."""
        terms = self._claim.terms
        self._asked, self._micros = tokens, -(-tokens * terms.form.rates.output // SCALE)
        charges: list[tuple[Bucket, int]] = []
        for place, unit in terms.form.growing:
            amount = self._micros if unit == USD else tokens
            if amount:
                charges.append((terms.buckets[place], amount))
        self._waiting, self._denial = True, None
        self._leases.top_up(self._hold, tuple(charges), self._answered)

    def _answered(self, denial: Denial | None) -> None:
        hold = self._hold
        self._waiting = False
        if hold.settled:
            return
        if denial is not None:
            self._denial = denial
            less = self._less(denial)
            if less:
                self._ask(less)
            return
        hold.tokens += self._asked
        hold.output += self._asked
        hold.micros += self._micros
        come = self._come()
        if come + self._ahead > hold.output:  # it was less than was wanted, or more has come meanwhile
            self._ask(self._step(come))

    def _less(self, denial: Denial) -> int:
        """What to ask for after a refusal: no more than is left, no less than has come; 0 where none is."""
        left, step = self._tokens(denial.rule, denial.remaining), self._asked
        need = self._come() - self._hold.output + 1
        if need > left:
            return 0
        less = max(min(step >> 2, left), need)
        return less if less < step else 0

    def _room(self, denial: Denial) -> int:
        """What is left by now where there was not enough, as far as is known here."""
        for bucket in self._claim.terms.buckets:
            if bucket.rule is denial.rule and bucket.value == denial.value:
                return self._tokens(denial.rule, bucket.left + bucket.free)
        return 0

    def _tokens(self, rule: LimitRule, left: int) -> int:
        """What is left of a limit, in tokens of an answer."""
        rate = self._claim.terms.form.rates.output
        return left * SCALE // rate if rule.unit == "usd" and rate else left

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
