"""Times as they are read and written."""

from __future__ import annotations

import pytest

from gateway.core.moment import iso, moment, pause


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


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (b"0", 0.0),
        (b"120", 120.0),
        (b"9" * 30, 999_999_999.0),
        (b"Fri, 02 Jan 1970 00:01:40 GMT", 100.0),
        (b"Thu, 01 Jan 1970 00:00:00 GMT", 0.0),
        (b"-1", None),
        (b"1.5", None),
        (b"soon", None),
        (b"", None),
        (b"\xff", None),
        (b"Fri, 99 Jan 1970 00:01:40 GMT", None),
    ],
)
def test_a_time_to_come_back_is_a_number_of_seconds_or_a_date(value: bytes, seconds: float | None) -> None:
    assert pause(value, now=86_400.0) == seconds
