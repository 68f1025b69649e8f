"""A replica's side of shared limits, with made-up answers of the store."""

from __future__ import annotations

from typing import Any

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
