from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.settings.kinds import Kind, Reading, Wrong
from gateway.settings.quantities import Duration, Size, Window
from gateway.settings.tree import Node, Source

SOURCE = Source("here", Path())


def parse(kind: Kind, value: Any) -> Any:
    """A value as its kind reads it. Raises `Wrong`."""
    return kind.parse(Node(value, SOURCE), Reading({}))


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("250ms", 0.25), ("5s", 5), ("1.5s", 1.5), ("1m", 60), ("2h", 7200), ("1d", 86400), ("5 s", 5)],
)
def test_durations_are_seconds(text: str, seconds: float) -> None:
    assert parse(Duration(), text) == seconds


@pytest.mark.parametrize(
    ("text", "size"), [("1B", 1), ("32KiB", 32768), ("1.5MiB", 1572864), ("2GiB", 1 << 31)]
)
def test_sizes_are_bytes(text: str, size: int) -> None:
    assert parse(Size(), text) == size


@pytest.mark.parametrize(
    ("text", "window"), [("1m", (60.0, "")), ("30d", (2592000.0, "")), ("calendar month", (0.0, "month"))]
)
def test_windows_roll_or_follow_the_calendar(text: str, window: tuple[float, str]) -> None:
    assert parse(Window(), text) == window


@given(st.text() | st.integers() | st.floats() | st.booleans() | st.none() | st.lists(st.integers()))
def test_anything_else_is_refused_in_words(value: Any) -> None:
    for kind in (Duration(), Size(), Window()):
        try:
            parse(kind, value)
        except Wrong as wrong:
            assert str(wrong)


@given(st.integers(1, 10**9))
def test_a_shown_quantity_reads_back(number: int) -> None:
    assert parse(Size(), Size().show(number)) == number
    assert parse(Duration(most=1e12), Duration().show(float(number % 10**5 + 1))) == number % 10**5 + 1
