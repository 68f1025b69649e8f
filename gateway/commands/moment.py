"""Dates on the command line: `2027-01-01`, a date-time, or `90d` from now. UTC where none is named."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from gateway.commands.output import Misused
from gateway.settings.faults import quote
from gateway.settings.kinds import Wrong
from gateway.settings.quantities import SECONDS, split

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FIRST = datetime(1, 1, 1, tzinfo=UTC).timestamp()
_LAST = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC).timestamp()


def parse_moment(option: str, text: str, ahead: bool = False) -> datetime:
    """A moment; a duration counts back from now, or with `ahead` forward. Raises `Misused`."""
    try:
        moment = datetime.fromisoformat(text)
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        return _from_now(option, text, ahead)


def _from_now(option: str, text: str, ahead: bool) -> datetime:
    try:
        number, unit = split(text, SECONDS, "a date or duration", "2027-01-01")
        span = timedelta(seconds=number * SECONDS[unit])
        return datetime.now(UTC) + (span if ahead else -span)
    except (Wrong, OverflowError):
        raise Misused(
            f'{option}: {quote(text)} is not a date such as 2027-01-01, or a duration such as "7d"'
        ) from None


def iso(seconds: float | None) -> str | None:
    """Epoch seconds as an ISO date-time in UTC; what lies outside of the years 1 to 9999 is their end."""
    if seconds is None:
        return None
    bounded = max(_FIRST, min(seconds, _LAST))
    return (_EPOCH + timedelta(seconds=bounded)).isoformat().replace("+00:00", "Z")
