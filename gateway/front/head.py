"""The head of an answer: status line, headers of the reply, our reasons. Nothing in it can be split."""

from __future__ import annotations

import http
import re
import time
from typing import Final

from gateway.core.call import WAITED, Call, Headers
from gateway.core.reply import Reply
from gateway.core.route import Target

_SPLIT: Final = re.compile(rb"[\r\n\0]")
_UNSAFE: Final = re.compile(rb"[^\x21-\x7e]+")


def _line(status: int) -> bytes:
    try:
        phrase = http.HTTPStatus(status).phrase
    except ValueError:
        phrase = ""
    return b"HTTP/1.1 %d %s\r\n" % (status, phrase.encode())


STATUS: Final = {status: _line(status) for status in range(100, 600)}
# Put together of these, both headers with numbers take a third of what formatting them does, 0.5 us a call.
_NUMBERS: Final = [b"%d" % number for number in range(1000)]
_THREE: Final = [b"%03d" % number for number in range(1000)]
BODYLESS: Final = frozenset((204, 304))


def safe(text: str) -> bytes:
    """Text as a header value: printable ASCII without spaces, at most 128 bytes."""
    data = text.encode("ascii", "replace")
    return _UNSAFE.sub(b"-", data)[:128] if _UNSAFE.search(data) else data[:128]


def reasons(call: Call) -> bytes:
    """The `x-penstock-*` block that depends on revision, target and reason; remembered, bounded."""
    target, plan = call.target, call.plan
    if plan is not None and call.tries == 1 and not call.reasons:  # as planned
        block = plan.shown.get(call.model)
        if block is None:
            if len(plan.shown) >= 256:
                plan.shown.clear()
            block = plan.shown[call.model] = _reasons(call.revision, target, call.model, plan.reason)
        return block
    if plan is None or (call.code and not call.tries):  # nobody was asked: why not?
        reason = call.code
    else:
        reason = call.reasons.get("route") or plan.reason
    if "limits" in call.reasons:
        reason += f";limits:{call.reasons['limits']}"
    return _reasons(call.revision, target, call.model, reason)


def _reasons(revision: str, target: Target | None, model: str, reason: str) -> bytes:
    where = safe(f"{target.backend}/{target.model or model}") if target is not None else b"none"
    return (
        b"x-penstock-revision: %b\r\nx-penstock-target: %b\r\nx-penstock-reason: %b\r\n"
        b"x-penstock-cache: off\r\nx-penstock-guard: off\r\n"
    ) % (safe(revision), where, safe(reason) or b"none")


def overhead(call: Call, now: float) -> float:
    """Seconds spent in the gateway so far: everything but the wait for the upstream."""
    waited: float = call.memo.get(WAITED, 0.0)
    if not call.sent:
        return now - call.received - waited
    since = call.replied or call.first_byte or now
    return (call.sent - call.received) + (now - since) - call.connect_time - waited


def own(call: Call) -> bytes:
    """All headers the gateway adds, as a wire block."""
    usage, limits, money = call.usage, call.memo.get("ratelimit", b""), call.cost
    cost = b""
    if usage.source == "provider" or usage.source == "estimated" or money:
        cost = b"x-penstock-cost-usd: %b.%b%b\r\n" % (
            _number(money // 1_000_000),
            _THREE[money // 1000 % 1000],
            _THREE[money % 1000],
        )
    micros = max(int(overhead(call, time.monotonic()) * 1e6 + 0.5), 0)
    return b"x-request-id: %b\r\n%bx-penstock-overhead-ms: %b.%b\r\n%b%b" % (
        call.id.encode(),
        reasons(call),
        _number(micros // 1000),
        _THREE[micros % 1000],
        cost,
        limits if type(limits) is bytes else block(limits),
    )


def _number(value: int) -> bytes:
    return _NUMBERS[value] if 0 <= value < 1000 else b"%d" % value


def block(headers: Headers) -> bytes:
    """Header pairs in wire form. One with a line break or NUL in it is left out: nothing can be split."""
    parts: list[bytes] = []
    for name, value in headers:
        parts += (name, b": ", value, b"\r\n")
    wire = b"".join(parts)
    count = len(headers)
    if wire.count(b"\n") == count and wire.count(b"\r") == count and b"\0" not in wire:
        return wire
    return block([(n, v) for n, v in headers if not _SPLIT.search(n) and not _SPLIT.search(v)])


def render(call: Call, reply: Reply, framing: bytes, body: bytes = b"") -> bytes:
    """The whole head, and a body that is short enough to go with it.

    `framing` is content-length, transfer-encoding and connection, in wire form.
    """
    wire = reply.wire or block(reply.headers)
    return b"%b%b%b%b\r\n%b" % (STATUS[reply.status], wire, own(call), framing, body)


def pairs(call: Call) -> Headers:
    """The gateway's own headers as pairs, for ASGI."""
    lines = own(call).split(b"\r\n")
    found = (line.partition(b": ") for line in lines if line)
    return [(name, value) for name, _, value in found]
