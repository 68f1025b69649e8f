"""Credentials that are refused or replaced while calls run: no call fails that another key could serve."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from gateway.compose import Composer
from gateway.core.route import Target
from gateway.registry import backend as registered
from gateway.settings.schema import BackendSettings, Settings
from gateway.settings.secret import Secret
from tests.backends.given import COMPLETION, backend, call, document, run, upstream, whole
from tests.stages.given import parts

UP = Target("up")
CHAT = {"model": "gpt-4o", "messages": [{"role": "user", "content": "hi"}]}


def bearer(seen: Any) -> str:
    (value,) = seen.header("authorization")
    return str(value).removeprefix("Bearer ")


def accepting(*keys: str, status: int = 401, headers: tuple[str, ...] = ()) -> Any:
    """An upstream that takes these keys alone."""

    def answer(seen: Any) -> bytes:
        good = bearer(seen) in keys
        return document(COMPLETION if good else {"error": {}}, *headers, status=200 if good else status)

    return answer


@pytest.mark.parametrize("status", [401, 403, 429])
def test_one_bad_key_of_several_fails_no_call(status: int, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        async with (
            upstream(accepting("key-b", status=status)) as up,
            backend(up.port, keys=("key-a", "key-b")) as asked,
        ):
            answers = [await asked.ask(call(value=CHAT), UP) for _ in range(4)]
            assert [answer.status for answer in answers] == [200] * 4
            assert [bearer(seen) for seen in up.seen] == ["key-a", *["key-b"] * 4]
            assert all(seen.body == up.seen[0].body for seen in up.seen)

    with caplog.at_level(logging.WARNING, "penstock.backends"):
        run(scenario())
    (said,) = [record.getMessage() for record in caplog.records]
    assert f"answered {status} to key 1 of 2 of backend up" in said
    assert "key-a" not in said


def test_when_every_key_is_refused_each_is_asked_once_and_the_last_answer_stands() -> None:
    async def scenario() -> None:
        async with (
            upstream(accepting(headers=("retry-after: 0",))) as up,
            backend(up.port, keys=("a", "b", "c")) as asked,
        ):
            answer = await asked.ask(call(value=CHAT), UP)
            assert answer.status == 401
            assert [bearer(seen) for seen in up.seen] == ["a", "b", "c"]

    run(scenario())


def test_a_stream_is_asked_for_again_too() -> None:
    async def scenario() -> None:
        async with upstream(accepting("b")) as up, backend(up.port, keys=("a", "b")) as asked:
            answer = await asked.ask(call(value={**CHAT, "stream": True}), UP)
            assert answer.status == 200
            assert b"choices" in await whole(answer)

    run(scenario())


# -- replaced credentials


def settings(port: int, *keys: str, **more: Any) -> Settings:
    secrets = tuple(Secret(key) for key in keys)
    made = BackendSettings("up", "openai", f"http://127.0.0.1:{port}/v1", secrets, **more)
    return Settings(revision="-".join(keys), backends={"up": made})


def composer() -> Composer:
    return Composer(
        lambda **revised: parts(),
        registered,
        lambda settings, parts: [],
    )


def test_a_new_key_is_used_at_once_on_the_connections_there_are() -> None:
    async def scenario() -> None:
        async with upstream(accepting("key-old-1", "key-new-1")) as up:
            composed = composer()
            await composed.compose(settings(up.port, "key-old-1"))
            (asked,) = composed.backends
            first = call(value=CHAT)
            await asked.ask(first, UP)
            _, dropped = await composed.compose(settings(up.port, "key-new-1"))
            assert dropped == [] and composed.backends == [asked]
            second = call(value=CHAT)
            await asked.ask(second, UP)
            assert [bearer(seen) for seen in up.seen] == ["key-old-1", "key-new-1"]
            assert first.connect_time > 0 and second.connect_time == 0
            await asked.close()

    run(scenario())


def test_a_call_refused_with_the_old_key_goes_out_with_the_new_one() -> None:
    async def scenario() -> None:
        arrived, rekeyed = asyncio.Event(), asyncio.Event()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            for status in (401, 200):
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
                await reader.readexactly(length)
                keys.append(head.split(b"Bearer ")[1].split(b"\r\n")[0])
                arrived.set()
                await rekeyed.wait()
                writer.write(document(COMPLETION, status=status))
            await reader.read()
            writer.close()
            gone.set()

        gone = asyncio.Event()
        keys: list[bytes] = []
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        composed = composer()
        await composed.compose(settings(port, "key-old-1"))
        (asked,) = composed.backends
        asking = asyncio.create_task(asked.ask(call(value=CHAT), UP))
        await arrived.wait()
        await composed.compose(settings(port, "key-new-1"))
        rekeyed.set()
        assert (await asking).status == 200
        assert keys == [b"key-old-1", b"key-new-1"]
        await asked.close()
        await gone.wait()
        server.close()

    run(scenario())


def test_the_key_before_is_still_taken_out_of_answers() -> None:
    async def scenario() -> None:
        said = {"error": {"message": "key-old-1 and key-new-1"}}
        async with upstream(lambda seen: document(said, status=400)) as up:
            composed = composer()
            await composed.compose(settings(up.port, "key-old-1"))
            await composed.compose(settings(up.port, "key-new-1"))
            (asked,) = composed.backends
            answer = await asked.ask(call(value=CHAT), UP)
            assert b"key-" not in (answer.body or b"key-")
            await asked.close()

    run(scenario())


@pytest.mark.parametrize("more", [{"connections": 5}, {"secret_headers": (("x-a", Secret("b")),)}])
def test_any_other_change_makes_another_backend(more: dict[str, Any]) -> None:
    async def scenario() -> None:
        composed = composer()
        await composed.compose(settings(9, "a"))
        (before,) = composed.backends
        _, dropped = await composed.compose(settings(9, "a", **more))
        assert dropped == [before] and composed.backends != [before]

    run(scenario())


def test_a_revision_that_fails_leaves_the_credentials_as_they_are() -> None:
    async def scenario() -> None:
        async with upstream(accepting("key-old-1")) as up:
            composed = composer()
            await composed.compose(settings(up.port, "key-old-1"))
            failing = Composer(composed._parts, registered, composed._stages)
            failing._backends = composed._backends

            def broken(settings: Settings, parts: Any) -> list[Any]:
                raise ValueError("a stage that can't be made")

            failing._stages = broken
            with pytest.raises(ValueError, match="can't be made"):
                await failing.compose(settings(up.port, "key-new-1"))
            (asked,) = composed.backends
            assert (await asked.ask(call(value=CHAT), UP)).status == 200
            await asked.close()

    run(scenario())
