"""Looking at a stream of server-sent events as it passes: the part that all kinds of streams share. Sans-IO.

Bytes go on as they came. A piece is usually whole frames, and most frames have nothing to see: these
cost a few comparisons. Only what may hold usage is parsed; the rest is kept as it is, some KiB at
most, and looked through at the end or when it gets too much.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import Any

from gateway.core.codec import JSONError, frame_data, frame_end, loads
from gateway.core.said import Said, generated
from gateway.core.search import TAIL, Search
from gateway.core.usage import Usage, from_openai

HOLD = 64 * 1024  # bytes of one frame that are held: a longer one passes, and is looked at as it does
MAX_KEPT = 8 * 1024  # bytes of frames kept before they are looked through
WATCHED = 2 * 1024  # the same where somebody wants to know how much has come
LAST = 4 * 1024  # bytes of the stream's end in which its outcome is looked for
_OPENING = 512  # bytes of a longer last frame's beginning, likewise

_BOM = b"\xef\xbb\xbf"
_WHOLE = (b"\n\n", b"\n\r\n")  # a piece with this end, after whole frames, is whole frames
_NULL = (b":null", b": nul")
_ENCODED = re.compile(rb'"[A-Za-z0-9+/]{4096}')
_DONE = re.compile(rb"(?:^|[\r\n])(?:\xef\xbb\xbf)?data: ?\[DONE\][ \t]*(?:[\r\n]|\Z)")


class StreamTap:
    """Implements `core.reply.Tap`; a kind of stream says what its frames look like.

    `usage` is the last one seen, `first_token` when the first frame with content was whole (clock's
    seconds, 0.0 before). The rest is found out when asked for: `text` what was generated, for counting
    when no usage came, `size` about how much that was, `seen` whether it is all; `done` whether the stream
    came to its proper end; `finished` whether the model did; `error` whether an error was told inside it.
    """

    __slots__ = (
        "_clock", "_encoded", "_gather", "_held", "_hide", "_kept", "_last", "_look_in", "_most", "_opening",
        "_passed", "_said", "_scanned", "_scrub", "_search", "_size", "_unended", "first_token", "usage",
    )  # fmt: skip

    CONTENT: re.Pattern[bytes]  # a frame with generated content
    FINISHED: re.Pattern[bytes]  # a frame that says that the model has ended
    TEXTS: tuple[re.Pattern[bytes], ...]  # generated text as the values of members, the usual one first
    DEEP = 1  # objects of a frame of which its usage may be a member

    def __init__(
        self,
        hide_usage: bool = False,
        clock: Callable[[], float] = time.monotonic,
        scrub: Callable[[bytes], bytes] | None = None,
    ) -> None:
        self.usage: Usage | None = None
        self.first_token = 0.0
        self._hide = hide_usage
        self._gather = False
        self._clock = clock
        self._scrub = scrub  # takes out of each piece what no client may see
        self._held = b""  # the frame that has not ended yet
        self._passed = 0  # bytes of it that have gone on
        self._scanned = 0  # bytes of it in which no end is
        self._search: Search | None = None  # in a frame that is too long to be held
        self._opening = b""  # how that frame begins
        self._unended = False  # whether it is generated text that made it long
        self._encoded = False  # or an image
        self._kept: list[bytes] = []
        self._size = 0
        self._most = MAX_KEPT  # bytes kept before they are looked through
        self._look_in: Callable[[int, Usage | None], None] | None = None
        self._said = Said()
        self._last = b""  # the end of what was looked through

    def keep_text(self) -> None:
        """Gather the text in any case, not only as long as no usage has come."""
        self._gather = True

    def watch(self, look: Callable[[int, Usage | None], None]) -> None:
        """Have somebody look in every `WATCHED` bytes or so: see `core.reply.Tap`."""
        self._look_in = look
        self._most = WATCHED

    # -- the stream

    def feed(self, data: bytes) -> bytes:
        """Take a piece, give what goes on: the same object wherever nothing is held back or taken out."""
        if self._scrub is not None:
            data = self._scrub(data)
        if self._held or not data.endswith(_WHOLE):
            return self._pieces(data)
        at = data.find(b'"usage"')
        if at >= 0 and (data[at + 7 : at + 12] not in _NULL or data.find(b'"usage"', at + 12) >= 0):
            return self._pieces(data)
        self._kept.append(data)
        self._size += len(data)
        if not self.first_token and self.CONTENT.search(data) is not None:
            self.first_token = self._clock()
        if self._size > self._most:
            self._enough()
        return data

    def finish(self) -> bytes:
        """The stream has ended: what was held back goes on, unless it is what nobody asked for."""
        rest, passed = self._held, self._passed
        self._held, self._passed, self._scanned = b"", 0, 0
        if not rest or not self._look(rest):
            return b""
        return rest[passed:]

    @property
    def clean(self) -> bool:
        """Whether what has gone on so far ends at an event boundary."""
        return not self._passed or self._held.endswith((b"\r\r", b"\n\r"))

    def _pieces(self, data: bytes) -> bytes:
        """The form for whatever was cut anywhere: frame by frame."""
        held = self._held + data if self._held else data
        start, at, out = 0, max(self._scanned - 3, 0), []
        while (end := frame_end(held, at)) >= 0:
            frame = held[start:end]
            if self._look(frame):
                out.append(frame[self._passed :])
            self._passed = 0
            start = at = end
        rest = held[start:] if start else held
        self._scanned = len(rest)
        if not self._hide or len(rest) > HOLD or not self._may_hide(rest):
            out.append(rest[self._passed :])
            self._passed = len(rest)
        if len(rest) > HOLD:
            self._longer(rest)
            rest = rest[-TAIL:]
            self._passed = self._scanned = TAIL
        self._held = rest
        return b"".join(out) if self._hide else data

    # -- frames

    def _look(self, frame: bytes) -> bool:
        """Look at a whole frame; gives whether it goes on to the client."""
        if self._search is not None or len(frame) > HOLD:
            self.usage = self._longer(frame).end() or self.usage
            self._search = None
            self._last = self._opening + frame[-LAST:]
            return True
        frame = frame.removeprefix(_BOM)
        self._keep(frame)
        return b'"usage"' not in frame or self._read(frame)

    def _keep(self, frame: bytes) -> None:
        self._kept.append(frame)
        self._size += len(frame)
        if not self.first_token and self.CONTENT.search(frame) is not None:
            self.first_token = self._clock()
        if self._size > self._most:
            self._enough()

    def _longer(self, frame: bytes) -> Search:
        """Look at more of a frame that is too long: how it begins, or what has come since the last look."""
        search = self._search
        if search is None:
            search = self._search = Search(self.DEEP)
            self._begin(frame[:HOLD])
            search.feed(frame)
            come = len(frame) - HOLD
        else:
            search.feed(frame[TAIL:])
            come = max(len(frame) - TAIL, 0)
        self._said.miss(come if self._unended or not self._encoded else 1, self._unended)
        self._tell()
        return search

    def _begin(self, part: bytes) -> None:
        """How a frame begins that is too long: text that has not ended there is taken to go on to its end."""
        self._digest()
        self._opening = part[:_OPENING]
        if not self.first_token and self.CONTENT.search(part) is not None:
            self.first_token = self._clock()
        self._unended, self._encoded = False, _ENCODED.search(part) is not None
        if self.usage is None or self._gather:
            text = generated(part.rstrip(b"\\") + b'"', self.TEXTS)
            self._unended = len(text) > len(generated(part, self.TEXTS))
            self._said.write(text, len(part))

    def _read(self, frame: bytes) -> bool:
        """Take the usage out of a frame that may have one."""
        try:
            document = loads(frame_data(frame))
        except JSONError:
            return True
        if not isinstance(document, dict):
            return True
        raw = self._usage_in(document)
        self.usage = from_openai(raw) or self.usage
        return not (self._hide and isinstance(raw, dict) and self._extra(document) and self._may_hide(frame))

    def _usage_in(self, document: dict[str, Any]) -> Any:
        return document.get("usage")

    def _extra(self, document: dict[str, Any]) -> bool:
        """Whether the frame is there for its usage alone."""
        return False

    def _may_hide(self, beginning: bytes) -> bool:
        """Whether a frame that begins like this could still be such a one."""
        return False

    # -- what is only looked at when there is much of it, or when somebody asks

    def _enough(self) -> None:
        self._digest(True)  # a usage that is stated so early may not be the last
        self._tell()

    def _tell(self) -> None:
        if self._look_in is not None:
            self._look_in(self._said.size, self.usage)

    def _digest(self, gather: bool = False) -> None:
        """Look through the kept frames, and keep their text alone: not of the end, where usage stands."""
        if not self._kept:
            return
        raw = b"".join(self._kept)
        start = max(raw.rfind(b"\n\n", 0, -4), raw.rfind(b"\n\r\n", 0, -4), 0)
        # A long frame says at its beginning what it is.
        opening = raw[start : start + _OPENING] if len(raw) - start > LAST else b""
        self._last = opening + (self._last + raw)[-LAST:]
        self._kept.clear()
        self._size = 0
        if gather or self._gather or self.usage is None or not self.usage.output_total:
            if self._said.full:
                self._said.beyond(len(raw))
            else:
                self._said.write(generated(raw, self.TEXTS), len(raw))

    @property
    def text(self) -> bytes:
        """What was generated, as UTF-8, at most `MAX_TEXT`; incomplete once usage is known."""
        self._digest()
        return self._said.text

    @property
    def size(self) -> int:
        """About how many bytes of text were generated, more than `text` has where not all of it was seen."""
        self._digest()
        return self._said.size

    @property
    def seen(self) -> bool:
        """Whether `text` is all that was generated."""
        self._digest()
        return self._said.seen

    @property
    def done(self) -> bool:
        """Whether the stream came to its end: [DONE], or the event that ends a response."""
        return _DONE.search(self._end()) is not None

    @property
    def finished(self) -> bool:
        """Whether the model said that it has ended (a finish_reason)."""
        return self.FINISHED.search(self._end()) is not None

    @property
    def error(self) -> bool:
        """Whether the stream ended with an error that the provider told inside it."""
        raw = self._end()
        start = 0 if b"error" in raw or b".failed" in raw else len(raw)
        while start < len(raw):
            end = frame_end(raw, start)
            end = end if end > 0 else len(raw)
            if self._is_error(raw[start:end]):
                return True
            start = end
        return False

    def _end(self) -> bytes:
        """The newest frames."""
        self._digest()
        return self._last

    def _is_error(self, frame: bytes) -> bool:
        if b"error" not in frame:
            return False
        try:
            document = loads(frame_data(frame.removeprefix(_BOM)))
        except JSONError:
            return False
        return isinstance(document, dict) and (bool(document.get("error")) or document.get("type") == "error")
