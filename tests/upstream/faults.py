"""What can go wrong on demand. A fault is written `name=value;name;name=value`; a bare name means 1.

status=N          answer with this status, in OpenAI's error shape
retry_after=S     … and with this header
delay=S           wait before the first byte
interval=S        wait between pieces
tokens=N          content pieces of a stream
endless           pieces until somebody goes
stall_after=N     N pieces, then silence
die_after=N       N pieces, then cut the connection
how=fin|rst       … in this way
close_first       close at once, without a byte
garbage           bytes that are no HTTP
garbage_after=N   N pieces, then bytes that are no chunk
error_after=N     N pieces, then an error event and the end
long_line=N       one more event, of N bytes
split             every byte on its own
no_usage          never tell the usage
no_done           leave out [DONE]
comments          a comment line before each event
newline=crlf|cr   how lines of events end
bom               a byte order mark first
no_final_newline  the last event is not ended
gzip              content-encoding of the answer
framing=F         chunked, length, or close: the end of the connection ends it
informational     102 and 103 come first
big=N             a body of N bytes
slow_read=S       wait after each piece of the request that is read (header or path rule only)
early             answer when the head is in, before the body (header or path rule only)
hang_up           close after the answer, without a word
bad_length=N      content-length is wrong by N
http10            answer as HTTP/1.0
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from fnmatch import fnmatchcase
from typing import Any

PREFIX = "fault;"


@dataclass(slots=True)
class Fault:
    """How an answer is spoiled; the default spoils nothing."""

    status: int = 0
    retry_after: str = ""
    delay: float = 0.0
    interval: float = 0.0
    tokens: int = 0
    endless: int = 0
    stall_after: int = -1
    die_after: int = -1
    how: str = "fin"
    close_first: int = 0
    garbage: int = 0
    garbage_after: int = -1
    long_line: int = 0
    split: int = 0
    no_usage: int = 0
    no_done: int = 0
    error_after: int = -1
    comments: int = 0
    newline: str = "lf"
    bom: int = 0
    no_final_newline: int = 0
    gzip: int = 0
    framing: str = ""
    informational: int = 0
    big: int = 0
    slow_read: float = 0.0
    early: int = 0
    hang_up: int = 0
    bad_length: int = 0
    http10: int = 0


_KINDS: dict[str, type] = {one.name: type(getattr(Fault(), one.name)) for one in fields(Fault)}


def parse(text: str) -> Fault:
    """Read a fault. Raises `ValueError` for a name that is none."""
    fault = Fault()
    for part in filter(None, text.split(";")):
        name, _, value = part.strip().partition("=")
        if name not in _KINDS:
            raise ValueError(f"no fault named {name!r}; there are {', '.join(_KINDS)}")
        setattr(fault, name, _KINDS[name](value or 1))
    return fault


@dataclass(slots=True)
class Rule:
    """A fault for the requests that match; `times` is how often still, -1 for ever."""

    fault: str
    model: str = "*"
    path: str = "*"
    times: int = -1


@dataclass(slots=True)
class Faults:
    """The rules in force; the first that matches counts."""

    rules: list[Rule] = field(default_factory=list)

    def add(self, document: dict[str, Any]) -> None:
        """Add a rule from its JSON form. Raises `ValueError`."""
        parse(document["fault"])
        match = document.get("match", {})
        self.rules.append(
            Rule(
                document["fault"],
                match.get("model", "*"),
                match.get("path", "*"),
                document.get("times", -1),
            )
        )

    def find(self, model: str, target: str, header: str) -> Fault:
        """The fault of a request: its own wish first (model or header), then the rules."""
        if model.startswith(PREFIX):
            return parse(model[len(PREFIX) :])
        if header:
            return parse(header)
        for rule in self.rules:
            if rule.times and fnmatchcase(model, rule.model) and fnmatchcase(target, rule.path):
                rule.times -= 1 if rule.times > 0 else 0
                return parse(rule.fault)
        return Fault()
