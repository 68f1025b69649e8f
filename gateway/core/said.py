"""What was generated in a stream: the text, as far as it is kept, and about how much there was of it."""

from __future__ import annotations

import re

from gateway.core.codec import JSONError, loads

MAX_TEXT = 256 * 1024  # bytes of generated text kept for counting


class Said:
    """Bounded: beyond `MAX_TEXT`, a stream is taken to have as much text in its bytes as before.

    `total` is bytes of text that were seen, `missed` bytes of text that passed unseen, `strange` bytes that
    may have been text or not: they count only where there was nothing else.
    """

    __slots__ = ("_beyond", "_kept", "_looked", "_written", "missed", "strange", "total")

    def __init__(self) -> None:
        self._kept: list[bytes] = []
        self._written = 0
        self._looked = 0  # bytes of the stream in which text was looked for
        self._beyond = 0  # and those after them
        self.total = self.missed = self.strange = 0

    @property
    def full(self) -> bool:
        """Whether no more is kept."""
        return self._written >= MAX_TEXT

    def write(self, text: bytes, looked: int) -> None:
        """Text that was found in so many bytes of the stream."""
        self._looked += looked
        if text:
            self.total += len(text)
            text = text[: MAX_TEXT - self._written]
            self._kept.append(text)
            self._written += len(text)

    def miss(self, size: int, text: bool) -> None:
        """So many bytes of a frame passed that was too long to be held."""
        if text:
            self.missed += size
        else:
            self.strange += size

    def beyond(self, size: int) -> None:
        """So many bytes of the stream passed after what is kept."""
        self._beyond += size

    @property
    def text(self) -> bytes:
        """As UTF-8, at most `MAX_TEXT`."""
        return b"".join(self._kept)

    @property
    def size(self) -> int:
        """About how many bytes of text there were."""
        known = self.total + self.missed
        if self._beyond and self._looked:
            known += self.total * self._beyond // self._looked
        return known or self.strange

    @property
    def seen(self) -> bool:
        """Whether `text` is all there was. Where there is none, it may have been what is not known here."""
        return self._written == self.total > 0 and not (self._beyond or self.missed or self.strange)


def generated(raw: bytes, patterns: tuple[re.Pattern[bytes], ...]) -> bytes:
    """The text in some frames."""
    found = patterns[0].findall(raw)
    # Where each piece has text of the usual kind, there is none of another kind.
    if not found or len(found) < raw.count(b'"delta"'):
        for pattern in patterns[1:]:
            found += pattern.findall(raw)
    return _plain(b"".join(found)) if found else b""


def texts(*names: bytes) -> tuple[re.Pattern[bytes], ...]:
    """Patterns for the non-empty string values of members."""
    return tuple(re.compile(rb'"%b"[ \t]*:[ \t]*"((?:[^"\\]++|\\.)+)"' % name) for name in names)


def _plain(quoted: bytes) -> bytes:
    """The text of JSON strings that were joined without their quotes."""
    if b"\\" not in quoted:
        return quoted
    try:
        return str(loads(b'"%b"' % quoted)).encode()
    except (JSONError, UnicodeEncodeError):
        return quoted
