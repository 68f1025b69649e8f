"""The same pipeline under plain ASGI, called as a server would."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.call import Call
from gateway.core.errors import CallerError, UpstreamError
from gateway.core.reply import Reply
from gateway.core.route import Target
from gateway.front import scope as scopes
from gateway.front.asgi import BrokenBody, build
from gateway.front.intake import Intake
from gateway.front.request import parse
from gateway.live import Live
from gateway.pipeline import Pipeline
from gateway.settings.schema import Bounds
from tests.front.door import JSON, Recorder
from tests.front.test_lane import Pieces, stream


class Client:
    """Speaks ASGI to an application: gives the body, then waits; `leave` disconnects."""

    def __init__(self, *body: bytes) -> None:
        last = len(body) - 1
        self._messages = [
            {"type": "http.request", "body": b, "more_body": n < last} for n, b in enumerate(body)
        ] or [{"type": "http.request", "body": b"", "more_body": False}]
        self.left = asyncio.Event()
        self.sent: list[dict[str, Any]] = []
        self.got = asyncio.Event()

    async def receive(self) -> dict[str, Any]:
        if self._messages:
            return self._messages.pop(0)
        await self.left.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: dict[str, Any]) -> None:
        self.sent.append(message)
        self.got.set()

    @property
    def status(self) -> int:
        return int(self.sent[0]["status"])

    @property
    def body(self) -> bytes:
        return b"".join(m.get("body", b"") for m in self.sent[1:])


def scope(path: str = "/v1/chat/completions", method: str = "POST", *headers: tuple[bytes, bytes]) -> Any:
    return {
        "type": "http",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"a=1",
        "headers": [(b"host", b"g"), (b"content-type", b"application/json"), *headers],
        "client": ("127.0.0.1", 1),
        "app": None,
    }


def run(seen: Recorder, client: Client, **bounds: Any) -> Any:
    live = Live(Pipeline([seen], "test"))
    return build(live, Bounds(**bounds)), live


BODY = b'{"model":"m"}'


def test_a_call_runs_through_the_same_pipeline() -> None:
    async def scenario() -> None:
        seen, client = Recorder(), Client(BODY[:4], BODY[4:])
        app, live = run(seen, client)
        await app(scope(), client.receive, client.send)
        assert (client.status, client.body) == (200, b'{"ok":true}')
        call = seen.calls[0]
        assert (call.path, call.model, call.query, call.body) == ("/chat/completions", "m", b"a=1", BODY)
        assert [c.outcome for c in seen.settled] == ["ok"]
        assert live.calls == 0

    asyncio.run(scenario())


@pytest.mark.parametrize("kind", ["whole", "stream", "break", "refused"])
def test_a_call_is_settled_once_before_its_last_byte_goes_out(kind: str) -> None:
    async def scenario() -> None:
        end = UpstreamError("gone", code="upstream_closed") if kind == "break" else None
        answer = None if kind == "whole" else lambda call: stream(Pieces(b"data: 1\n\n", end=end))
        seen, client = Recorder(answer), Client(b"" if kind == "refused" else BODY)
        app, _ = run(seen, client)
        settled: list[int] = []

        async def send(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.body" and not message.get("more_body"):
                settled.append(len(seen.settled))
            await client.send(message)

        await app(scope(), client.receive, send)
        assert settled == [1] and len(seen.settled) == 1
        outcomes = {"whole": "ok", "stream": "ok", "break": "truncated", "refused": "refused"}
        assert seen.settled[0].outcome == outcomes[kind]

    asyncio.run(scenario())


def test_credentials_and_hop_by_hop_headers_do_not_go_on() -> None:
    async def scenario() -> None:
        seen, client = Recorder(), Client(BODY)
        app, _ = run(seen, client)
        extra = [
            (b"Authorization", b"Bearer k"),
            (b"connection", b"X-Hop"),
            (b"x-hop", b"1"),
            (b"x-kept", b"1"),
        ]
        await app(scope("/v1/files", "POST", *extra), client.receive, client.send)
        assert seen.calls[0].passed == b"content-type: application/json\r\nx-kept: 1\r\n"

    asyncio.run(scenario())


def other(path: bytes = b"/v1/files", method: str = "GET", *headers: tuple[bytes, bytes], **more: Any) -> Any:
    """What another server makes of a request; it has one host, but what is given besides."""
    raw, _, query = path.partition(b"?")
    return {
        **scope(raw.decode("latin-1"), method),
        "raw_path": raw,
        "query_string": query,
        "headers": [(b"host", b"g"), *headers],
        **more,
    }


TWICE = [
    (b"authorization", b"Bearer a"),
    (b"content-type", b"a/b"),
    (b"x-api-key", b"a"),
    (b"content-length", b"0"),
    (b"content-encoding", b"gzip"),
    (b"transfer-encoding", b"chunked"),
]


@pytest.mark.parametrize(
    ("request_scope", "status"),
    [
        (other(b"/v1/../../admin/keys"), 400),
        (other(b"/v1/files/%2e%2e/assistants"), 400),
        (other(b"/v1/files/..%2fassistants"), 400),
        (other(b"/v1/files/..;/assistants"), 400),
        (other(b"/v1/./files"), 400),
        (other(b"/v1//files"), 400),
        (other(b"//evil.example/files"), 400),
        (other(b"/v1/a%00b"), 400),
        (other(b"/v1/a%5c..%5cb"), 400),
        (other(b"/v1/a%zz"), 400),
        (other(b"/v1/a b"), 400),
        (other(b"/v1/mod\xc3\xa9ls"), 400),
        (other(b"/v1/files?a=\x00"), 400),
        (other(b"http://other.example/v1/files"), 400),
        (other(b"other.example:443"), 400),
        (other(b"*", "OPTIONS"), 400),
        (other(b"/v1/../files", raw_path=None), 400),
        (other(b"/v1/a/../files"), 400),
        (other(b"/v1/" + b"a" * 9000), 414),
        (other(method="get"), 400),
        (other(method="CONNECT"), 405),
        (other(method="TRACE"), 405),
        (other(b"/v1/chat/completions/", "POST"), 400),
        (other(http_version="2.0"), 400),
        (other(headers=[]), 400),
        (other(headers=[(b"host", b"a/b")]), 400),
        (other(headers=[(b"host", b"a"), (b"host", b"a")]), 400),
        *[(other(b"/v1/files", "POST", field, field), 400) for field in TWICE],
        (other(b"/v1/files", "POST", (b"transfer-encoding", b"gzip, chunked")), 400),
        (other(b"/v1/files", "POST", TWICE[-1], (b"content-length", b"3")), 400),
        (other(b"/v1/files", "POST", TWICE[-1], http_version="1.0"), 400),
        (other(b"/v1/files", "POST", (b"content-length", b"+3")), 400),
        (other(b"/v1/files", "POST", (b"content-length", b"99999999999")), 413),
        (other(b"/v1/files", "GET", (b"expect", b"200-ok")), 400),
        (other(b"/v1/files", "GET", (b"x-a", b"1\r\nx-b: 2")), 400),
        (other(b"/v1/files", "GET", (b"x-a", b"1\nx-b: 2")), 400),
        (other(b"/v1/files", "GET", (b"x-a", b"a\x01b")), 400),
        (other(b"/v1/files", "GET", (b"x-a:b", b"2")), 400),
        (other(b"/v1/files", "GET", (b"bad name", b"2")), 400),
        (other(b"/v1/files", "GET", *[(b"x-%d" % n, b"v") for n in range(200)]), 431),
        (other(b"/v1/files", "GET", (b"x-a", b"a" * 40_000)), 431),
    ],
)
def test_what_the_gateways_own_port_refuses_is_refused_under_any_server(
    request_scope: Any, status: int
) -> None:
    async def scenario() -> None:
        seen, client = Recorder(), Client(b"{}")
        app, live = run(seen, client)
        await app(request_scope, client.receive, client.send)
        assert client.status == status
        error = json.loads(client.body)["error"]
        assert set(error) == {"message", "type", "param", "code", "request_id"}
        assert live.refused == {error["code"]: 1}
        assert dict(client.sent[0]["headers"])[b"x-request-id"].decode() == error["request_id"]
        # As on the gateway's own port it is no call: nobody was asked, and nothing is booked.
        assert (seen.calls, seen.settled, live.calls) == ([], [], 0)

    asyncio.run(scenario())


def test_what_the_lane_has_judged_is_not_judged_again() -> None:
    async def scenario() -> None:
        seen, client = Recorder(), Client(b"")
        live = Live(Pipeline([seen], "test"))
        app = build(live, Bounds(), Intake(live, Bounds()))
        await app(other(b"/v1/files", "GET", (b"host", b"b")), client.receive, client.send)
        assert (client.status, len(seen.calls)) == (200, 1)

    asyncio.run(scenario())


@pytest.mark.parametrize("version", ["1.0", "1.1", "2", "3"])
def test_the_versions_of_http_that_servers_speak_pass(version: str) -> None:
    async def scenario() -> None:
        seen, client = Recorder(), Client(BODY)
        app, _ = run(seen, client)
        await app({**scope(), "http_version": version}, client.receive, client.send)
        assert (client.status, seen.calls[0].model) == (200, "m")

    asyncio.run(scenario())


def test_a_path_of_a_server_that_keeps_no_raw_one_is_written_anew() -> None:
    async def scenario() -> None:
        seen, client = Recorder(), Client(b"")
        app, _ = run(seen, client)
        await app(other(b"/v1/files/a%b c\n", raw_path=None), client.receive, client.send)
        assert [call.path for call in seen.calls] == ["/files/a%25b%20c%0A"]

    asyncio.run(scenario())


def test_a_web_socket_is_turned_away() -> None:
    async def scenario() -> None:
        seen, client = Recorder(), Client()
        app, _ = run(seen, client)
        await app({"type": "websocket", "path": "/v1/realtime"}, client.receive, client.send)
        assert [message["type"] for message in client.sent] == ["websocket.close"]

    asyncio.run(scenario())


NAMES = (
    st.sampled_from([b"host", b"authorization", b"content-length", b"x-a", b"connection", b"te"])
    | st.binary()
)
VALUES = st.sampled_from([b"g", b"1", b"x-a", b"Bearer k"]) | st.binary()


@given(st.lists(st.tuples(NAMES, VALUES)), st.binary(max_size=20))
def test_a_head_means_the_same_whichever_server_read_it(headers: Any, path: bytes) -> None:
    async def scenario() -> None:
        intake = Intake(Live(Pipeline([Recorder()], "test")), Bounds())
        try:
            call = scopes.judge(intake, other(b"/v1/" + path, headers=[(b"host", b"g"), *headers]))
        except CallerError:
            return
        # What passes has one meaning: each pair is one line, with nothing in it that could be another's.
        lines = [b"GET /v1/%b HTTP/1.1" % path, b"host: g", *[b"%b: %b" % pair for pair in headers]]
        head = parse(b"\r\n".join(lines))
        assert (call.path, call.query, call.passed) == (head.path, head.query, head.passed)
        named = [name.lower() for name, _ in headers if name.lower() != b"content-length"]
        assert [name for name, _ in call.headers] == [b"host", *named]

    asyncio.run(scenario())


def test_a_body_beyond_the_bound_is_413_and_settled() -> None:
    async def scenario() -> None:
        seen, client = Recorder(), Client(b"x" * 60, b"x" * 60)
        app, _ = run(seen, client, body=100)
        await app(scope(), client.receive, client.send)
        assert client.status == 413
        assert json.loads(client.body)["error"]["code"] == "caller_body_too_large"
        assert (seen.calls, len(seen.settled)) == ([], 1)

    asyncio.run(scenario())


def test_a_stream_goes_out_piece_by_piece_and_its_break_is_told() -> None:
    async def scenario() -> None:
        source = Pieces(b"data: 1\n\n", end=UpstreamError("gone", code="upstream_closed"))
        seen, client = Recorder(lambda call: stream(source)), Client(BODY)
        app, _ = run(seen, client)
        await app(scope(), client.receive, client.send)
        assert client.body.startswith(b"data: 1\n\n") and b"upstream_closed" in client.body
        assert client.sent[-1]["more_body"] is False
        assert seen.settled[0].outcome == "truncated"
        assert source.closed.is_set()

    asyncio.run(scenario())


def test_a_plain_body_that_breaks_off_ends_in_an_error_for_the_server_to_cut() -> None:
    async def scenario() -> None:
        source = Pieces(b"half", end=UpstreamError("gone", code="upstream_closed"))
        seen, client = Recorder(lambda call: stream(source, event_stream=False)), Client(BODY)
        app, _ = run(seen, client)
        with pytest.raises(BrokenBody):
            await app(scope(), client.receive, client.send)
        assert seen.settled[0].outcome == "truncated"

    asyncio.run(scenario())


def test_a_client_that_leaves_with_its_body_unsent_is_booked_as_gone() -> None:
    async def scenario() -> None:
        seen, client = Recorder(lambda call: Reply(200, [JSON], b"{}")), Client(BODY)
        client._messages[0]["more_body"] = True
        client.left.set()
        app, _ = run(seen, client)
        await app(scope(), client.receive, client.send)
        assert (client.sent, seen.calls) == ([], [])
        assert [(c.outcome, c.code, c.status) for c in seen.settled] == [("client_gone", "caller_gone", 499)]

    asyncio.run(scenario())


def test_a_client_that_leaves_cancels_the_call() -> None:
    async def scenario() -> None:
        source = Pieces(b"data: 1\n\n", stall=True)
        seen, client = Recorder(lambda call: stream(source)), Client(BODY)
        app, live = run(seen, client)
        task = asyncio.ensure_future(app(scope(), client.receive, client.send))
        await client.got.wait()
        client.left.set()
        await asyncio.wait_for(task, 30)
        assert source.closed.is_set()
        assert seen.settled[0].outcome == "client_gone"
        assert live.calls == 0

    asyncio.run(scenario())


def test_the_drain_deadline_reaches_calls_on_this_lane_too() -> None:
    async def scenario() -> None:
        source = Pieces(b"data: 1\n\n", stall=True)
        seen, client = Recorder(lambda call: stream(source)), Client(BODY)
        app, live = run(seen, client)
        task = asyncio.ensure_future(app(scope(), client.receive, client.send))
        await client.got.wait()
        live.expire()
        await asyncio.wait_for(task, 30)
        assert b"gateway_draining" in client.body
        assert seen.settled[0].outcome == "truncated"

    asyncio.run(scenario())


LIMIT = 20.0  # seconds; it only ends a failed test


class Unread(Client):
    """A client that stops reading: the server waits with the message of this number, once or for good."""

    def __init__(self, number: int, *body: bytes, once: bool = False) -> None:
        super().__init__(*body)
        self._number, self._once = number, once
        self.stuck = asyncio.Event()
        self._freed = asyncio.Event()

    async def ended(self, call: Any) -> None:
        """Until the call has ended by itself; where it does not, the test fails and nothing hangs."""
        task = asyncio.ensure_future(call)
        done, _ = await asyncio.wait({task}, timeout=LIMIT)
        self._freed.set()
        assert done, "it waits for its client"
        await task

    async def send(self, message: dict[str, Any]) -> None:
        if len(self.sent) == self._number and not (self._once and self.stuck.is_set()):
            self.stuck.set()
            await self._freed.wait()
        await super().send(message)


def timed(until: float, event_stream: bool) -> tuple[Pieces, Recorder]:
    """A source whose time is over then, and the stage that gives it."""
    source = Pieces(*[b"data: %d\n\n" % number for number in range(9)])
    source.until = until  # type: ignore[attr-defined]

    def answer(call: Call) -> Reply:
        call.target = Target("up")
        return stream(source, event_stream)

    return source, Recorder(answer)


@pytest.mark.parametrize("number", [0, 1, 3, 10])
@pytest.mark.parametrize("event_stream", [True, False])
def test_a_call_whose_answer_nobody_takes_ends_when_its_time_is_over(event_stream: bool, number: int) -> None:
    async def scenario() -> None:
        source, seen = timed(time.monotonic() + 0.1, event_stream)
        client = Unread(number, BODY)
        app, live = run(seen, client)
        with pytest.raises(BrokenBody):
            await client.ended(app(scope(), client.receive, client.send))
        last = ("ok", "") if number == 10 else ("truncated", "upstream_total_timeout")
        assert [(call.outcome, call.code) for call in seen.settled] == [last]
        assert (live.calls, live.pipeline.inflight, len(client.sent)) == (0, 0, number)
        assert source.closed.is_set()

    asyncio.run(scenario())


def test_a_client_that_reads_again_is_told_that_the_time_was_over() -> None:
    async def scenario() -> None:
        _, seen = timed(time.monotonic() + 0.1, True)
        client = Unread(3, BODY, once=True)
        app, _ = run(seen, client)
        await client.ended(app(scope(), client.receive, client.send))
        assert client.body.startswith(b"data: 0\n\ndata: 1\n\n") and b"upstream_total_timeout" in client.body
        assert client.sent[-1]["more_body"] is False
        assert seen.settled[0].outcome == "truncated"

    asyncio.run(scenario())


@pytest.mark.parametrize("kind", ["stream", "plain", "untimed", "whole"])
def test_the_drain_deadline_ends_a_call_whose_answer_nobody_takes(kind: str) -> None:
    async def scenario() -> None:
        source, seen = timed(0.0 if kind == "untimed" else time.monotonic() + 600, kind != "plain")
        client = Unread(1, BODY)
        app, live = run(Recorder() if kind == "whole" else seen, client)
        seen = live.pipeline.stages[0]
        task = asyncio.ensure_future(app(scope(), client.receive, client.send))
        await asyncio.wait_for(client.stuck.wait(), LIMIT)
        live.expire()
        with pytest.raises(BrokenBody):
            await client.ended(task)
        last = ("ok", "") if kind == "whole" else ("truncated", "gateway_draining")
        assert [(call.outcome, call.code) for call in seen.settled] == [last]
        assert (live.calls, source.closed.is_set()) == (0, kind != "whole")

    asyncio.run(scenario())


@pytest.mark.parametrize("kind", ["whole", "refused", "untimed"])
def test_what_has_no_time_of_its_own_waits_for_its_client_as_long_as_a_body_may_take(kind: str) -> None:
    async def scenario() -> None:
        seen = Recorder() if kind == "whole" else timed(0.0, False)[1]
        client = Unread(1, BODY)
        app, live = run(seen, client, body_time=0.1)
        asked = other(b"/v1/../files") if kind == "refused" else scope()
        with pytest.raises(BrokenBody):
            await client.ended(app(asked, client.receive, client.send))
        booked = {"whole": [("ok", "")], "refused": [], "untimed": [("truncated", "caller_timeout")]}
        assert [(call.outcome, call.code) for call in seen.settled] == booked[kind]
        assert live.calls == 0

    asyncio.run(scenario())


def test_nothing_is_glued_to_a_plain_body_that_a_drain_cuts_off() -> None:
    async def scenario() -> None:
        source = Pieces(b"half", stall=True)
        seen, client = Recorder(lambda call: stream(source, event_stream=False)), Client(BODY)
        app, live = run(seen, client)
        task = asyncio.ensure_future(app(scope(), client.receive, client.send))
        while not client.body:
            client.got.clear()
            await asyncio.wait_for(client.got.wait(), LIMIT)
        live.expire()
        with pytest.raises(BrokenBody):
            await asyncio.wait_for(task, LIMIT)
        assert (client.body, client.sent[-1]["more_body"]) == (b"half", True)
        assert [(call.outcome, call.code) for call in seen.settled] == [("truncated", "gateway_draining")]

    asyncio.run(scenario())


def test_healthz_needs_no_key() -> None:
    async def scenario() -> None:
        seen, client = Recorder(lambda call: Reply(401, [JSON], b"{}")), Client()
        app, _ = run(seen, client)
        await app(scope("/healthz", "GET"), client.receive, client.send)
        assert (client.status, client.body) == (200, b'{"status":"ok"}')

    asyncio.run(scenario())
