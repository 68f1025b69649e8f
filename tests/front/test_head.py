"""The numbers among the headers of an answer."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.call import Call
from gateway.front.head import own
from tests.stages.given import call


def headers(made: Call) -> dict[bytes, bytes]:
    return {name: value for name, _, value in (line.partition(b": ") for line in own(made).split(b"\r\n"))}


@given(st.integers(1, 10**13))
def test_money_is_told_to_the_micro_dollar(cost: int) -> None:
    made = call()
    made.cost = cost
    assert headers(made)[b"x-penstock-cost-usd"].decode() == f"{cost // 10**6}.{cost % 10**6:06d}"


def test_the_overhead_is_told_to_the_microsecond(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "monotonic", lambda: 1000.0)
    for overhead in (0.0, 0.000_000_6, 0.000_351, 0.0125, 0.999_999_6, 1.0, 12.345_678, 4000.5):
        made = call()
        made.sent, made.replied = 999.0, 1000.0
        made.received = 999.0 - overhead
        assert float(headers(made)[b"x-penstock-overhead-ms"]) == pytest.approx(overhead * 1000, abs=0.000_6)
    made.received = 999.5  # of a clock that was read later than it should
    assert headers(made)[b"x-penstock-overhead-ms"] == b"0.000"
