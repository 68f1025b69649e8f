"""What calls of one key to one model usually take, learned while they are settled. Bounded, sans-IO."""

from __future__ import annotations

from array import array
from typing import Final

ENOUGH: Final = 20  # observations before anything is concluded from them
QUANTILE: Final = 0.95
_PLACES: Final = 16 + 4 * 28  # see `place`
_FULL: Final = 512  # observations after which all count half: what was long ago fades
_SHORT: Final = 1024  # bytes; of a shorter prompt it is what stands around its text that counts
LATELY: Final = 16
_EVERY: Final = 8  # observations between two looks at the quantile


def place(tokens: int) -> int:
    """Where a length is counted: exactly below 16, then in four steps for each doubling."""
    if tokens < 16:
        return tokens
    tokens = min(tokens, (1 << 31) - 1)
    bits = tokens.bit_length()
    return 16 + ((bits - 5) << 2) + ((tokens >> (bits - 3)) & 3)


def edge(at: int) -> int:
    """The greatest length that is counted at this place."""
    if at < 16:
        return at
    bits, step = ((at - 16) >> 2) + 5, (at - 16) & 3
    return ((5 + step) << (bits - 3)) - 1


class Peak:
    """The most of the last `LATELY` values, and of up to as many before these."""

    __slots__ = ("_before", "_now", "_seen", "most")

    def __init__(self) -> None:
        self.most = 0.0
        self._now = 0.0
        self._before = 0.0
        self._seen = 0

    def see(self, value: float) -> float:
        """Another value; the most."""
        if value > self._now:
            self._now = value
        self.most = most = self._now if self._now > self._before else self._before
        self._seen += 1
        if self._seen >= LATELY:
            self._before, self._now, self._seen = self._now, 0.0, 0
        return most

    def doubt(self) -> float:
        """Half of it: what followed from it was not borne out."""
        self._now, self._before, self.most = self._now / 2, self._before / 2, self.most / 2
        return self.most


class Habit:
    """`output` is the 0.95 quantile of generated tokens per answer, 0 until `ENOUGH` were seen.

    The most of what was seen lately: `density` tokens per byte of long prompts; `overhead` what short ones
    had beyond a token for 4 bytes, `linked` the same of prompts that go on from what the provider keeps;
    `written` tokens per byte of generated text (many where a model thinks and does not show it). 0 at first.
    """

    __slots__ = (
        "_counts", "_dense", "_links", "_over", "_total", "_wrote", "density", "linked", "output", "overhead",
        "seen", "turn", "written",
    )  # fmt: skip

    def __init__(self) -> None:
        self._counts = array("H", bytes(2 * _PLACES))
        self._total = 0
        self.seen = 0
        self.turn = 0  # calls that were looked at by `ample.py`
        self.output = 0
        self._dense, self._over, self._links, self._wrote = Peak(), Peak(), Peak(), Peak()
        self.density = self.written = 0.0
        self.overhead = self.linked = 0

    def observe(self, output: int) -> None:
        """An answer of so many generated tokens."""
        self._counts[place(output)] += 1
        self._total += 1
        self.seen = seen = self.seen + 1
        if seen >= ENOUGH and (seen & (_EVERY - 1) == 0 or not self.output):
            self._conclude()

    def _conclude(self) -> None:
        counts = self._counts
        if self._total >= _FULL:
            self._counts = counts = array("H", [count >> 1 for count in counts])
            self._total = sum(counts)
        beyond = int(self._total * (1 - QUANTILE))
        for at in range(_PLACES - 1, -1, -1):
            beyond -= counts[at]
            if beyond < 0:
                self.output = max(edge(at), 1)
                return

    def prompted(self, size: int, tokens: int, linked: bool = False) -> None:
        """A prompt of `size` bytes was so many tokens."""
        if linked:
            self.linked = int(self._links.see(tokens - (size >> 2)))
        elif size < _SHORT:
            self.overhead = int(self._over.see(tokens - (size >> 2)))
        else:
            self.density = self._dense.see((tokens - self.overhead) / size)

    def wrote(self, size: int, tokens: int) -> None:
        """An answer of `size` bytes of text was so many tokens."""
        self.written = self._wrote.see(tokens / size)

    def doubt(self) -> None:
        """A stream was cut by what `written` made of it. Nobody says now how long it was: a guess that is far
        too high would never be told so.
        """
        self.written = self._wrote.doubt()


class Habits:
    """Of each tenant and model, and of each model: for keys that have not been seen often enough."""

    __slots__ = ("_known",)

    _MOST = 4096

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], Habit] = {}

    def of(self, tenant: str, model: str) -> Habit:
        """One of them; with tenant "" that of all callers."""
        habit = self._known.get((tenant, model))
        if habit is None:
            if len(self._known) >= self._MOST:
                self._known.clear()
            habit = self._known[tenant, model] = Habit()
        return habit
