"""Times as people and other programs read and write them: ISO 8601, in UTC where none is named."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FIRST = datetime(1, 1, 1, tzinfo=UTC).timestamp()
_LAST = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)


def iso(seconds: float | None, timespec: str = "auto") -> str | None:
    """Epoch seconds as a date-time in UTC, None as None; what is beyond the years 1 to 9999 is their end."""
    if seconds is None:
        return None
    bounded = max(_FIRST, min(seconds, _LAST.timestamp()))
    return (_EPOCH + timedelta(seconds=bounded)).isoformat(timespec=timespec).replace("+00:00", "Z")


def moment(text: str) -> datetime:
    """A date or date-time, in UTC.

    Raises `ValueError`, also for what lies outside of the years 1 to 9999 once it is UTC.
    """
    given = datetime.fromisoformat(text)
    try:
        return given.astimezone(UTC) if given.tzinfo else given.replace(tzinfo=UTC)
    except OverflowError:
        raise ValueError("beyond the years 1 to 9999") from None


def pause(value: bytes, now: float) -> float | None:
    """Seconds that a `retry-after` asks for, as a number or as a date (RFC 9110, 10.2.3); None where it is
    neither. `now`: epoch seconds.
    """
    if value.isdigit():
        return float(value[:9])
    try:
        return max(0.0, parsedate_to_datetime(value.decode("ascii")).timestamp() - now)
    except (ValueError, OverflowError):
        return None
