"""Calls that leave on a connection that is free, with nobody waiting for it."""

from __future__ import annotations

import asyncio

import pytest

from gateway.core.ports import Backend
from gateway.core.reply import Coming
from gateway.core.route import Target
from gateway.core.usage import PROVIDER, Usage
from tests.backends.given import COMPLETION, backend, call, chunked, document, run, upstream, whole

UP = Target("up")
CHAT = {"model": "m", "messages": [{"role": "user", "content": "Hello"}]}


async def told(coming: Coming) -> None:
    """Until there is news of it."""
    news = asyncio.Event()
    if coming.then(news.set):
        await news.wait()


async def warmed(asked: Backend) -> None:
    await whole(await asked.ask(call(value=CHAT), UP))


def test_a_call_starts_where_a_connection_is_free_and_only_there() -> None:
    async def scenario() -> None:
        async with upstream(lambda seen: document(COMPLETION)) as up, backend(up.port) as asked:
            assert asked.start(call(value=CHAT), UP) is None
            assert up.seen == []
            await warmed(asked)
            first = asked.start(call(value=CHAT), UP)
            assert first is not None
            assert asked.start(call(value=CHAT), UP) is None
            first.close()

    run(scenario())


def test_the_answer_to_a_started_call_is_that_to_one_waited_for_and_its_connection_is_free_again() -> None:
    async def scenario() -> None:
        async with upstream(lambda seen: document(COMPLETION, "x-more: 1")) as up, backend(up.port) as asked:
            usual = call(value=CHAT)
            waited = await asked.ask(usual, UP)
            for _ in range(3):
                made = call(value=CHAT)
                coming = asked.start(made, UP)
                assert coming is not None
                assert made.sent > 0
                await told(coming)
                answer = coming.now()
                assert answer is not None
                assert (answer.status, answer.headers) == (waited.status, waited.headers)
                assert answer.body == waited.body
                assert made.usage == usual.usage == Usage(input=11, output=7, source=PROVIDER)
                assert made.first_byte >= made.sent
            first, *others = up.seen
            assert len(others) == 3
            assert all(each == first for each in others)

    run(scenario())


@pytest.mark.parametrize(
    "other",
    [
        document({"error": {"message": "busy"}}, status=503),
        document({"error": {"message": "who"}}, status=401),
        chunked([b"data: {}\n\n", b"data: [DONE]\n\n"]),
    ],
)
def test_any_other_answer_is_waited_for_and_nothing_of_it_is_lost(other: bytes) -> None:
    async def scenario() -> None:
        answers = [document(COMPLETION), other, other]
        async with upstream(lambda seen: answers.pop(0)) as up, backend(up.port) as asked:
            await warmed(asked)
            coming = asked.start(call(value=CHAT), UP)
            assert coming is not None
            await told(coming)
            assert coming.now() is None
            answer = await coming
            assert answer.status == int(other.split()[1])
            assert await whole(answer) == await whole(await asked.ask(call(value=CHAT), UP))

    run(scenario())


def test_the_answer_to_a_started_head_request_keeps_its_length() -> None:
    async def scenario() -> None:
        head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 5000\r\n\r\n"
        answers = [document(COMPLETION), head]
        async with upstream(lambda seen: answers.pop(0)) as up, backend(up.port) as asked:
            await warmed(asked)
            coming = asked.start(call("/files/file-1", method="HEAD"), UP)
            assert coming is not None
            await told(coming)
            assert coming.now() is None
            answer = await coming
            assert answer.source is not None and answer.source.length == 5000

    run(scenario())
