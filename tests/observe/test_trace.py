"""Only a valid W3C trace context goes on."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.observe.trace import context, forwarded, trace_id

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = f"00-{TRACE}-00f067aa0ba902b7-01".encode()


@pytest.mark.parametrize("value", [PARENT, b"cc" + PARENT[2:], b"cc" + PARENT[2:] + b"-future"])
def test_a_valid_traceparent_gives_its_trace_id(value: bytes) -> None:
    assert trace_id(value) == TRACE


@pytest.mark.parametrize(
    "value",
    [
        b"",
        PARENT[:-1],
        PARENT + b"\n",
        PARENT + b"-more",
        b"ff" + PARENT[2:],
        b"cc" + PARENT[2:] + b".future",
        PARENT.upper(),
        b"00-" + b"0" * 32 + PARENT[35:],
        PARENT[:36] + b"0" * 16 + b"-01",
        b"cc" + PARENT[2:] + b"-" + b"x" * 600,
    ],
)
def test_anything_else_gives_none(value: bytes) -> None:
    assert trace_id(value) == ""


@given(st.binary(max_size=80))
def test_garbage_never_raises(value: bytes) -> None:
    trace_id(value)


def test_a_valid_context_goes_on_as_it_came() -> None:
    headers = [(b"host", b"x"), (b"traceparent", PARENT), (b"tracestate", b"a=1"), (b"tracestate", b"b=2")]
    assert context(headers) == (TRACE, b"traceparent: " + PARENT + b"\r\ntracestate: a=1,b=2\r\n")


def test_without_a_context_none_is_made() -> None:
    assert context([(b"host", b"x")]) == ("", b"")


def test_state_goes_no_further_than_its_parent() -> None:
    assert forwarded([(b"tracestate", b"a=1")]) == b""
    assert forwarded([(b"traceparent", b"junk"), (b"tracestate", b"a=1")]) == b""
    assert forwarded([(b"traceparent", PARENT), (b"traceparent", PARENT)]) == b""


def test_an_oversize_state_is_dropped_alone() -> None:
    headers = [(b"traceparent", PARENT), (b"tracestate", b"a" * 10_000)]
    assert forwarded(headers) == b"traceparent: " + PARENT + b"\r\n"
