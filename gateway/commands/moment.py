"""Dates on the command line: `2027-01-01`, a date-time, or `90d` from now. UTC where none is named."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from gateway.commands.output import Misused
from gateway.core.moment import moment
from gateway.settings.faults import quote
from gateway.settings.kinds import Wrong
from gateway.settings.quantities import SECONDS, split


def parse_moment(option: str, text: str, ahead: bool = False) -> datetime:
    """A moment; a duration counts back from now, or with `ahead` forward. Raises `Misused`."""
    try:
        return moment(text)
    except ValueError:
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
