"""Notices: told once, counted, passed on to whoever wants them, and never waited for."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from gateway.core.notice import KINDS, Listener, Notice, Unwanted
from gateway.core.principal import KeyEntry
from gateway.observe.metrics import Metrics
from gateway.supervisor import notices as subject
from gateway.supervisor.expiry import Expiry
from gateway.supervisor.notices import QUEUE, TRIES, Notices, kinds_of


class Hearing(Listener):
    """A listener that does with each try what the test says."""

    def __init__(self, act: Callable[[Notice], Coroutine[Any, Any, None]] | None = None) -> None:
        self.heard: list[str] = []
        self.opened = self.closed = 0
        self._act = act

    async def open(self) -> None:
        self.opened += 1

    async def hear(self, notice: Notice) -> None:
        if self._act is not None:
            await self._act(notice)
        self.heard.append(notice.subject)

    async def close(self) -> None:
        self.closed += 1


class World:
    """Notices with a count, and pauses of next to nothing."""

    def __init__(self) -> None:
        self.counts: Counter[tuple[str, ...]] = Counter()
        self.now = 0.0
        self.notices = Notices(lambda *name: self.counts.update([name]), 0.001, self.clock)

    def clock(self) -> float:
        self.now += 1.0
        return self.now

    def listen(self, *listeners: Listener, kinds: tuple[str, ...] = ("*",)) -> None:
        self.notices.listen([("tests:Hearing", each, kinds) for each in listeners])


async def settled(true: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while not true():
            await asyncio.sleep(0.001)


def run(scenario: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(scenario, 30))


def test_a_notice_is_one_line_one_count_and_reaches_every_listener(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        world, one, other = World(), Hearing(), Hearing()
        world.listen(one, other)
        world.notices.happened("store.lost", "redis", replicas=2)
        await settled(lambda: one.heard and other.heard)
        await world.notices.close()
        assert one.heard == other.heard == ["redis"]
        assert world.counts == {("notices", "store.lost"): 1}
        assert (one.opened, one.closed) == (1, 1)

    with caplog.at_level(logging.INFO, "penstock.notices"):
        run(scenario())
    (line,) = caplog.records
    assert (line.event, line.subject, line.detail) == ("store.lost", "redis", {"replicas": 2})  # type: ignore[attr-defined]
    assert line.levelno == logging.WARNING


def test_a_listener_gets_the_kinds_it_wants() -> None:
    async def scenario() -> None:
        world, limits, all_of_them = World(), Hearing(), Hearing()
        world.notices.listen([("a", limits, ("limit.*",)), ("b", all_of_them, ("*",))])
        for kind in ("limit.near", "store.lost", "limit.reached"):
            world.notices.happened(kind, kind)
        await settled(lambda: len(all_of_them.heard) == 3)
        await world.notices.close()
        assert limits.heard == ["limit.near", "limit.reached"]

    run(scenario())


def test_a_listener_that_fails_is_asked_again_and_the_others_do_not_wait() -> None:
    async def scenario() -> None:
        tries = 0

        async def third_time(notice: Notice) -> None:
            nonlocal tries
            tries += 1
            if tries < 3:
                raise ConnectionError("canary-secret")

        world, slow, quick = World(), Hearing(third_time), Hearing()
        world.listen(slow, quick)
        world.notices.happened("store.lost", "redis")
        await settled(lambda: slow.heard)
        assert quick.heard == ["redis"] and tries == 3
        await world.notices.close()
        assert set(world.counts) == {("notices", "store.lost")}

    run(scenario())


def test_what_cannot_be_delivered_is_dropped_and_counted_and_its_text_is_not_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def scenario() -> None:
        tries: Counter[str] = Counter()

        async def act(notice: Notice) -> None:
            tries[notice.subject] += 1
            if notice.subject == "never":
                raise Unwanted("it answered with status 400")
            if notice.subject == "broken":
                raise ConnectionError("canary-secret")

        world, listener = World(), Hearing(act)
        world.listen(listener)
        for text in ("never", "broken", "good"):
            world.notices.happened("store.lost", text)
        await settled(lambda: listener.heard == ["good"])
        await world.notices.close()
        assert tries == {"never": 1, "broken": TRIES, "good": 1}
        assert world.counts["notices_dropped", "undelivered"] == 2

    run(scenario())
    assert "canary-secret" not in caplog.text and "status 400" in caplog.text


def test_a_listener_that_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subject, "DEADLINE", 0.01)

    async def scenario() -> None:
        async def stuck(notice: Notice) -> None:
            if notice.subject == "stuck":
                await asyncio.Event().wait()

        world, listener = World(), Hearing(stuck)
        world.listen(listener)
        world.notices.happened("store.lost", "stuck")
        world.notices.happened("store.back", "next")
        await settled(lambda: listener.heard == ["next"])
        await world.notices.close()
        assert world.counts["notices_dropped", "undelivered"] == 1

    run(scenario())


def test_a_queue_that_is_full_drops_what_comes_and_counts_it() -> None:
    async def scenario() -> None:
        release = asyncio.Event()

        async def wait(notice: Notice) -> None:
            await release.wait()

        world, listener = World(), Hearing(wait)
        world.listen(listener)
        for number in range(QUEUE + 50):
            world.notices.happened("limit.near", str(number))
        dropped = world.counts["notices_dropped", "queue"]
        assert 49 <= dropped <= 50
        release.set()
        await settled(lambda: len(listener.heard) == QUEUE + 50 - dropped)
        await world.notices.close()

    run(scenario())


def test_a_flood_is_counted_and_not_told(caplog: pytest.LogCaptureFixture) -> None:
    counts: Counter[tuple[str, ...]] = Counter()
    notices = Notices(lambda *name: counts.update([name]), clock=lambda: 5.0)
    with caplog.at_level(logging.INFO, "penstock.notices"):
        for number in range(1000):
            notices.happened("limit.near", str(number))
    assert counts["notices", "limit.near"] == 1000
    assert counts["notices_dropped", "flood"] == 800 and len(caplog.records) == 200


def test_a_listener_that_can_not_be_opened_is_opened_later() -> None:
    async def scenario() -> None:
        class Late(Hearing):
            async def open(self) -> None:
                self.opened += 1
                if self.opened < 3:
                    raise OSError("not yet")

        world, listener = World(), Late()
        world.listen(listener)
        world.notices.happened("store.lost", "redis")
        await settled(lambda: listener.heard == ["redis"])
        assert listener.opened == 3
        await world.notices.close()

    run(scenario())


def test_what_waits_for_a_listener_that_goes_is_still_delivered() -> None:
    async def scenario() -> None:
        world, before, after = World(), Hearing(), Hearing()
        world.listen(before)
        world.notices.happened("store.lost", "one")
        world.listen(after)
        world.notices.happened("store.back", "two")
        await settled(lambda: before.closed and after.heard)
        assert (before.heard, after.heard) == (["one"], ["two"])
        await world.notices.close()

    run(scenario())


@pytest.mark.parametrize("wanted", ["limits.*", ["limit.*", "nothing"], [5]])
def test_kinds_that_no_notice_has_are_refused_with_those_there_are(wanted: Any) -> None:
    with pytest.raises(ValueError, match=r"matches no kind of notice; there are limit\.near"):
        kinds_of({"kinds": wanted})


def test_kinds_may_be_one_glob_or_several_or_all() -> None:
    assert kinds_of({"kinds": "limit.*"}) == ("limit.*",)
    assert kinds_of({"kinds": ["store.lost", "key.*"]}) == ("store.lost", "key.*")
    assert kinds_of({}) == ("*",)


def test_every_kind_is_counted_under_its_name_and_any_other_under_one() -> None:
    metrics = Metrics()
    notices = Notices(metrics.count, clock=iter(range(10**6)).__next__)
    for kind in [*KINDS, "made.up"]:
        notices.happened(kind, "x")
    text = metrics.render()[1].decode()
    assert 'penstock_notices_total{kind="limit.near"} 1.0' in text
    assert 'penstock_notices_total{kind="other"} 1.0' in text and "made.up" not in text


# -- keys that end


def test_keys_that_end_soon_are_told_of_once_a_day() -> None:
    day, now = 86_400.0, [1_000_000.0]
    told: list[tuple[str, str]] = []
    expiry = Expiry(lambda kind, subject, **detail: told.append((kind, subject)), lambda: now[0])

    def key(name: str, days: float | None, **more: Any) -> KeyEntry:
        return KeyEntry(
            f"key_{name}", name, b"", expires=None if days is None else now[0] + days * day, **more
        )

    expiry.know(
        [key("soon", 6.5), key("later", 8), key("past", -1), key("never", None), key("gone", 1, revoked=True)]
    )
    expiry.look()
    expiry.look()
    assert told == [("key.expiring", "key soon")]
    now[0] += day
    expiry.look()
    assert told[1:] == [("key.expiring", "key soon"), ("key.expiring", "key later")]


def test_many_keys_that_end_are_told_of_a_few_at_a_time() -> None:
    told: list[str] = []
    expiry = Expiry(lambda kind, subject, **detail: told.append(subject), lambda: 1_000_000.0)
    expiry.know([KeyEntry(f"key_{n}", f"k{n}", b"", expires=1_000_500.0) for n in range(120)])
    for expected in (50, 100, 120, 120):
        expiry.look()
        assert len(set(told)) == len(told) == expected
