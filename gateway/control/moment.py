"""Times as the admin API reads and writes them."""

from __future__ import annotations

from datetime import UTC, datetime

_LAST = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)


def iso(seconds: float | None) -> str | None:
    """Epoch seconds as ISO 8601 in UTC, None as None. What is after the year 9999 is its end."""
    if seconds is None:
        return None
    moment = datetime.fromtimestamp(min(seconds, _LAST.timestamp()), UTC)
    return moment.isoformat(timespec="seconds").replace("+00:00", "Z")


def moment(text: str) -> datetime:
    """An ISO 8601 date or date-time in UTC, which it is where it names no offset.

    Raises `ValueError`, also for what lies outside of the years 1 to 9999 once it is UTC.
    """
    given = datetime.fromisoformat(text)
    try:
        found = given.astimezone(UTC) if given.tzinfo else given.replace(tzinfo=UTC)
    except OverflowError:
        raise ValueError("beyond the years 1 to 9999") from None
    return min(found, _LAST)
