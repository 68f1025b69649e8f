"""A request as an ASGI server hands it over, as a call.

What came through the gateway's own lane was judged there, strictly. Other servers let more pass: dot
segments, two hosts, two credentials. So the heads that they read are written down again as they would come
over the wire, and `request.parse` judges them, in the same words.
"""

from __future__ import annotations

import time
from collections.abc import MutableMapping
from typing import Any
from urllib.parse import quote

from gateway.core.call import Call
from gateway.core.errors import CallerError
from gateway.front import paths
from gateway.front.body import too_large
from gateway.front.fields import PASS, kind_of
from gateway.front.head import block
from gateway.front.intake import Intake
from gateway.front.request import hopeless, parse
from gateway.observe import trace

REFUSED = "penstock.refused"  # in a scope: the lane has answered this request itself, there is no call
_AS_IT_IS = "/-._~!$&'()*+,;=:@"  # characters of a path that need no %XX
_NEWER = ("2", "3")  # versions of HTTP without a request line: what it would say is the same


def read(intake: Intake, scope: MutableMapping[str, Any]) -> Call:
    """The call of a request whose head the lane has passed."""
    path, endpoint = paths.place(_path(scope).decode("ascii", "replace"))
    headers = [(bytes(name).lower(), bytes(value)) for name, value in scope["headers"]]
    call = Call(scope["method"], path, endpoint, headers, b"")
    named = {t.strip().lower() for n, v in headers if n == b"connection" for t in v.split(b",")}
    call.trace, context = trace.context(headers)
    passed = [pair for pair in headers if kind_of(pair[0]) == PASS and pair[0] not in named]
    call.passed = block(passed) + context
    call.query = scope.get("query_string", b"")
    intake.stamp(call, time.monotonic())
    return _from(scope, call)


def judge(intake: Intake, scope: MutableMapping[str, Any]) -> Call:
    """The call of a request that another server read. Raises `CallerError`, as the lane would."""
    received = time.monotonic()
    data = _written(scope)
    if len(data) > intake.bounds.headers:
        hopeless(data + b"\r\n\r\n", intake.bounds.headers)
    head = parse(data)
    if head.length > intake.bounds.body:
        raise too_large(intake.bounds.body)
    return _from(scope, intake.call(head, b"", received))


def nobody(intake: Intake, scope: MutableMapping[str, Any]) -> Call:
    """What stands in for a request that is no call, so that its refusal has an id."""
    call = Call(scope["method"], "", "other", [], b"")
    intake.stamp(call, time.monotonic())
    return _from(scope, call)


def _from(scope: MutableMapping[str, Any], call: Call) -> Call:
    client = scope.get("client")
    call.client = client[0] if client else "local"
    return call


def _path(scope: MutableMapping[str, Any]) -> bytes:
    """As it came, where the server says that."""
    raw: bytes | None = scope.get("raw_path")
    return raw.partition(b"?")[0] if raw else quote(scope["path"], safe=_AS_IT_IS).encode()


def _written(scope: MutableMapping[str, Any]) -> bytes:
    """The head as it would stand on the wire. Raises `CallerError` for what is not one line for each header:
    written down, it would be read as something else.
    """
    target, query = _path(scope), scope.get("query_string", b"")
    if query:
        target = b"%b?%b" % (target, query)
    version = scope.get("http_version", "1.1")
    start = f"HTTP/{'1.1' if version in _NEWER else version}"
    lines = [b"%b %b %b" % (_bytes(scope["method"]), target, _bytes(start))]
    for name, value in scope["headers"]:
        if b":" in name:
            raise CallerError("A header line must be 'name: value' with a name of token characters.")
        lines.append(b"%b: %b" % (name, value))
    data = b"\r\n".join(lines)
    if data.count(b"\r\n") != len(scope["headers"]):
        raise CallerError("A header value must not hold control characters.")
    return data


def _bytes(text: str) -> bytes:
    return text.encode("ascii", "replace")
