"""Header lines of answers, known by heart: one look-up tells what a line says.

Heads of answers hardly change from one to the next, so most of their lines were met before, and a parser's
callback for each would find out the same again and again. Known are only lines beyond doubt: a token, ": ",
visible ASCII. Whoever meets another one leaves the whole answer to the parser.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final

# What a line is to the reader. The first three are end-to-end fields.
PLAIN, TYPE, CODING, LENGTH, PERSISTENT, TIMEOUT = range(6)

# (lower-case name, value) of an end-to-end field · the wire form in which it goes on, b"" where it does not ·
# role and what was read from the value, None where it is plain.
Line = tuple[tuple[bytes, bytes] | None, bytes, tuple[int, Any] | None]

HOP_BY_HOP: Final = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authentication-info",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
FRAMING: Final = HOP_BY_HOP | {b"content-length"}  # read by this side, not handed on

_ROLES: Final = {
    b"content-type": TYPE,
    b"content-encoding": CODING,
    b"content-length": LENGTH,
    b"connection": PERSISTENT,
    b"keep-alive": TIMEOUT,
}
_MOST: Final = 2048  # lines kept
_MOST_NAMES: Final = 512
_LONGEST: Final = 256  # bytes of a line that is kept

_TOKEN: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}")
_VISIBLE: Final = bytes(range(0x20, 0x7F))
# Not 204 and 304, which have a length but no body (RFC 9112, 6.3).
_STATUS: Final = re.compile(rb"HTTP/1\.1 ((?!204|304)[2-5][0-9]{2}) [\x20-\x7e]{0,64}")


class Lines:
    """`judge` gives the name under which a field goes on, b"" for one that does not.

    What is remembered is bounded: some hundred KiB at most, whatever the upstreams send.
    """

    __slots__ = ("_judge", "_names", "known", "statuses")

    def __init__(self, judge: Callable[[bytes], bytes] = bytes) -> None:
        self._judge = judge
        self._names: dict[bytes, tuple[int, bytes, bytes]] = {}  # as it is written: role, lower-case, wire
        self.known: dict[bytes, Line] = {}
        self.statuses: dict[bytes, int] = {}

    def status(self, line: bytes) -> int:
        """The status of an ordinary final answer's first line, 0 for another."""
        found = _STATUS.fullmatch(line)
        if found is None:
            return 0
        if len(self.statuses) >= _MOST_NAMES:
            self.statuses.clear()
        status = self.statuses[line] = int(found.group(1))
        return status

    def learn(self, line: bytes) -> Line | None:
        """What a line says that was not known, None where that is not beyond doubt."""
        name, _, value = line.partition(b": ")
        told = self._names.get(name) or self._name(name)
        # translate: what is left of the value without its visible characters.
        if told is None or not value or value != value.strip() or value.translate(None, _VISIBLE):
            return None
        role, lower, onward = told
        pair = (lower, value) if role < LENGTH else None
        said = value if pair is not None else _read(role, value)
        if said is None:
            return None
        wire = b"%b: %b\r\n" % (onward, value) if onward else b""
        learned = (pair, wire, (role, said) if role else None)
        if len(line) <= _LONGEST:
            if len(self.known) >= _MOST:
                self.known.clear()
            self.known[line] = learned
        return learned

    def _name(self, name: bytes) -> tuple[int, bytes, bytes] | None:
        lower = name.lower()
        role = _ROLES.get(lower, PLAIN)
        if _TOKEN.fullmatch(name) is None or (role == PLAIN and lower in FRAMING):
            return None
        if len(self._names) >= _MOST_NAMES:
            self._names.clear()
        told = self._names[name] = (role, lower, self._judge(lower) if role < LENGTH else b"")
        return told


def _read(role: int, value: bytes) -> Any:
    if role == LENGTH:
        return int(value) if value.isdigit() and len(value) < 16 else None
    if role == TIMEOUT:
        return timeout(value)
    return True if value.lower() == b"keep-alive" else None


def timeout(value: bytes) -> float | None:
    """The seconds in `Keep-Alive: timeout=5, max=100` (RFC 2068, 19.7.1.1)."""
    for part in value.split(b","):
        name, _, number = part.strip().partition(b"=")
        if name.lower() == b"timeout" and number.isdigit() and len(number) < 10:
            return float(number)
    return None
