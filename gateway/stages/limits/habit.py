"""What calls of one key to one model usually take, learned while they are settled. Bounded, sans-IO."""

from __future__ import annotations

from array import array

ENOUGH = 20  # observations before anything is concluded from them
QUANTILE = 0.95
_PLACES = 16 + 4 * 28  # see `place`
_FULL = 512  # observations after which all count half: what was long ago fades
_SHORT = 1024  # bytes; of a shorter prompt it is what stands around its text that counts
_EVERY = 8  # observations between two looks at the quantile


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


class Habit:
    """`output` is the 0.95 quantile of generated tokens per answer, 0 until `ENOUGH` were seen.

    `density` is the most tokens per byte that long prompts had lately, `overhead` what short ones had beyond
    a token for 4 bytes; `written` the most tokens per byte of generated text (much where a model thinks and
    does not show it). 0 until one was seen.
    """

    __slots__ = ("_counts", "_total", "density", "output", "overhead", "seen", "turn", "written")

    def __init__(self) -> None:
        self._counts = array("H", bytes(2 * _PLACES))
        self._total = 0
        self.seen = 0
        self.turn = 0  # calls that were looked at by `ample.py`
        self.output = 0
        self.density = 0.0
        self.overhead = 0
        self.written = 0.0

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

    def prompted(self, size: int, tokens: int) -> None:
        """A prompt of `size` bytes was so many tokens."""
        if size < _SHORT:
            excess = tokens - (size >> 2)
            known = self.overhead
            self.overhead = excess if excess > known else known - (known - max(excess, 0) >> 6)
        else:
            self.density = _faded(self.density, (tokens - self.overhead) / size)

    def wrote(self, size: int, tokens: int) -> None:
        """An answer of `size` bytes of text was so many tokens."""
        self.written = _faded(self.written, tokens / size)


def _faded(known: float, seen: float) -> float:
    """The most there was lately."""
    return seen if seen > known else known - (known - seen) / 64


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
