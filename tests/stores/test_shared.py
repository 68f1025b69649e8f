"""A replica's side of shared limits, with made-up answers of the store."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.core.limit import LimitRule, Spent
from gateway.stores.leases import SharedAuthority
from gateway.stores.leases.share import POLL, Reply
from gateway.stores.leases.upstream import GATHER, Question
from tests.link.world import rule


class Asked:
    """A replica with one worker, whose store answers what it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0
        rules = [rule("concurrent", 1, id="left"), rule("concurrent", 1, id="right")]
        self.authority = SharedAuthority("boot", rules, lambda: self.now)
        self.authority.upstream.heard_time(5000.0)
        self.authority.find()
        self.sent: list[tuple[int, dict[str, Any]]] = []

    def ask(self, number: int, *names: str) -> None:
        parts = [[f"{name}|a", 1, 1, 0, 0, 0] for name in names]
        self.sent += self.authority.receive(0, {"t": "ask", "at": 0, "asks": [[number, parts]]})

    def questions(self, after: float = GATHER) -> list[Question]:
        self.now += after
        return self.authority.questions()

    def answer(self, questions: list[Question], **replies: Reply) -> None:
        said = [replies[question.account.rule.id] for question in questions]
        self.sent += self.authority.answered(questions, said, self.now)

    def verdicts(self) -> dict[int, bool]:
        answers = [each for _, message in self.sent for each in message.get("answers", ())]
        return {number: granted for number, granted, _ in answers}


def test_who_comes_while_another_s_question_is_under_way_is_asked_for_as_well() -> None:
    asked = Asked()
    asked.ask(1, "left", "right")
    elsewhere, gone = Reply("ok", others=1), Reply("ok", retry=1.0)
    asked.answer(asked.questions(), left=elsewhere, right=gone)
    assert asked.verdicts() == {1: False}
    # The store is still looked at for `left`, which nobody waits for any more; then somebody does.
    questions = asked.questions(POLL)
    assert [question.need for question in questions] == [0]
    asked.ask(2, "left")
    asked.answer(questions, left=Reply("ok", left=1))
    questions = asked.questions()
    assert [question.need for question in questions] == [1]
    asked.answer(questions, left=Reply("ok", granted=1))
    assert asked.verdicts() == {1: False, 2: True}


def test_a_refusal_is_forgotten_as_soon_as_the_store_tells_of_more() -> None:
    asked = Asked()
    asked.ask(1, "left")
    asked.answer(asked.questions(), left=Reply("ok", retry=1.0))
    assert asked.verdicts() == {1: False}
    account = asked.authority.account("left", "a")
    assert account is not None
    asked.authority.upstream.urge(account)  # such as to report what was used
    asked.answer(asked.questions(), left=Reply("ok", left=1))
    asked.ask(2, "left")
    assert 2 not in asked.verdicts()
    asked.answer(asked.questions(), left=Reply("ok", granted=1))
    assert asked.verdicts()[2]


class Alone:
    """One of two replicas whose store comes and goes, and what its limits leave it."""

    def __init__(self, *rules: LimitRule) -> None:
        self.now = 1000.0
        self.authority = SharedAuthority("boot", rules, lambda: self.now, lambda: self.now + 1e9)
        self.authority.upstream.replicas = 2

    def used(self, of: LimitRule, amount: int, ago: float = 0.0) -> None:
        at = round((self.now + 1e9 - ago) * 1000)
        self.authority.load(of, [Spent("a", at, amount, amount, amount)])

    def left(self, of: LimitRule) -> int:
        account = self.authority._book.account(f"{of.id}|a")
        assert account is not None
        return account.left

    def take(self, of: LimitRule, amount: int) -> None:
        """A worker is granted so much beyond any lease of the store, and uses it."""
        account = self.authority._book.account(f"{of.id}|a")
        assert account is not None
        account.grant(0, amount, 0)
        account.take_back(0, 0, amount, 0, 0)


@pytest.mark.parametrize("window", [{}, {"calendar": "day"}])
def test_a_replica_that_starts_without_the_store_has_what_it_has_not_used_of_its_part(window: Any) -> None:
    hundred = rule("requests", 100, **window)
    alone = Alone(hundred)
    assert alone.left(hundred) == 50
    again = Alone(hundred)
    again.used(hundred, 30, ago=20.0)
    assert again.left(hundred) == 20
    once_more = Alone(hundred)
    once_more.used(hundred, 90)
    assert once_more.left(hundred) <= 0


@pytest.mark.parametrize("window", [{}, {"calendar": "day"}])
def test_many_outages_in_one_window_give_a_replica_its_part_once(window: Any) -> None:
    hundred = rule("requests", 100, **window)
    alone = Alone(hundred)
    alone.authority.find()
    for part in (50, 20, 0):
        alone.authority.lose()
        assert alone.left(hundred) == part
        alone.take(hundred, min(part, 30))
        alone.authority.find()
        alone.now += 1.0
    alone.now += 86_400.0
    alone.authority.lose()
    assert alone.left(hundred) == 50


def test_when_what_was_used_here_counts_no_more_is_known_whatever_the_store_says() -> None:
    hourly, places = rule("requests", 100, seconds=3600.0), rule("concurrent", 2, id="places")
    alone = Alone(hourly, places)
    alone.used(hourly, 30, ago=600.0)
    alone.authority.find()
    account, other = alone.authority._book.find(f"{hourly.id}|a"), alone.authority._book.account("places|a")
    assert account is not None and 3000 <= account.whole_in <= 3060
    assert other is not None and other.whole_in == 0.0
    alone.now += 3100.0
    assert account.whole_in == 0.0


def test_a_rule_that_counts_in_another_window_begins_its_part_anew() -> None:
    hourly, daily = rule("requests", 100, id="r"), rule("requests", 80, id="r", calendar="day")
    alone = Alone(hourly)
    alone.authority.find()
    alone.authority.lose()
    assert alone.left(hourly) == 50
    alone.take(hourly, 10)
    alone.authority.replace_rules([daily])
    assert alone.left(daily) == 40
