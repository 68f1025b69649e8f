"""A bounded memo: what is used stays, what is not goes, never all at once."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.core.generations import Generations


def test_what_is_found_lately_stays_whatever_else_comes() -> None:
    memo = Generations[int, str](10)
    memo.keep(0, "kept")
    for number in range(1, 1000):
        memo.keep(number, "new")
        assert memo.find(0) == "kept"
    assert len(memo) <= 20


def test_what_was_not_used_for_long_goes() -> None:
    memo = Generations[int, str](10)
    for number in range(30):
        memo.keep(number, "new")
    assert memo.find(0) is None and memo.find(29) == "new" and memo.find(15) == "new"


def test_an_entry_that_is_too_heavy_is_not_kept_and_displaces_nothing() -> None:
    memo = Generations[str, str](10, lambda key, value: len(value))
    memo.keep("a", "x")
    memo.keep("b", "x" * 11)
    assert memo.find("b") is None and memo.find("a") == "x"
    memo.keep("a", "x" * 11)
    assert memo.find("a") is None


def test_another_value_takes_the_place_of_the_one_before() -> None:
    memo = Generations[str, int](2)
    memo.keep("a", 1)
    memo.keep("b", 1)
    memo.keep("c", 1)  # now `a` is among the old
    memo.keep("a", 2)
    assert memo.find("a") == 2
    memo.clear()
    assert memo.find("a") is None and len(memo) == 0


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 30), st.integers(0, 12)), max_size=200))
def test_it_never_tells_of_what_was_not_kept_last_and_stays_within_its_bound(
    steps: list[tuple[bool, int, int]],
) -> None:
    memo, truth = Generations[int, int](20, lambda key, value: value), dict[int, int]()
    for keeps, key, value in steps:
        if keeps:
            memo.keep(key, value)
            truth[key] = value
        else:
            assert memo.find(key) in (None, truth.get(key))
        assert sum(memo.young.values()) <= 20
