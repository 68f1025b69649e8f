"""Header lines of a request: strict syntax, and what may go on to an upstream.

Lines repeat from call to call, so what was found out about one is remembered (bounded).
"""

from __future__ import annotations

import re
from typing import NamedTuple

from gateway.core import credential
from gateway.core.errors import CallerError

# RFC 9110, 5.6.2 (token) and 5.5 (field values: no control bytes but HTAB).
_NAME = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+\Z")
_FORBIDDEN = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")

# What becomes of a line: it goes on, it stays here, or it says how the message is to be read. Host and
# length come with every request, so they are checked when a line is first seen.
PASS, DROP, HOST, LENGTH, FRAMING = range(5)

_FRAMING = {
    b"host": HOST,
    b"content-length": LENGTH,
    b"transfer-encoding": FRAMING,
    b"connection": FRAMING,
    b"expect": FRAMING,
    b"content-encoding": FRAMING,
}
_HOST = re.compile(rb"(?:[A-Za-z0-9._\-~%]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?\Z")
_DIGITS = re.compile(rb"[0-9]{1,18}\Z")

# Never forwarded: hop-by-hop (RFC 9110, 7.6.1), the caller's credentials, everything a provider
# would take for the operator's identity, and what only proxies may say.
_DROPPED = frozenset(
    (
        b"keep-alive",
        b"proxy-connection",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"te",
        b"trailer",
        b"upgrade",
        b"http2-settings",
        b"accept-encoding",
        b"authorization",
        b"x-api-key",
        b"api-key",
        b"cookie",
        b"openai-organization",
        b"openai-project",
        b"x-goog-api-key",
        b"ocp-apim-subscription-key",
        b"forwarded",
        b"via",
        b"x-real-ip",
        b"x-request-id",
        b"traceparent",  # goes on where it is valid: `request.parse` puts it back
        b"tracestate",
        b"x-tenant",
        b"x-original-url",
        b"x-rewrite-url",
        b"x-http-method-override",
        b"max-forwards",
    )
)
_DROPPED_PREFIXES = (b"x-penstock-", b"x-forwarded-", b"cf-", b"x-amz-", b"x-ms-")

_MEMO_ENTRIES = 2048
_MEMO_LINE = 512


class Field(NamedTuple):
    """One header line: lower-case name and value, `PASS`…`FRAMING`, its wire form, a length's number."""

    pair: tuple[bytes, bytes]
    kind: int
    wire: bytes
    number: int


MEMO: dict[bytes, Field] = {}  # read by `request.parse` without a call


def field(line: bytes, after: bytes = b"") -> Field:
    """A header line (without its CRLF) taken apart, and remembered. Raises `CallerError`: 400, or the 401
    of every unknown credential where the fault lies in one, or in what is left of one that held a CRLF.

    `after` is the name of the line before it.
    """
    try:
        found = _parse(line)
    except CallerError:
        if credential.begins(line) or (
            after in credential.NAMES and b":" not in line and line[:1] not in b" \t"
        ):
            raise credential.unknown() from None
        raise
    if len(line) <= _MEMO_LINE and found.pair[0] not in credential.NAMES:  # each caller has another
        if len(MEMO) >= _MEMO_ENTRIES:
            MEMO.clear()
        MEMO[line] = found
    return found


def _parse(line: bytes) -> Field:
    if line[:1] in (b" ", b"\t"):
        raise CallerError("Folded header lines are not accepted; send each header on one line.")
    name, colon, value = line.partition(b":")
    if not colon or _NAME.match(name) is None:
        raise CallerError("A header line must be 'name: value' with a name of token characters.")
    value = value.strip(b" \t")
    if _FORBIDDEN.search(value):
        raise CallerError("A header value must not hold control characters.")
    name = name.lower()
    kind, number = kind_of(name), 0
    if kind == HOST and _HOST.match(value) is None:
        raise CallerError("The host header must be a host name or address with an optional port.")
    if kind == LENGTH:
        if _DIGITS.match(value) is None:
            raise CallerError("content-length must be one decimal number.")
        number = int(value)
    return Field((name, value), kind, name + b": " + value + b"\r\n", number)


def kind_of(name: bytes) -> int:
    """What becomes of a header of this (lower-case) name."""
    framing = _FRAMING.get(name)
    if framing is not None:
        return framing
    if name in _DROPPED or name.startswith(_DROPPED_PREFIXES) or b"_" in name:
        # An underscore turns into a dash in many servers, which would bring dropped names back.
        return DROP
    return PASS
