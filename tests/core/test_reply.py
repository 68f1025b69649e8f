"""Replies: two forms of the same headers."""

from __future__ import annotations

from gateway.core.reply import Reply

WIRE = b"content-type: a/b\r\nx-one: a: b\r\nx-one: 2\r\n"
PAIRS = [(b"content-type", b"a/b"), (b"x-one", b"a: b"), (b"x-one", b"2")]


def test_headers_in_wire_form_are_pairs_for_who_asks() -> None:
    reply = Reply(200, [], b"", wire=WIRE)
    assert reply.wire == WIRE
    assert reply.headers == PAIRS


def test_the_wire_form_ends_where_somebody_may_change_the_pairs() -> None:
    reply = Reply(200, [], b"", wire=WIRE)
    reply.headers.append((b"x-two", b"3"))
    assert reply.wire == b""
    assert reply.headers == [*PAIRS, (b"x-two", b"3")]


def test_headers_that_are_set_replace_both_forms() -> None:
    reply = Reply(200, [], b"", wire=WIRE)
    reply.headers = [(b"x-two", b"3")]
    assert (reply.wire, reply.headers) == (b"", [(b"x-two", b"3")])


def test_a_reply_may_have_no_headers() -> None:
    assert Reply(200, [], b"").headers == []
