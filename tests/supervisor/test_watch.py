"""What operators hear of limits."""

from __future__ import annotations

import pytest

from gateway.core.limit import LimitRule
from gateway.core.notice import Notice
from gateway.observe.metrics import Metrics
from gateway.settings.schema import Settings
from gateway.supervisor.watch import LimitWatch


@pytest.mark.parametrize(("unit", "told"), [("usd", (8.25, 10.0)), ("tokens", (8_250_000, 10_000_000))])
def test_a_notice_tells_of_a_limit_in_its_own_unit(unit: str, told: tuple[float, float]) -> None:
    heard: list[Notice] = []
    watch = LimitWatch(Metrics(), heard.append, Settings())
    rule = LimitRule("budget", ("tenant",), unit, 10_000_000, calendar="month")
    watch.noticed("limit.near", rule, "acme", 8_250_000, 10_000_000)
    (notice,) = heard
    assert (notice.detail["used"], notice.detail["amount"]) == told
    assert (notice.detail["unit"], notice.subject) == (unit, "limit budget|acme")
