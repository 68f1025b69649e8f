"""The lane on real sockets: framing, bounds, pipelining, clients that leave."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import pytest

from gateway.core.call import Call
from gateway.core.errors import PolicyError, UpstreamError
from gateway.core.ports import Stage
from gateway.core.reply import Event, Reply, Sink
from tests.front.door import JSON, Wire, door, post

BODY = b'{"model":"m","messages":[]}'


class Pieces:
    """A source that gives the pieces it was made with, then ends, fails or waits for ever."""

    length: int | None = None
    done_at = 0.0

    def __init__(self, *pieces: bytes, end: Exception | None = None, stall: bool = False) -> None:
        self.pieces = list(pieces)
        self.end, self.stall = end, stall
        self.closed = asyncio.Event()
        self.paused = 0

    async def read(self) -> bytes:
        if self.pieces:
            return self.pieces.pop(0)
        if self.stall:
            await asyncio.Event().wait()
        if self.end is not None:
            raise self.end
        return b""

    async def pipe(self, sink: Sink) -> None:
        while piece := await self.read():
            sink.write(piece)
            await asyncio.sleep(0)

    def pause(self) -> None:
        self.paused += 1

    def resume(self) -> None:
        pass

    def close(self) -> None:
        self.closed.set()


def stream(source: Pieces, event_stream: bool = True) -> Reply:
    return Reply(200, [(b"content-type", b"text/event-stream")], source=source, event_stream=event_stream)


def unchunk(body: bytes) -> bytes:
    out = b""
    while body:
        size, _, rest = body.partition(b"\r\n")
        count = int(size, 16)
        out += rest[:count]
        if not count:
            assert rest == b"\r\n"
            return out
        body = rest[count + 2 :]
    raise AssertionError("no last chunk")


def test_a_call_is_answered_with_its_id_revision_and_overhead() -> None:
    async def scenario() -> None:
        async with door() as gate:
            status, headers, body = await gate.ask(post(BODY))
            assert (status, body) == (200, b'{"ok":true}')
            assert headers[b"x-request-id"].startswith(b"req_")
            assert headers[b"x-penstock-revision"] == b"test"
            assert float(headers[b"x-penstock-overhead-ms"]) > 0
            assert [c.outcome for c in gate.seen.settled] == ["ok"]

    asyncio.run(scenario())


CHAT = b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\n"
FILES = b"POST /v1/files HTTP/1.1\r\nHost: a\r\n"
BOTH = b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (CHAT + BOTH, 400),
        (FILES + BOTH, 400),
        (CHAT + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nabcde", 400),
        (b"GET /v1/models HTTP/1.1\nHost: a\n\n", 400),
        (b"GET /v1/models HTTP/1.1\r\nHost: a\r\nX: b\rc\r\n\r\n", 400),
        (b"GET http://evil/v1/models HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET /v1/models HTTP/1.1\r\n\r\n", 400),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
        (b"\x16\x03\x01\x00\xa5\x01\x00\x00", 400),
        (b"GET /" + b"a" * 40_000, 414),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 40_000, 431),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 40_000 + b"\r\n\r\n", 431),
        (CHAT + b"Authorization: Bearer " + b"a" * 40_000, 401),
        (CHAT + b"X: y\r\nx-api-key: " + b"a" * 40_000 + b"\r\n\r\n", 401),
        (b"GET / HTTP/1.1\r\nAuthorization: Bearer a\r\nX: " + b"a" * 40_000 + b"\r\n\r\n", 431),
        (CHAT + b"Authorization: Bearer a\x00b\r\n\r\n", 401),
        (CHAT + b"Authorization: Bearer a\r\nb\r\n\r\n", 401),
        (CHAT + b"Authorization: Bearer a\nb\r\n\r\n", 401),
        (CHAT + b"Authorization: Bearer a\nb", 401),
        (CHAT + b"X-Api-Key: a\rb\r\n\r\n", 401),
        (CHAT + b"X-Api-Key: a\rb\r\nX: a\rb\r\n\r\n", 400),
        (CHAT + b"Authorization: Bearer a\r\n b\r\n\r\n", 400),
        (CHAT + b"X: a\r\nb\r\n\r\n", 400),
        (CHAT + b"Content-Length: 99999999999\r\n\r\n", 413),
        (FILES + b"Content-Length: 99999999999\r\n\r\n", 413),
        (CHAT + b"Transfer-Encoding: chunked\r\n\r\n0x5\r\nabcde", 400),
    ],
)
def test_a_message_with_two_readings_is_refused_and_closed_and_nothing_is_forwarded(
    request_bytes: bytes, status: int
) -> None:
    async def scenario() -> None:
        async with door() as gate:
            got = await gate.raw(request_bytes + b"")
            head, _, body = got.partition(b"\r\n\r\n")
            assert int(head.split(b" ")[1]) == status
            assert b"connection: close" in head
            error = json.loads(body)["error"]
            assert error["code"].startswith("caller_") and error["request_id"]
            assert gate.seen.calls == []

    asyncio.run(scenario())


@pytest.mark.parametrize("minor", [b"0", b"1"])
@pytest.mark.parametrize("before", [b"", b"GET /v1/models HTTP/1.1\r\nHost: a\r\n\r\n"])
def test_a_method_that_nobody_knows_is_refused_in_the_error_shape(before: bytes, minor: bytes) -> None:
    async def scenario() -> None:
        async with door() as gate:
            got = await gate.raw(before + b"FETCH /v1/files HTTP/1.%b\r\nHost: a\r\n\r\n" % minor)
            head, _, body = got[got.rindex(b"HTTP/1.1 ") :].partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 405 ") and b"connection: close" in head
            assert json.loads(body)["error"]["code"] == "caller_method_not_allowed"
            assert len(gate.seen.calls) == bool(before)

    asyncio.run(scenario())


def test_a_request_that_is_refused_is_not_asked_for_the_rest_of_its_body(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def scenario() -> None:
        head = FILES + b"Expect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n"
        async with door() as gate:
            got = await gate.raw(head + b"zz\r\n")
            assert got.startswith(b"HTTP/1.1 400 ") and gate.seen.calls == []

    asyncio.run(scenario())
    assert not caplog.records


@pytest.mark.parametrize("path", [b"/v1/chat/completions", b"/v1/audio/speech"])
def test_the_wish_for_another_protocol_is_ignored(path: bytes) -> None:
    async def scenario() -> None:
        extra = b"upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
        request = post(BODY, path, extra).replace(b"Connection: close", b"Connection: Upgrade")
        async with door() as gate:
            got = await gate.raw(request + post(BODY, path))
            assert got.count(b"HTTP/1.1 200 OK") == 2
            assert [call.body for call in gate.seen.calls] == [BODY, BODY]

    asyncio.run(scenario())


def test_what_follows_a_refused_message_is_never_read_as_a_request() -> None:
    async def scenario() -> None:
        smuggled = b"POST /v1/files HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n"
        async with door() as gate:
            got = await gate.raw(smuggled + post(BODY))
            assert got.count(b"HTTP/1.1 ") == 1
            assert gate.seen.calls == []

    asyncio.run(scenario())


@pytest.mark.parametrize("path", [b"/v1/chat/completions", b"/v1/audio/speech"])
def test_a_chunked_body_arrives_whole_on_both_lanes(path: bytes) -> None:
    async def scenario() -> None:
        body = b"".join(b"%x ; n=1\r\n%b\r\n" % (1, BODY[i : i + 1]) for i in range(len(BODY)))
        body += b"0\r\nX-Sum: 1\r\n\r\n"
        request = (
            b"POST %b HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n" % path
        )
        async with door() as gate:
            status, _, _ = await gate.ask(request + body)
            assert status == 200
            assert [c.body for c in gate.seen.calls] == [BODY]

    asyncio.run(scenario())


@pytest.mark.parametrize("path", [b"/v1/chat/completions", b"/v1/files"])
def test_a_body_beyond_the_bound_without_a_length_is_413(path: bytes) -> None:
    async def scenario() -> None:
        head = b"POST %b HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" % path
        async with door(body=1000) as gate:
            got = await gate.raw(head + b"400\r\n" + b"x" * 1024 + b"\r\n")
            assert got.startswith(b"HTTP/1.1 413 ")
            assert gate.seen.calls == []

    asyncio.run(scenario())


def test_pipelined_requests_are_answered_in_order_across_lanes() -> None:
    async def scenario() -> None:
        def named(call: Call) -> Reply:
            return Reply(200, [JSON], call.path.encode())

        keep = post(BODY).replace(b"Connection: close\r\n", b"")
        speech = keep.replace(b"chat/completions", b"audio/speech")
        models = b"GET /v1/models HTTP/1.1\r\nHost: a\r\n\r\n"
        async with door(named) as gate:
            got = await gate.raw(keep + models + speech + keep + post(BODY))
            bodies = [part.partition(b"\r\n\r\n")[2] for part in got.split(b"HTTP/1.1 200 OK")[1:]]
            hot = b"/chat/completions"
            assert bodies == [hot, b"/models", b"/audio/speech", hot, hot]
            assert gate.live.calls == 0

    asyncio.run(scenario())


@pytest.mark.parametrize("path", [b"/v1/chat/completions", b"/v1/audio/speech"])
def test_what_comes_while_a_request_sent_ahead_waits_its_turn_stands_behind_it(path: bytes) -> None:
    async def scenario() -> None:
        keep = post(BODY).replace(b"Connection: close\r\n", b"")
        other = post(b'{"model":"n","messages":[]}', path)
        async with door() as gate:
            for cut in (1, 40, other.index(b"{"), len(other) - 5):
                wire = Wire()
                connection = gate.connect(wire)
                connection.data_received(keep + other[:cut])
                connection.data_received(other[cut:])
                async with asyncio.timeout(30):
                    while not wire.ended:
                        await asyncio.sleep(0)
                assert wire.written.count(b"HTTP/1.1 200 OK") == 2
                assert [call.model for call in gate.seen.calls] == ["m", "n"]
                gate.seen.calls.clear()
                connection.connection_lost(None)

    asyncio.run(scenario())


@pytest.mark.parametrize("path", [b"/v1/chat/completions", b"/v1/audio/speech"])
def test_a_connection_whose_request_was_coming_in_when_the_drain_began_is_closed_after_it(
    path: bytes,
) -> None:
    async def scenario() -> None:
        request = post(BODY, path).replace(b"Connection: close\r\n", b"")
        async with door() as gate:
            for cut in (1, 40, request.index(b"{") + 1, len(request) - 5):
                wire = Wire()
                connection = gate.connect(wire)
                connection.data_received(request[:cut])
                connection.shutdown()
                connection.data_received(request[cut:])
                async with asyncio.timeout(30):
                    while not wire.ended:
                        await asyncio.sleep(0)
                assert wire.written.startswith(b"HTTP/1.1 200 OK")
                connection.connection_lost(None)

    asyncio.run(scenario())


@pytest.mark.parametrize("path", [b"/v1/chat/completions", b"/v1/audio/speech"])
def test_an_empty_line_that_comes_by_itself_before_a_request_is_ignored(path: bytes) -> None:
    async def scenario() -> None:
        async with door() as gate:
            wire = Wire()
            connection = gate.connect(wire)
            for piece in (b"\r", b"\n", post(BODY, path)):
                connection.data_received(piece)
            async with asyncio.timeout(30):
                while not wire.ended:
                    await asyncio.sleep(0)
            assert wire.written.startswith(b"HTTP/1.1 200 OK")
            connection.connection_lost(None)

    asyncio.run(scenario())


def test_every_request_cut_at_every_byte_reads_the_same() -> None:
    async def scenario() -> None:
        data = post(BODY).replace(b"Connection: close\r\n", b"") + post(BODY, b"/v1/audio/speech")
        async with door() as gate:
            reader, writer = await asyncio.open_connection("127.0.0.1", gate.port)
            for n in range(len(data)):
                writer.write(data[n : n + 1])
                await writer.drain()
                await asyncio.sleep(0)
            got = await reader.read()
            writer.close()
            assert got.count(b"HTTP/1.1 200 OK") == 2
            assert [c.body for c in gate.seen.calls] == [BODY, BODY]

    asyncio.run(scenario())


def test_a_head_request_is_told_the_length_of_the_body_that_does_not_come() -> None:
    async def scenario() -> None:
        source = Pieces()
        source.length = 5000
        request = b"HEAD /v1/files/file-1/content HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
        async with door(lambda call: stream(source, event_stream=False)) as gate:
            status, headers, body = await gate.ask(request)
            assert (status, headers[b"content-length"], body) == (200, b"5000", b"")
            assert b"transfer-encoding" not in headers

    asyncio.run(scenario())


def test_expect_100_continue_is_answered_before_the_body() -> None:
    async def scenario() -> None:
        head = post(BODY, extra=b"Expect: 100-continue\r\n")[: -len(BODY)]
        async with door() as gate:
            reader, writer = await asyncio.open_connection("127.0.0.1", gate.port)
            writer.write(head)
            assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
            writer.write(BODY)
            assert (await reader.read()).startswith(b"HTTP/1.1 200 OK")
            writer.close()

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "sent",
    [
        b"GET /v1/mod",
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc",
    ],
)
def test_a_slow_head_or_body_is_408(sent: bytes) -> None:
    async def scenario() -> None:
        async with door(header_time=0.2, body_time=0.2) as gate:
            got = await gate.raw(sent)
            assert got.startswith(b"HTTP/1.1 408 ") and b"caller_timeout" in got
            assert gate.live.refused == {"caller_timeout": 1}

    asyncio.run(scenario())


def test_an_idle_connection_is_closed_without_a_word() -> None:
    async def scenario() -> None:
        async with door(idle=0.1) as gate:
            assert await gate.raw(b"") == b""

    asyncio.run(scenario())


def test_a_refusal_by_a_stage_is_told_in_the_error_shape() -> None:
    async def scenario() -> None:
        def deny(call: Call) -> Reply:
            raise PolicyError("No.", status=429, code="policy_rate_limited", retry_after=1.2)

        async with door(deny) as gate:
            status, headers, body = await gate.ask(post(BODY))
            assert (status, headers[b"retry-after"]) == (429, b"2")
            error = json.loads(body)["error"]
            assert (error["type"], error["code"]) == ("rate_limit_error", "policy_rate_limited")
            assert error["request_id"].encode() == headers[b"x-request-id"]
            assert gate.seen.settled[0].outcome == "refused"

    asyncio.run(scenario())


def test_a_stage_that_breaks_is_a_500_without_its_words(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        def broken(call: Call) -> Reply:
            raise ValueError("secret words")

        async with door(broken) as gate:
            status, _, body = await gate.ask(post(BODY))
            assert status == 500 and b"secret" not in body and b"gateway_fault" in body

    asyncio.run(scenario())


def test_a_stream_reaches_the_client_piece_by_piece() -> None:
    async def scenario() -> None:
        source = Pieces(b"data: 1\n\n", b"data: 2\n\n")
        async with door(lambda call: stream(source)) as gate:
            status, headers, body = await gate.ask(post(BODY))
            assert (status, headers[b"transfer-encoding"]) == (200, b"chunked")
            assert unchunk(body) == b"data: 1\n\ndata: 2\n\n"
            assert gate.seen.settled[0].outcome == "ok"

    asyncio.run(scenario())


@pytest.mark.parametrize("path", [b"/v1/chat/completions", b"/v1/audio/speech"])
def test_a_stream_to_an_http_1_0_client_ends_with_the_connection(path: bytes) -> None:
    async def scenario() -> None:
        source = Pieces(b"data: 1\n\n", b"data: 2\n\n")
        request = post(BODY, path).replace(b"HTTP/1.1", b"HTTP/1.0")
        async with door(lambda call: stream(source)) as gate:
            _, headers, body = await gate.ask(request)
            assert b"transfer-encoding" not in headers
            assert body == b"data: 1\n\ndata: 2\n\n"
            assert [call.outcome for call in gate.seen.settled] == ["ok"]

    asyncio.run(scenario())


@pytest.mark.parametrize("path", [b"/v1/chat/completions", b"/v1/audio/speech"])
def test_a_whole_answer_to_an_http_1_0_client_has_its_length(path: bytes) -> None:
    async def scenario() -> None:
        async with door() as gate:
            _, headers, body = await gate.ask(post(BODY, path).replace(b"HTTP/1.1", b"HTTP/1.0"))
            assert (headers[b"content-length"], body) == (b"11", b'{"ok":true}')

    asyncio.run(scenario())


def test_an_upstream_that_dies_in_the_stream_becomes_a_typed_event() -> None:
    async def scenario() -> None:
        dead = UpstreamError("The provider closed the connection.", code="upstream_closed")
        source = Pieces(b"data: 1\n\n", end=dead)
        async with door(lambda call: stream(source)) as gate:
            _, _, body = await gate.ask(post(BODY))
            first, error = unchunk(body).split(b"\n\n")[:2]
            assert first == b"data: 1"
            assert json.loads(error[6:])["error"]["code"] == "upstream_closed"
            done = gate.seen.settled[0]
            assert (done.outcome, done.code) == ("truncated", "upstream_closed")
            assert source.closed.is_set()

    asyncio.run(scenario())


def test_a_plain_body_that_breaks_off_is_cut_so_that_the_client_sees_it() -> None:
    async def scenario() -> None:
        source = Pieces(b"half", end=UpstreamError("gone", code="upstream_closed"))
        async with door(lambda call: stream(source, event_stream=False)) as gate:
            got = await gate.raw(post(BODY))
            assert b"0\r\n\r\n" not in got.partition(b"\r\n\r\n")[2]

    asyncio.run(scenario())


def test_a_client_that_leaves_ends_the_call_and_its_upstream() -> None:
    async def scenario() -> None:
        source = Pieces(b"data: 1\n\n", stall=True)
        async with door(lambda call: stream(source)) as gate:
            reader, writer = await asyncio.open_connection("127.0.0.1", gate.port)
            writer.write(post(BODY))
            await reader.readuntil(b"data: 1")
            writer.close()
            await asyncio.wait_for(source.closed.wait(), 30)
            while not gate.seen.settled:
                await asyncio.sleep(0.01)
            assert gate.seen.settled[0].outcome == "client_gone"
            assert gate.live.calls == 0

    asyncio.run(scenario())


def test_a_client_that_leaves_while_a_stage_waits_cancels_it() -> None:
    async def scenario() -> None:
        waiting, cancelled = asyncio.Event(), asyncio.Event()

        async def slow(call: Call) -> Reply:
            waiting.set()
            try:
                await asyncio.Event().wait()
            finally:
                cancelled.set()
            raise AssertionError

        async with door(slow) as gate:
            _, writer = await asyncio.open_connection("127.0.0.1", gate.port)
            writer.write(post(BODY))
            await waiting.wait()
            writer.close()
            await asyncio.wait_for(cancelled.wait(), 30)
            while not gate.seen.settled:
                await asyncio.sleep(0.01)
            assert gate.seen.settled[0].outcome == "client_gone"

    asyncio.run(scenario())


def test_a_slow_client_pauses_the_upstream() -> None:
    async def scenario() -> None:
        source = Pieces(*[b"data: " + b"x" * 65536 + b"\n\n"] * 300)
        async with door(lambda call: stream(source)) as gate:
            _, writer = await asyncio.open_connection("127.0.0.1", gate.port, limit=1024)
            writer.write(post(BODY))
            while not source.paused:
                await asyncio.sleep(0.01)
            writer.close()
            await asyncio.wait_for(source.closed.wait(), 30)

    asyncio.run(scenario())


def test_the_drain_deadline_ends_a_stream_with_an_error_event() -> None:
    async def scenario() -> None:
        class Tap:
            usage, first_token, text, clean = None, 0.0, b"", True

            def feed(self, data: bytes) -> bytes:
                return data

            def finish(self) -> bytes:
                return b""

        def answer(call: Call) -> Reply:
            reply = stream(Pieces(b"data: 1\n\n", stall=True))
            reply.tap = Tap()
            return reply

        async with door(answer) as gate:
            reader, writer = await asyncio.open_connection("127.0.0.1", gate.port)
            writer.write(post(BODY))
            await reader.readuntil(b"data: 1")
            gate.live.expire()
            rest = await reader.read()
            assert b"gateway_draining" in rest and rest.endswith(b"0\r\n\r\n")
            assert gate.seen.settled[0].outcome == "truncated"
            writer.close()

    asyncio.run(scenario())


def test_the_drain_deadline_answers_503_where_nothing_was_sent_yet() -> None:
    async def scenario() -> None:
        started = asyncio.Event()

        async def wait(call: Call) -> Any:
            started.set()
            await asyncio.Event().wait()

        async with door(wait) as gate:
            reader, writer = await asyncio.open_connection("127.0.0.1", gate.port)
            writer.write(post(BODY))
            await started.wait()
            gate.live.expire()
            assert (await reader.read()).startswith(b"HTTP/1.1 503 ")
            writer.close()

    asyncio.run(scenario())


class Shout(Stage):
    """A listening stage: upper-cases every event and holds back those that say secret."""

    def __init__(self) -> None:
        pass

    def emit(self, call: Call, event: Event) -> Event | None:  # type: ignore[override]
        return None if b"secret" in event.data else Event(event.data.upper())


class SlowShout(Shout):
    async def emit(self, call: Call, event: Event) -> Event | None:  # type: ignore[override]
        await asyncio.sleep(0)
        return None if b"secret" in event.data else Event(event.data.upper())


@pytest.mark.parametrize("stage", [Shout, SlowShout])
def test_a_listening_stage_sees_whole_events_and_may_hold_them_back(stage: type[Shout]) -> None:
    async def scenario() -> None:
        source = Pieces(b"data: o", b"ne\n\nda", b"ta: sec", b"ret\n\ndata: two\n", b"\ndata: end")
        async with door(lambda call: stream(source), stages=(stage(),)) as gate:
            _, _, body = await gate.ask(post(BODY))
            assert unchunk(body) == b"DATA: ONE\n\nDATA: TWO\n\nDATA: END"

    asyncio.run(scenario())


def test_a_listening_stage_waits_for_a_client_that_takes_nothing_until_the_calls_time_is_over() -> None:
    async def scenario() -> None:
        source = Pieces(b"data: one\n\n", b"data: two\n\n")
        source.until = time.monotonic() + 0.2  # type: ignore[attr-defined]
        async with door(lambda call: stream(source), stages=(SlowShout(),)) as gate:
            wire = Wire()
            connection = gate.connect(wire)
            connection.pause_writing()
            connection.data_received(post(BODY))
            async with asyncio.timeout(30):
                while not gate.seen.settled:
                    await asyncio.sleep(0.01)
            (call,) = gate.seen.settled
            assert (call.outcome, call.code) == ("truncated", "upstream_total_timeout")
            assert source.closed.is_set()
            connection.connection_lost(None)

    asyncio.run(scenario())


def test_a_client_that_leaves_between_an_answer_s_head_and_its_first_piece_is_written_nothing() -> None:
    async def scenario() -> None:
        wire = Wire()

        class Leaving(Pieces):
            async def pipe(self, sink: Sink) -> None:
                wire.close()
                connection.connection_lost(None)
                await asyncio.Event().wait()

        source = Leaving()
        async with door(lambda call: stream(source)) as gate:
            connection = gate.connect(wire)
            connection.data_received(post(BODY))
            async with asyncio.timeout(30):
                while not gate.seen.settled:
                    await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert gate.seen.settled[0].outcome == "client_gone"
            assert wire.written == b""

    asyncio.run(scenario())


class Fails(Shout):
    def emit(self, call: Call, event: Event) -> Event | None:  # type: ignore[override]
        return next(iter(())) if b"two" in event.data else event


class FailsSlowly(Fails):
    async def emit(self, call: Call, event: Event) -> Event | None:  # type: ignore[override]
        await asyncio.sleep(0)
        return super().emit(call, event)


@pytest.mark.parametrize("lane", ["/v1/chat/completions", "/v1/cold"])
@pytest.mark.parametrize("stage", [Fails, FailsSlowly])
def test_a_listening_stage_that_fails_ends_the_stream_with_the_gateways_error(
    stage: type[Shout], lane: str
) -> None:
    async def scenario() -> None:
        source = Pieces(b"data: one\n\n", b"data: two\n\n", b"data: end\n\n")
        async with door(lambda call: stream(source), stages=(stage(),)) as gate:
            status, _, body = await gate.ask(post(BODY, path=lane.encode()))
            if status == 200:
                assert unchunk(body).startswith(b"data: one\n\n") and body.count(b"gateway_fault") == 1
            assert b"gateway_fault" in body and b"end" not in body
            (call,) = gate.seen.settled
            assert call.outcome in ("truncated", "failed") and call.code == "gateway_fault"
            assert source.closed.is_set()

    asyncio.run(scenario())


class Bills(Shout):
    """Finds out at the end what a call has cost."""

    emit = Stage.emit

    def settle(self, call: Call) -> None:  # type: ignore[override]
        call.cost = 5


@pytest.mark.parametrize("lane", ["/v1/chat/completions", "/v1/cold"])
@pytest.mark.parametrize("waits", [False, True])
def test_what_a_whole_answer_cost_stands_in_its_head(waits: bool, lane: str) -> None:
    async def later() -> Reply:
        await asyncio.sleep(0)
        return Reply(200, [JSON], b"{}")

    async def scenario() -> None:
        answer = (lambda call: later()) if waits else (lambda call: Reply(200, [JSON], b"{}"))
        async with door(answer, stages=(Bills(),)) as gate:
            _, headers, _ = await gate.ask(post(BODY, path=lane.encode()))
            assert headers[b"x-penstock-cost-usd"] == b"0.000005"

    asyncio.run(scenario())


def test_the_memory_for_bodies_is_bounded() -> None:
    async def scenario() -> None:
        async with door(memory=1000) as gate:
            head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nContent-Length: 5000\r\n\r\n"
            got = await gate.raw(head + b"x")
            assert got.startswith(b"HTTP/1.1 503 ") and b"gateway_overloaded" in got

    asyncio.run(scenario())


def test_healthz_answers_on_the_data_port() -> None:
    async def scenario() -> None:
        async with door() as gate:
            got = await gate.raw(b"GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            assert got.startswith(b"HTTP/1.1 200 ")
            assert gate.seen.calls == []

    asyncio.run(scenario())
