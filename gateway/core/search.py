"""The usage in JSON that is too long to be parsed or held, found while it passes. Sans-IO."""

from __future__ import annotations

import re

from gateway.core.codec import JSONError, loads
from gateway.core.usage import Usage, from_openai

TAIL = 16 * 1024  # bytes that are looked at in one: no usage is longer

# No possessive quantifier stands on a group with alternatives: `re` got those wrong until 3.11.5 (gh-106052).
_USAGE = re.compile(rb'"usage"[ \t\r\n]*:[ \t\r\n]*(\{(?:[^{}]++|\{[^{}]*+\})*\})')
# A string that nobody ends goes to the end, and leaves its first quote: to look for another string at each
# quote in it would take for ever.
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"|(").*', re.S)


def last_usage(data: bytes) -> Usage | None:
    """The last usage object near the end of JSON that is cut too short, or too odd, to be parsed."""
    data = data[-TAIL:]
    at = data.rfind(b'"usage"')
    while at >= 0:
        found = _usage_at(data, at)
        if found is not None:
            return found
        at = data.rfind(b'"usage"', 0, at)
    return None


def _usage_at(data: bytes, at: int) -> Usage | None:
    match = _USAGE.match(data, at)
    try:
        return from_openai(loads(match.group(1))) if match is not None else None
    except JSONError:
        return None


class Search:
    """Takes JSON in pieces; `end` gives the usage that is a member of its outermost object.

    In JSON the name `"usage"` stands in no text, where its quotes would be escaped. How deep a member stands
    shows at the end: what follows closes as many brackets as were open. So nothing is counted before the
    first usage, and where it is near the end, as mostly, all else costs a search for its name. Of JSON that
    breaks off, the outermost usage so far is taken. `deep`: how many objects it may be a member of.
    """

    __slots__ = ("_before", "_deep", "_depth", "_found", "_held", "_open", "_place")

    def __init__(self, deep: int = 1) -> None:
        self._deep = deep
        self._held = b""  # not looked at yet
        self._before = b""  # the byte before it
        self._found: Usage | None = None
        self._place = 0  # its depth
        self._depth = 0  # brackets that were opened since the first usage, less those that were closed
        self._open = b""  # the quote of a string that has not ended, and a backslash at its end so far

    def feed(self, data: bytes) -> None:
        """Take a piece."""
        held = self._held + data if self._held else data
        ahead = len(held) - TAIL
        if ahead > 0:
            self._scan(held, ahead)
            held = held[ahead:]
        self._held = held

    def end(self) -> Usage | None:
        """There is no more."""
        if self._held:
            self._scan(self._held, len(self._held))
            self._held = b""
        return self._found if self._place - self._depth <= self._deep else None

    def _scan(self, data: bytes, end: int) -> None:
        """Look for what begins before `end`, and see what has become of the depth there."""
        done = 0
        at = data.find(b'"usage"', 0, end + 6)
        while at >= 0:
            if self._found is not None:
                self._count(data[done:at])
                done = at
            before = data[at - 1 : at] if at else self._before
            if not self._open and before != b"\\":
                found = _usage_at(data, at)
                if found is not None and (self._found is None or self._depth <= self._place):
                    if self._found is None:
                        done = at
                    self._found, self._place = found, self._depth
            at = data.find(b'"usage"', at + 7, end + 6)
        if self._found is not None:
            self._count(data[done:end])
        self._before = data[end - 1 : end]

    def _count(self, data: bytes) -> None:
        """The brackets outside of strings."""
        rest = self._open + data
        plain = _STRING.sub(rb"\1", rest)
        self._open = b""
        if plain.endswith(b'"'):
            odd = (len(rest) - len(rest.rstrip(b"\\"))) & 1
            self._open = b'"\\' if odd else b'"'
        self._depth += plain.count(b"{") + plain.count(b"[") - plain.count(b"}") - plain.count(b"]")
