"""What calls usually take: quantiles that are never below the truth, and that move with it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.stages.limits.habit import ENOUGH, Habit, Habits, edge, place


@given(st.integers(0, 1 << 40))
def test_a_length_is_counted_where_the_edge_is_no_less_and_at_most_a_quarter_more(tokens: int) -> None:
    counted = min(tokens, (1 << 31) - 1)
    assert counted <= edge(place(tokens)) <= max(counted * 1.25, counted)


def test_nothing_is_concluded_from_a_few_answers() -> None:
    habit = Habit()
    for _ in range(ENOUGH - 1):
        habit.observe(300)
    assert habit.output == 0
    habit.observe(300)
    assert 300 <= habit.output <= 375


def test_nineteen_of_twenty_answers_are_no_longer() -> None:
    habit = Habit()
    for number in range(400):
        habit.observe(5000 if number % 25 == 0 else 200)
    assert 200 <= habit.output <= 250
    for number in range(1600):
        habit.observe(5000 if number % 10 == 0 else 200)
    assert habit.output >= 5000


def test_what_was_long_ago_fades() -> None:
    habit = Habit()
    for _ in range(2000):
        habit.observe(8000)
    for _ in range(4000):
        habit.observe(100)
    assert habit.output <= 125


def test_the_densest_prompt_counts_and_fades() -> None:
    habit = Habit()
    habit.prompted(10_000, 6000)
    habit.prompted(10_000, 2000)
    assert 0.58 < habit.density <= 0.6
    for _ in range(1000):
        habit.prompted(10_000, 2000)
    assert 0.2 <= habit.density < 0.21


def test_of_a_short_prompt_only_what_stands_around_it_is_learned() -> None:
    habit = Habit()
    habit.prompted(100, 1025)
    assert (habit.overhead, habit.density) == (1000, 0.0)


def test_tenants_and_models_are_remembered_bounded() -> None:
    habits = Habits()
    first = habits.of("a", "m")
    assert habits.of("a", "m") is first and habits.of("b", "m") is not first
    for number in range(10_000):
        habits.of("a", f"m{number}")
    assert len(habits._known) <= 4096
