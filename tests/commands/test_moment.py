"""Dates on the command line."""

from __future__ import annotations

import pytest

from gateway.commands.moment import parse_moment
from gateway.commands.output import Misused


@pytest.mark.parametrize("text", ["9999-12-31T23:59:59-23:00", "0001-01-01T00:00:00+23:00", "tomorrow"])
def test_what_is_no_moment_is_told_with_the_option(text: str) -> None:
    with pytest.raises(Misused, match="--expires"):
        parse_moment("--expires", text)
