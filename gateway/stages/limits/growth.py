"""A stream that outgrows what its call holds: topped up while it runs, ended where nothing is left."""

from __future__ import annotations

from typing import Any, Final

from gateway.core.call import Call
from gateway.core.cost import SCALE
from gateway.core.hold import Hold
from gateway.core.limit import Bucket, Denial, LimitRule
from gateway.core.ports import Leases
from gateway.core.prompt import DENSEST, LEAST, believable, density
from gateway.core.reply import Tap
from gateway.core.usage import Usage
from gateway.stages.limits.claim import Claim
from gateway.stages.limits.form import USD
from gateway.stages.limits.refusal import cut

_DENSITY: Final = 0.35  # tokens per byte of generated text, where it can't be looked at
_MOST_WRITTEN: Final = 4.0  # that are believed to have been learned
_AGAIN: Final = 1.125  # times as much text: then it is looked at again
_AHEAD: Final = 256  # tokens that are to be held beyond what has come, and at least what a look brings
_STEP: Final = 512  # tokens: a top-up is at least so much, where so much is left
_LEARNED: Final = 2048  # bytes of text: from a shorter one nothing is learned
_BELIEF: Final = 0.5  # of a guess that is certain: some scripts have half as many tokens


class Growth:
    """Looked in on by the tap each time some KiB of the stream have passed."""

    __slots__ = (
        "_ahead", "_asked", "_claim", "_counts", "_denial", "_density", "_hold", "_last", "_leases",
        "_measured", "_micros", "_reasons", "_stated", "_tap", "_then", "_waiting", "_whole", "text",
    )  # fmt: skip

    def __init__(
        self, call: Call, hold: Hold, claim: Claim, leases: Leases, counts: dict[tuple[str, ...], float]
    ) -> None:
        self._whole = claim.output == claim.most  # all that the provider was asked for is held
        self._reasons = call.reasons  # not the call, which knows the stream: it is to go when it has ended
        self._hold = hold
        self._claim = claim
        self._leases = leases
        self._counts = counts
        self._denial: Denial | None = None
        self._waiting = False  # for the authority
        self._asked = self._micros = 0  # what for
        self._tap: Any = None
        self._density = DENSEST  # tokens per byte of text
        self._measured = 0  # bytes of it there were when that was found out
        self._last = 0  # tokens that had come when last looked at
        self._ahead = _AHEAD
        self._stated: Usage | None = None  # the last usage
        self._then = 0  # bytes of text there were then
        self.text = 0  # bytes of it that had come when last looked at

    def watch(self, tap: Tap) -> None:
        """Look at the stream that passes this tap."""
        self._tap = tap
        tap.watch(self.look)

    def look(self, text: int, usage: Usage | None) -> None:
        """So many bytes of text have come, and perhaps a count so far.

        Raises `PolicyError` where that is more than is held and there is no more to be had.
        """
        self.text = text
        if usage is not self._stated:
            self._stated, self._then = usage, text
        if self._whole and self._within():
            return
        hold, come = self._hold, self._come()
        if come + self._ahead >= hold.output and text > self._measured * _AGAIN:
            self._measure()
            come = self._come()
        # The next look finds about as much more as this one.
        self._ahead, self._last = max(_AHEAD, come - self._last), come
        if self._waiting:
            return
        if come + self._ahead < hold.output:
            self._denial = None
            return
        denial = self._denial  # said after the last look
        if denial is None or come < hold.output or self._room(denial) > come - hold.output:
            self._ask(self._step(come))
            denial = self._denial
        if denial is not None and come >= hold.output:
            if usage is None or usage.output_total < hold.output:
                self._claim.terms.habits[0].doubt()
            raise self._end(denial, come)

    def _within(self) -> bool:
        """Whether the provider may have kept to its bound: that it has not is to be beyond doubt."""
        most = (self._claim.most + _AHEAD) / _BELIEF
        if self._come() > most and self.text > self._measured * _AGAIN:
            self._measure()
        self._whole = self._come() <= most
        return self._whole

    def _measure(self) -> None:
        """How dense the text is: as it would be charged if it ended here.

        Joins what is kept of it and looks at 12 KiB: not done before the densest text could outgrow its hold.
        """
        self._measured = self.text
        if self._tap is None:
            self._density = _DENSITY
            return
        text: bytes = self._tap.text
        self._density = max(density(text), LEAST)

    def _come(self) -> int:
        """About how many tokens have come: what was stated last and the text since then.

        Where that can't be true of the text, all of it.
        """
        density = self._density
        if not self._whole:
            density = max(density, min(self._claim.terms.habits[0].written, _MOST_WRITTEN))
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
        if come + self._ahead >= hold.output:  # it was less than was wanted, or more has come meanwhile
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

    def _end(self, denial: Denial, come: int) -> Exception:
        rule, hold, terms = denial.rule, self._hold, self._claim.terms
        counted = ("limits", rule.id, "cut")
        self._counts[counted] = self._counts.get(counted, 0) + 1
        reasons = self._reasons
        reasons["limits"] = f"{reasons['limits']},cut" if "limits" in reasons else "cut"
        reasons["limit"] = rule.id
        # What came beyond the hold is charged, too: that much less is left.
        beyond = come - hold.output
        own, more = hold.tokens, beyond
        if rule.unit == "usd":
            own, more = hold.micros, -(-beyond * terms.form.rates.output // SCALE)
        elif rule.unit == "output_tokens":
            own = hold.output
        whole = 0.0
        if own + max(denial.remaining, more) >= rule.amount:  # nobody else has used any of it
            for bucket in terms.buckets:
                if bucket.rule is rule and bucket.value == denial.value:
                    standing = self._leases.standing(bucket)
                    whole = standing.reset if standing is not None else 0.0
        usage = self._stated
        stated = usage is not None and usage.output_total >= hold.output
        return cut(denial, max(denial.remaining - more, 0), whole, stated)

    def leave(self) -> None:
        """The stream is over: its tap is let go, which knows this one, too."""
        self._tap = None

    def learn(self, output: int) -> None:
        """The answer is over, and the provider says how long it was."""
        if self.text >= _LEARNED:
            self._claim.terms.habits[0].wrote(self.text + _LEARNED, output)
