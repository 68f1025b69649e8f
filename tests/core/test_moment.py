"""Times as they are read and written."""

from __future__ import annotations

import pytest

from gateway.core.moment import iso, moment


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1970-01-02", 86400.0),
        ("1970-01-01T01:00:00", 3600.0),
        ("1970-01-01T01:00:00+01:00", 0.0),
        ("1970-01-01T00:00:00.5Z", 0.5),
    ],
)
def test_a_date_without_an_offset_is_in_utc(text: str, seconds: float) -> None:
    assert moment(text).timestamp() == seconds


@pytest.mark.parametrize("text", ["9999-12-31T23:59:59-23:00", "0001-01-01T00:00:00+23:00", "soon"])
def test_what_is_no_moment_of_the_years_that_can_be_written_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        moment(text)


def test_a_moment_is_written_in_utc_and_bounded_by_the_years_that_can_be() -> None:
    assert iso(None) is None
    assert iso(0.5) == "1970-01-01T00:00:00.500000Z"
    assert iso(0.5, "seconds") == "1970-01-01T00:00:00Z"
    assert iso(1e18) == "9999-12-31T23:59:59Z"
    assert iso(-1e18) == "0001-01-01T00:00:00Z"
